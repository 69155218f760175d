"""The pages that list, create and revoke tokens."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from datapilot_defer.instance.services import tokens
from datapilot_defer.storage import integrations
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.tokens import Token
from tests.support.instance_calls import fetch, make_integration, manifest, onboard
from tests.support.instances import RunningInstance
from tests.support.visits import INTEGRATIONS, TOKENS, Visit, text_of

CREATE = f"{TOKENS}/create"
TOKEN = re.compile(r"dpd_[0-9A-Za-z]{46}")


@pytest.fixture
def admin(instance: RunningInstance) -> Visit:
    return Visit(instance, instance.token)


def stored_tokens(instance: RunningInstance) -> dict[str, Token]:
    return {each.name: each for _, each in tokens.list_tokens(instance.storage, "acme")}


def test_a_token_is_shown_once_after_a_redirect(instance: RunningInstance, admin: Visit) -> None:
    make_integration(instance)
    fields: dict[str, Any] = {"name": "nightly", "scope": ["upload", "read"], "integration": "shop"}
    sent = admin.send(CREATE, follow=False, **fields)
    assert sent.status_code == 303
    token_id = stored_tokens(instance)["nightly"].id
    assert sent.headers["location"] == f"{TOKENS}?created={token_id}"
    assert TOKEN.search(sent.text) is None
    assert TOKEN.search(str(sent.headers)) is None

    shown = admin.get(sent.headers["location"])
    match = TOKEN.search(shown.text)
    assert match is not None
    onboard(instance, 1, manifest(), token=match.group())
    # Reloading creates no second token and does not show the first one again.
    again = admin.get(sent.headers["location"])
    assert TOKEN.search(again.text) is None
    assert "cannot be shown again" in text_of(again)
    assert [*stored_tokens(instance)] == ["nightly", "first"]


def test_a_new_token_is_shown_only_to_the_session_that_created_it(
    instance: RunningInstance, admin: Visit
) -> None:
    sent = admin.send(CREATE, follow=False, name="nightly", scope="read")
    other = Visit(instance, instance.new_token("admin"))
    assert TOKEN.search(other.get(sent.headers["location"]).text) is None
    assert TOKEN.search(admin.get(sent.headers["location"]).text) is not None


@pytest.mark.parametrize(("days", "expected"), [(None, 90), ("30", 30), ("365", 365)])
def test_a_token_expires_in_90_days_or_as_selected(
    instance: RunningInstance, admin: Visit, days: str | None, expected: int
) -> None:
    fields: dict[str, Any] = {"days": days} if days else {}
    assert '<option value="90" selected>' in admin.get(CREATE).text
    admin.send(CREATE, name="job", scope="read", **fields)
    expires_at = stored_tokens(instance)["job"].expires_at
    assert expires_at is not None
    remaining = expires_at - utc_now()
    assert timedelta(days=expected - 1) < remaining <= timedelta(days=expected)


def test_a_token_never_expires_when_selected(instance: RunningInstance, admin: Visit) -> None:
    admin.send(CREATE, name="job", scope="read", days="never")
    assert stored_tokens(instance)["job"].expires_at is None


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "", "scope": "read"},
        {"scope": "read"},
        {"name": "typed", "scope": "root"},
        {"name": "typed"},
        {"name": "typed", "scope": "read", "days": "0"},
        {"name": "typed", "scope": "read", "days": "36500"},
        {"name": "typed", "scope": "read", "integration": "missing"},
        {"name": "typed", "scope": ["read", "admin"], "integration": "shop"},
    ],
)
def test_a_rejected_form_keeps_what_was_typed(
    instance: RunningInstance, admin: Visit, fields: dict[str, Any]
) -> None:
    make_integration(instance)
    answer = admin.send(CREATE, **fields)
    assert answer.status_code in (404, 422)
    assert 'role="alert"' in answer.text
    assert f'value="{fields.get("name", "")}"' in answer.text
    if fields.get("integration") == "shop":
        assert '<option value="shop" selected>' in answer.text
        assert 'value="admin" checked' in answer.text
    assert len(stored_tokens(instance)) == 1


def test_integrations_are_offered_in_a_list(instance: RunningInstance, admin: Visit) -> None:
    make_integration(instance, "b & c")
    integration_id = make_integration(instance, "a")
    page = admin.get(CREATE).text
    assert page.index('<option value="a"') < page.index('<option value="b &amp; c"')
    preselected = admin.get(f"{CREATE}?integration_id={integration_id}").text
    assert '<option value="a" selected>' in preselected


def test_of_many_integrations_the_typed_name_selects_one(
    instance: RunningInstance, admin: Visit
) -> None:
    with instance.storage.database.write() as connection:
        for number in range(300):
            integrations.create_integration(
                connection, 1, name=f"project {number:03d}", integration_type="dbt_core"
            )
    assert "<datalist" in admin.get(CREATE).text
    fields: dict[str, Any] = {"name": "job", "scope": "read"}
    ambiguous = admin.send(CREATE, integration="project 12", **fields)
    assert ambiguous.status_code == 404
    assert 'value="project 12"' in ambiguous.text
    suggested = re.findall(r'<option value="(project \d+)"', ambiguous.text)
    assert suggested == [f"project 12{digit}" for digit in range(10)]
    missing = admin.send(CREATE, integration="warehouse", **fields)
    assert "not found. Enter a part of its name." in text_of(missing)
    assert len(stored_tokens(instance)) == 1
    admin.send(CREATE, integration="PROJECT 299", **fields)
    assert stored_tokens(instance)["job"].integration_id == 300


def test_a_token_is_revoked_after_a_confirmation(instance: RunningInstance, admin: Visit) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    token = instance.new_token("read", name="nightly", integration_id=integration_id)
    revoke = f"{TOKENS}/{stored_tokens(instance)['nightly'].id}/revoke"
    listed = admin.get(TOKENS)
    assert f'href="{revoke}"' in listed.text
    assert "read shop" in text_of(listed)
    confirmation = text_of(admin.get(revoke))
    assert "Revoke the token “nightly”?" in confirmation
    assert "ends this session" not in confirmation
    assert fetch(instance, integration_id, token).status_code == 200

    done = admin.send(revoke)
    assert done.url == f"{instance.url}{TOKENS}?done=revoked"
    assert "The token was revoked." in text_of(done)
    assert fetch(instance, integration_id, token).status_code == 401
    folded = done.text.partition("<details")[2]
    assert "Revoked and expired tokens (1)" in folded
    assert "<bdi>nightly</bdi>" in folded
    assert admin.get(revoke).status_code == 404


def test_revoking_the_own_token_warns_and_ends_the_session(
    instance: RunningInstance, admin: Visit
) -> None:
    revoke = f"{TOKENS}/1/revoke"
    warning = text_of(admin.get(revoke))
    assert "Revoking it ends this session." in warning
    assert "This is the last valid admin token." in warning
    instance.new_token("admin")
    assert "This is the last valid admin token." not in text_of(admin.get(revoke))
    assert "<h1>Sign in</h1>" in admin.send(revoke).text
    assert "<h1>Sign in</h1>" in admin.get(INTEGRATIONS).text


def test_expired_tokens_are_folded_away(instance: RunningInstance, admin: Visit) -> None:
    instance.new_token("read", name="old", expires_at=utc_now() - timedelta(days=1))
    shown, _, folded = admin.get(TOKENS).text.partition("<details")
    assert "<bdi>old</bdi>" not in shown
    assert "<bdi>old</bdi>" in folded


def test_the_pages_require_an_admin(instance: RunningInstance) -> None:
    reader = Visit(instance, instance.new_token("read", "upload"))
    assert TOKENS not in reader.get(INTEGRATIONS).text
    for path in (TOKENS, CREATE, f"{TOKENS}/1/revoke"):
        assert reader.get(path).status_code == 403
    assert reader.send(CREATE, name="x", scope="admin").status_code == 403
    assert reader.send(f"{TOKENS}/1/revoke").status_code == 403
    assert len(stored_tokens(instance)) == 2


def test_the_path_of_an_earlier_release_redirects(instance: RunningInstance, admin: Visit) -> None:
    assert admin.get("/settings/api-keys").url == f"{instance.url}{TOKENS}"
