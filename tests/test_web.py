"""The web page as a program sees it: sessions, forms, what it shows and what it never shows."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests

from datapilot_defer.instance.services import tokens
from datapilot_defer.storage import integrations
from datapilot_defer.storage.audit import Actor
from tests.support.instance_calls import (
    SECONDS,
    call,
    fetch,
    ingest,
    make_integration,
    manifest,
    onboard,
    upload,
    verify,
)
from tests.support.instances import RunningInstance


class Visit:
    """A browser without eyes: a session, its pages, and the forms on them."""

    def __init__(self, instance: RunningInstance, token: str | None = None) -> None:
        self.url, self.session = instance.url, requests.Session()
        if token is not None:
            answer = self.session.post(
                f"{self.url}/sign-in", data={"token": token}, timeout=SECONDS
            )
            assert answer.status_code == 200

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.session.get(f"{self.url}{path}", timeout=SECONDS, **more)

    def send(
        self, path: str, on: str = "/settings/integrations", **fields: Any
    ) -> requests.Response:
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', self.get(on).text)
        fields.setdefault("csrf", found.group(1) if found else "")
        return self.session.post(f"{self.url}{path}", data=fields, timeout=SECONDS)


@pytest.fixture
def admin(instance: RunningInstance) -> Visit:
    return Visit(instance, instance.token)


def test_every_page_asks_for_a_token_first_and_then_shows_where_one_wanted_to_go(
    instance: RunningInstance,
) -> None:
    make_integration(instance)
    visit = Visit(instance)
    for path in (
        "/",
        "/settings/integrations",
        "/settings/integrations/1/PROD",
        "/settings/api-keys",
    ):
        assert "<h1>Sign in</h1>" in visit.get(path).text
    asked = visit.get("/settings/integrations/1/PROD")
    to = re.search(r'name="to" value="([^"]*)"', asked.text)
    assert to is not None
    answer = visit.session.post(
        f"{instance.url}/sign-in",
        data={"token": f" {instance.token}\n", "to": to.group(1)},
        timeout=SECONDS,
    )
    assert answer.url == f"{instance.url}/settings/integrations/1/PROD"


def test_a_wrong_token_is_told_so_and_not_repeated(instance: RunningInstance) -> None:
    data = {"token": "dpd_wrong"}
    answer = requests.post(f"{instance.url}/sign-in", data=data, timeout=SECONDS)
    assert answer.status_code == 401
    assert "not valid here" in answer.text
    assert "dpd_wrong" not in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "to", ["https://evil.example.com/", "//evil.example.com", "/\\evil.example.com", "/settings"]
)
def test_signing_in_leads_nowhere_else(instance: RunningInstance, to: str) -> None:
    data = {"token": instance.token, "to": to}
    answer = requests.post(
        f"{instance.url}/sign-in", data=data, timeout=SECONDS, allow_redirects=False
    )
    assert answer.headers["location"] == "/settings/integrations"


def test_the_cookie_is_kept_from_scripts_and_other_sites(instance: RunningInstance) -> None:
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
    [lambda c: c[:-1] + ("0" if c[-1] != "0" else "1"), lambda c: "2" + c[1:], lambda c: "x"],
)
def test_a_forged_cookie_opens_nothing(
    instance: RunningInstance, admin: Visit, change: Any
) -> None:
    instance.new_token("admin")
    cookie = change(admin.session.cookies["datapilot_session"])
    answer = requests.get(
        f"{instance.url}/settings/integrations",
        cookies={"datapilot_session": cookie},
        timeout=SECONDS,
    )
    assert "<h1>Sign in</h1>" in answer.text


def test_revoking_the_token_ends_the_session(instance: RunningInstance) -> None:
    visit = Visit(instance, instance.new_token("admin", name="short"))
    assert "<h1>Integrations</h1>" in visit.get("/settings/integrations").text
    (token_id,) = (
        each.id for _, each in tokens.list_tokens(instance.storage, "acme") if each.name == "short"
    )
    tokens.revoke_token(instance.storage, token_id, Actor("test"))
    assert "<h1>Sign in</h1>" in visit.get("/settings/integrations").text


def test_signing_out_ends_the_session(admin: Visit) -> None:
    assert "<h1>Sign in</h1>" in admin.send("/sign-out").text
    assert "<h1>Sign in</h1>" in admin.get("/settings/integrations").text


def test_a_form_that_another_site_made_does_nothing(
    instance: RunningInstance, admin: Visit
) -> None:
    fields = {"name": "x", "environment": "PROD", "integration_type": "dbt_core"}
    for csrf in ("", "x", "0" * 64):
        assert admin.send("/settings/integrations", csrf=csrf, **fields).status_code in (403, 422)
    foreign = {"Sec-Fetch-Site": "cross-site"}
    answer = requests.post(
        f"{instance.url}/sign-in", data={"token": instance.token}, headers=foreign, timeout=SECONDS
    )
    assert answer.status_code == 403
    assert call(instance, "GET", "dbt/v1/project_integrations").json() == []


def test_an_added_integration_is_shown_with_its_command(
    instance: RunningInstance, admin: Visit
) -> None:
    fields = {
        "name": "Ann's <b>shop</b>",
        "environment": "it's PROD?",
        "integration_type": "dbt_cloud",
    }
    shown = admin.send("/settings/integrations", **fields)
    assert shown.status_code == 200
    assert shown.url == f"{instance.url}/settings/integrations/1/it%27s%20PROD%3F"
    assert "<b>shop</b>" not in shown.text
    listed = admin.get("/settings/integrations").text
    assert "Ann&#39;s &lt;b&gt;shop&lt;/b&gt;" in listed
    assert "Manifest file has not been uploaded" in listed
    assert "<b>shop" not in listed


def test_a_name_that_is_taken_is_a_page_that_says_so(admin: Visit) -> None:
    fields = {"name": "shop", "environment": "PROD", "integration_type": "dbt_core"}
    admin.send("/settings/integrations", **fields)
    again = admin.send("/settings/integrations", **fields)
    assert again.status_code == 409
    assert "That was not done" in again.text


def test_an_environments_page_shows_history_changes_and_log(
    instance: RunningInstance, admin: Visit
) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest("a", "b", at="2026-11-22T10:00:00Z"))
    file_id = upload(instance, integration_id, manifest("b", "c", at="2026-11-22T11:00:00Z"))
    verify(instance, file_id, commit="0123456789abcdef", build_url="javascript:alert(1)")
    ingest(instance, integration_id)
    verify(instance, upload(instance, integration_id, manifest(project="other")))
    page = admin.get(f"/settings/integrations/{integration_id}/prod").text
    assert "0123456789" in page
    assert "javascript:" not in page
    assert '<span class="plus">+1</span>' in page
    assert "belongs to the dbt project" in page
    log = re.search(r'href="([^"]*/ingestions/\d+)"', page)
    assert log is not None
    assert f"file {file_id}" in admin.get(log.group(1)).text


def test_a_file_is_downloaded_by_a_signed_url(instance: RunningInstance, admin: Visit) -> None:
    integration_id = make_integration(instance)
    file_id = onboard(instance, integration_id, manifest())
    answer = admin.get(f"/settings/integrations/{integration_id}/PROD/files/{file_id}")
    assert answer.content == manifest()
    assert answer.headers["content-disposition"] == 'attachment; filename="manifest.json"'


def test_restore_is_a_form(instance: RunningInstance, admin: Visit) -> None:
    integration_id = make_integration(instance)
    first = onboard(instance, integration_id, manifest(at="2026-11-22T10:00:00Z"))
    onboard(instance, integration_id, manifest(at="2026-11-22T11:00:00Z"))
    path = f"/settings/integrations/{integration_id}/PROD"
    assert admin.send(f"{path}/restore", on=path, file_id=first).status_code == 200
    assert fetch(instance, integration_id).json()["dbt_core_integration_file_id"] == first


def test_an_api_key_is_shown_once_and_works_as_made(
    instance: RunningInstance, admin: Visit
) -> None:
    integration_id = make_integration(instance)
    keys = "/settings/api-keys"
    fields = {
        "name": "nightly",
        "scope": ["upload", "read"],
        "integration_id": str(integration_id),
        "days": "30",
    }
    made = admin.send(keys, on=keys, **fields)
    found = re.search(r"dpd_[0-9A-Za-z]{46}", made.text)
    assert found is not None
    onboard(instance, integration_id, manifest(), token=found.group())
    again = admin.get(keys).text
    assert found.group() not in again
    assert "read, upload" in again
    token_id = re.search(r"/settings/api-keys/(\d+)/revoke", again)
    assert token_id is not None
    admin.send(f"{keys}/{token_id.group(1)}/revoke", on=keys)
    assert fetch(instance, integration_id, found.group()).status_code == 401


@pytest.mark.parametrize(
    "fields",
    [
        {"scope": "read", "name": ""},
        {"scope": "root", "name": "x"},
        {"name": "x"},
        {"scope": "read", "name": "x", "days": "never"},
        {"scope": "read", "name": "x", "days": "0"},
        {"scope": "read", "name": "x", "integration_id": "99"},
        {"scope": "read", "name": "x", "integration_id": "9999999999"},
    ],
)
def test_an_api_key_that_makes_no_sense_is_not_made(
    instance: RunningInstance, admin: Visit, fields: dict[str, str]
) -> None:
    answer = admin.send("/settings/api-keys", on="/settings/api-keys", **fields)
    assert answer.status_code in (404, 422)
    assert "That was not done" in answer.text
    assert len(tokens.list_tokens(instance.storage, "acme")) == 1


def test_an_admins_api_key_for_one_integration_is_not_made(
    instance: RunningInstance, admin: Visit
) -> None:
    fields = {
        "name": "x",
        "scope": ["read", "admin"],
        "integration_id": str(make_integration(instance)),
    }
    answer = admin.send("/settings/api-keys", on="/settings/api-keys", **fields)
    assert answer.status_code == 422
    assert "admin is of the whole instance" in answer.text
    assert len(tokens.list_tokens(instance.storage, "acme")) == 1


def test_who_may_only_read_sees_no_forms_and_can_send_none(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    first = onboard(instance, integration_id, manifest(at="2026-11-22T10:00:00Z"))
    onboard(instance, integration_id, manifest(at="2026-11-22T11:00:00Z"))
    reader, path = (
        Visit(instance, instance.new_token("read")),
        f"/settings/integrations/{integration_id}/PROD",
    )
    assert 'action="/settings/integrations"' not in reader.get("/settings/integrations").text
    assert "Restore" not in reader.get(path).text
    assert reader.get("/settings/api-keys").status_code == 403
    assert reader.send(f"{path}/restore", file_id=first).status_code == 403
    fields = {"name": "x", "environment": "PROD", "integration_type": "dbt_core"}
    assert reader.send("/settings/integrations", **fields).status_code == 403
    assert reader.send("/settings/api-keys", name="x", scope="admin").status_code == 403
    assert reader.send("/settings/api-keys/1/revoke").status_code == 403


def test_who_may_only_upload_can_not_download(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    file_id = onboard(instance, integration_id, manifest())
    uploader = Visit(instance, instance.new_token("upload"))
    path = f"/settings/integrations/{integration_id}/PROD/files/{file_id}"
    assert uploader.get(path).status_code == 403


def test_of_many_integrations_the_first_are_shown_and_the_others_found(
    instance: RunningInstance, admin: Visit
) -> None:
    with instance.storage.database.write() as connection:
        for number in range(120):
            made = integrations.create_integration(
                connection, 1, name=f"project {number:03d}", integration_type="dbt_core"
            )
            integrations.add_environment(connection, made.id, "PROD")
    listed = admin.get("/settings/integrations").text
    assert "project 099" in listed
    assert "project 100" not in listed
    assert "project 119" in admin.get("/settings/integrations", params={"q": "JECT 119"}).text
    assert "No integration" in admin.get("/settings/integrations", params={"q": "<i>"}).text


def test_every_answer_says_what_it_may_load(instance: RunningInstance, admin: Visit) -> None:
    for path in ("/settings/integrations", "/static/style.css", "/health", "/nowhere"):
        headers = admin.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
    assert admin.get("/settings/integrations").headers["cache-control"] == "no-store"


def test_the_api_is_described_on_one_page_that_loads_nothing_from_elsewhere(
    instance: RunningInstance,
) -> None:
    page = requests.get(f"{instance.url}/docs", timeout=SECONDS).text
    assert "/dbt/v1/fetch_artifact_url" in page
    assert re.findall(r'(?:src|href)="(https?://[^"]*)"', page) == []


def test_pages_that_are_not_there_are_problems_not_faults(
    admin: Visit, instance: RunningInstance
) -> None:
    make_integration(instance)
    for path in ("/9/PROD", "/1/NOPE", "/x/PROD", "/1/PROD/files/9", "/1/PROD/ingestions/9"):
        answer = admin.get(f"/settings/integrations{path}")
        assert answer.status_code in (404, 422)
        assert "That was not done" in answer.text
