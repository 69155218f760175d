"""Sessions, security headers and errors of the web pages."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests

from datapilot_defer.instance.services import tokens
from datapilot_defer.storage.audit import Actor
from tests.support.instance_calls import SECONDS, call, make_integration
from tests.support.instances import RunningInstance
from tests.support.visits import INTEGRATIONS, TOKENS, Visit, text_of

NEW_INTEGRATION: dict[str, Any] = {
    "name": "x",
    "environment": "PROD",
    "integration_type": "dbt_core",
}


@pytest.fixture
def admin(instance: RunningInstance) -> Visit:
    return Visit(instance, instance.token)


def test_every_page_requires_sign_in_and_signing_in_leads_to_the_requested_page(
    instance: RunningInstance,
) -> None:
    make_integration(instance)
    visit = Visit(instance)
    for path in (
        "/",
        INTEGRATIONS,
        f"{INTEGRATIONS}/add",
        f"{INTEGRATIONS}/1",
        f"{INTEGRATIONS}/1/PROD",
        f"{INTEGRATIONS}/1/PROD/uploads/1",
        f"{INTEGRATIONS}/1/PROD/uploads/1/restore",
        f"{INTEGRATIONS}/1/PROD/uploads/1/accept",
        f"{INTEGRATIONS}/undelete/1",
        TOKENS,
        f"{TOKENS}/create",
        f"{TOKENS}/1/revoke",
        "/settings/api-keys",
        "/settings/audit",
        "/settings/nowhere",
    ):
        assert "<h1>Sign in</h1>" in visit.get(path).text, path
    sign_in = visit.get(f"{INTEGRATIONS}/1/PROD")
    to = re.search(r'name="to" value="([^"]*)"', sign_in.text)
    assert to is not None
    answer = visit.session.post(
        f"{instance.url}/sign-in",
        data={"token": f" {instance.token}\n", "to": to.group(1)},
        timeout=SECONDS,
    )
    assert answer.url == f"{instance.url}{INTEGRATIONS}/1/PROD"


def test_a_wrong_token_is_reported_and_not_repeated(instance: RunningInstance) -> None:
    data = {"token": "dpd_wrong"}
    answer = requests.post(f"{instance.url}/sign-in", data=data, timeout=SECONDS)
    assert answer.status_code == 401
    assert "not valid on this instance" in answer.text
    assert "dpd_wrong" not in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "to", ["https://evil.example.com/", "//evil.example.com", "/\\evil.example.com", "/settings"]
)
def test_signing_in_does_not_redirect_to_another_site(instance: RunningInstance, to: str) -> None:
    data = {"token": instance.token, "to": to}
    answer = requests.post(
        f"{instance.url}/sign-in", data=data, timeout=SECONDS, allow_redirects=False
    )
    assert answer.headers["location"] == INTEGRATIONS


def test_the_cookie_is_hidden_from_scripts_and_other_sites(instance: RunningInstance) -> None:
    data = {"token": instance.token}
    answer = requests.post(
        f"{instance.url}/sign-in", data=data, timeout=SECONDS, allow_redirects=False
    )
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert instance.token not in cookie


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c[:-1] + ("0" if c[-1] != "0" else "1"),
        lambda c: ("2" if c[0] != "2" else "3") + c[1:],
        lambda c: "x",
    ],
)
def test_a_forged_cookie_is_rejected(instance: RunningInstance, admin: Visit, change: Any) -> None:
    instance.new_token("admin")
    cookie = change(admin.session.cookies["datapilot_session"])
    answer = requests.get(
        f"{instance.url}{INTEGRATIONS}", cookies={"datapilot_session": cookie}, timeout=SECONDS
    )
    assert "<h1>Sign in</h1>" in answer.text


def test_revoking_the_token_ends_the_session(instance: RunningInstance) -> None:
    visit = Visit(instance, instance.new_token("admin", name="short"))
    assert "<h1>Integrations</h1>" in visit.get(INTEGRATIONS).text
    (token_id,) = (
        each.id for _, each in tokens.list_tokens(instance.storage, "acme") if each.name == "short"
    )
    tokens.revoke_token(instance.storage, token_id, actor=Actor("test"))
    assert "<h1>Sign in</h1>" in visit.get(INTEGRATIONS).text


def test_signing_out_ends_the_session(admin: Visit) -> None:
    assert "<h1>Sign in</h1>" in admin.send("/sign-out").text
    assert "<h1>Sign in</h1>" in admin.get(INTEGRATIONS).text


def test_a_form_of_another_site_does_nothing(instance: RunningInstance, admin: Visit) -> None:
    for csrf in ("", "x", "0" * 64):
        answer = admin.send(f"{INTEGRATIONS}/add", csrf=csrf, **NEW_INTEGRATION)
        assert answer.status_code in (403, 422)
    foreign = {"Sec-Fetch-Site": "cross-site"}
    answer = requests.post(
        f"{instance.url}/sign-in", data={"token": instance.token}, headers=foreign, timeout=SECONDS
    )
    assert answer.status_code == 403
    assert call(instance, "GET", "dbt/v1/project_integrations").json() == []


def test_every_response_restricts_what_the_browser_may_load(
    instance: RunningInstance, admin: Visit
) -> None:
    for path in (INTEGRATIONS, "/static/style.css", "/health", "/nowhere"):
        headers = admin.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
    assert admin.get(INTEGRATIONS).headers["cache-control"] == "no-store"


def test_the_api_is_described_on_a_page_that_loads_nothing_from_other_hosts(
    instance: RunningInstance,
) -> None:
    page = requests.get(f"{instance.url}/docs", timeout=SECONDS).text
    assert "/dbt/v1/fetch_artifact_url" in page
    assert re.findall(r'(?:src|href)="(https?://[^"]*)"', page) == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{INTEGRATIONS}/9/PROD", 404),
        (f"{INTEGRATIONS}/1/NOPE", 404),
        (f"{INTEGRATIONS}/x/PROD", 422),
        (f"{INTEGRATIONS}/1/PROD/files/9", 404),
        (f"{INTEGRATIONS}/1/PROD/uploads/9", 404),
        (f"{INTEGRATIONS}/1/PROD/uploads/9/restore", 404),
        (f"{INTEGRATIONS}/1/PROD?kind=nonsense", 422),
        (f"{TOKENS}/99/revoke", 404),
        ("/settings/nowhere", 404),
    ],
)
def test_an_error_page_keeps_the_navigation(
    instance: RunningInstance, admin: Visit, path: str, status: int
) -> None:
    make_integration(instance)
    answer = admin.get(path)
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    for link in (INTEGRATIONS, TOKENS, "/settings/audit", "/sign-out"):
        assert f'"{link}"' in answer.text


def test_an_error_page_without_a_session_has_no_navigation(
    instance: RunningInstance,
) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    answer = requests.post(
        f"{instance.url}/sign-in", data={"token": "x"}, headers=foreign, timeout=SECONDS
    )
    assert 'role="alert"' in answer.text
    assert "/sign-out" not in answer.text


def test_the_result_of_a_form_cannot_be_forged_by_a_link(
    instance: RunningInstance, admin: Visit
) -> None:
    page = admin.get(INTEGRATIONS, params={"done": "<script>alert(1)</script>"})
    assert "alert(1)" not in page.text
    assert 'class="notice"' not in page.text
    assert "The token was revoked." in text_of(admin.get(f"{TOKENS}?done=revoked"))
