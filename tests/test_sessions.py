"""Sessions of the web pages: what starts one, and what ends it at once."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import web_sessions
from datapilot_defer.storage.database import utc_now
from tests.support.commands import datapilot
from tests.support.instance_calls import call
from tests.support.instances import RunningInstance, running_instance
from tests.support.sign_ins import cookie_of, is_signed_in, open_page, send_form, sign_in


def change_database(instance: RunningInstance, statement: str, *values: object) -> int:
    with closing(sqlite3.connect(instance.data / "records.sqlite3")) as connection, connection:
        return connection.execute(statement, values).rowcount


def stored_sessions(instance: RunningInstance) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(instance.data / "records.sqlite3")) as connection:
        return connection.execute("SELECT token_id, sha256 FROM session ORDER BY id").fetchall()


def test_signing_out_ends_the_session_also_for_a_copied_cookie(instance: RunningInstance) -> None:
    cookie = cookie_of(sign_in(instance))
    other = cookie_of(sign_in(instance))
    assert is_signed_in(instance, cookie)
    answer = send_form(instance, cookie, "/sign-out")
    assert answer.headers["location"] == "/sign-in"
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert not is_signed_in(instance, cookie)
    assert is_signed_in(instance, other)


def test_revoking_a_token_ends_and_deletes_its_sessions(instance: RunningInstance) -> None:
    cookie = cookie_of(sign_in(instance, instance.new_token("read")))
    admin = cookie_of(sign_in(instance))
    (token_id, _), _ = stored_sessions(instance)
    revoked = datapilot("instance", "token", "revoke", "--data", instance.data, token_id)
    assert revoked.exit_code == 0
    assert not is_signed_in(instance, cookie)
    assert is_signed_in(instance, admin)
    assert [owner for owner, _ in stored_sessions(instance)] == [1]


def test_an_expired_token_ends_its_sessions(instance: RunningInstance) -> None:
    cookie = cookie_of(sign_in(instance, instance.new_token("read")))
    assert is_signed_in(instance, cookie)
    change_database(
        instance, "UPDATE token SET expires_at = ? WHERE id = 2", "2026-01-01 00:00:00.000000"
    )
    assert not is_signed_in(instance, cookie)


def test_a_session_ends_after_twelve_hours_and_is_deleted_later(instance: RunningInstance) -> None:
    answer = sign_in(instance)
    cookie = cookie_of(answer)
    assert "Max-Age=43200" in answer.headers["set-cookie"]
    remaining = cookie_of(sign_in(instance))
    with closing(sqlite3.connect(instance.data / "records.sqlite3")) as connection:
        (expires_at,) = connection.execute("SELECT expires_at FROM session WHERE id=1").fetchone()
    lifetime = datetime.fromisoformat(expires_at).replace(tzinfo=UTC) - utc_now()
    assert timedelta(hours=11.9) < lifetime <= timedelta(hours=12)
    past = f"{datetime.now(UTC) - timedelta(seconds=1):%Y-%m-%d %H:%M:%S.%f}"
    change_database(instance, "UPDATE session SET expires_at = ? WHERE id = 1", past)
    assert not is_signed_in(instance, cookie)
    with instance.storage.database.write() as connection:
        assert web_sessions.delete_expired(connection) == 1
    assert is_signed_in(instance, remaining)


def test_the_database_has_only_a_hash_of_the_cookie_and_no_csrf_value(
    instance: RunningInstance,
) -> None:
    cookie = cookie_of(sign_in(instance))
    match = re.search(r'name="csrf" value="([0-9a-f]{64})"', open_page(instance, cookie).text)
    assert match is not None
    assert stored_sessions(instance) == [(1, hashlib.sha256(cookie.encode()).hexdigest())]
    for path in instance.data.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert cookie.encode() not in content
            assert match.group(1).encode() not in content


@pytest.mark.parametrize(
    "cookie", ["", "x", "é", "1.9999999999." + "0" * 64, "A" * 43, "A" * 4000, "0" * 64]
)
def test_a_forged_cookie_is_rejected(instance: RunningInstance, cookie: str) -> None:
    cookie_of(sign_in(instance))
    stored_hash = stored_sessions(instance)[0][1]
    for text in (cookie, stored_hash):
        assert not is_signed_in(instance, text.encode("utf-8").decode("latin-1"))


def test_a_form_of_another_session_is_rejected(instance: RunningInstance) -> None:
    first, second = cookie_of(sign_in(instance)), cookie_of(sign_in(instance))
    match = re.search(r'name="csrf" value="([0-9a-f]{64})"', open_page(instance, first).text)
    assert match is not None
    rejected = send_form(instance, second, "/sign-out", csrf=match.group(1))
    assert rejected.status_code == 403
    assert is_signed_in(instance, second)


def test_a_session_is_not_lost_when_the_server_restarts(tmp_path: Path) -> None:
    with running_instance(tmp_path) as instance:
        cookie = cookie_of(sign_in(instance))
    with running_instance(tmp_path) as instance:
        assert is_signed_in(instance, cookie)


@pytest.mark.parametrize(
    ("headers", "is_accepted"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": ""}, False),
        ({"Origin": "https://evil.example.com"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),
        ({"Origin": "not a URL"}, False),
        ({"Origin": "http://[::1"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "OWN"}, False),
        ({"Origin": "OWN"}, True),
    ],
)
def test_only_a_form_of_this_instance_starts_a_session(
    instance: RunningInstance, headers: dict[str, str], is_accepted: bool
) -> None:
    own = {name: instance.url if text == "OWN" else text for name, text in headers.items()}
    answer = sign_in(instance, **own)
    assert answer.status_code == (303 if is_accepted else 403)
    assert ("set-cookie" in answer.headers) == is_accepted


@pytest.mark.parametrize(
    ("settings", "forwarded", "origin", "status"),
    [
        ({"public_url": "https://defer.example.com/"}, {}, "https://defer.example.com", 303),
        ({"public_url": "https://defer.example.com/"}, {}, "https://evil.example.com", 403),
        ({"public_url": "https://defer.example.com/"}, {}, "OWN", 303),
        (
            {"behind_proxy": True},
            {"X-Forwarded-Host": "Defer.example.com", "X-Forwarded-Proto": "https"},
            "https://defer.example.com",
            303,
        ),
        (
            {"behind_proxy": True},
            {"X-Forwarded-Host": "defer.example.com"},
            "https://evil.example.com",
            403,
        ),
        ({}, {"X-Forwarded-Host": "evil.example.com"}, "https://evil.example.com", 403),
    ],
)
def test_behind_a_proxy_the_public_host_belongs_to_this_instance(
    tmp_path: Path,
    settings: dict[str, object],
    forwarded: dict[str, str],
    origin: str,
    status: int,
) -> None:
    options = InstanceSettings(**settings)  # type: ignore[arg-type]
    with running_instance(tmp_path, settings=options) as instance:
        if origin == "OWN":
            origin = instance.url
        assert sign_in(instance, Origin=origin, **forwarded).status_code == status


def test_pages_let_browsers_send_their_origin_with_forms(instance: RunningInstance) -> None:
    # With "no-referrer", a browser sends "Origin: null" with the sign-in form itself.
    answer = requests.get(f"{instance.url}/sign-in", timeout=30)
    assert answer.headers["referrer-policy"] == "same-origin"


def test_a_session_gives_no_access_to_the_api(instance: RunningInstance) -> None:
    cookie = cookie_of(sign_in(instance))
    answer = call(instance, "GET", "dbt/v1/project_integrations", token=cookie)
    assert answer.status_code == 401
