"""Requests of a browser: sign-in, pages and forms of a session."""

from __future__ import annotations

import re
from typing import Any

import requests

from tests.support.instance_calls import SECONDS
from tests.support.instances import RunningInstance

COOKIE = "datapilot_session"
START_PATH = "/settings/integrations"


def sign_in(
    instance: RunningInstance, token: str | None = None, **headers: str
) -> requests.Response:
    """Send the sign-in form, by default as admin, and return the response without redirects."""
    return requests.post(
        f"{instance.url}/sign-in",
        data={"token": token or instance.token},
        headers=headers,
        timeout=SECONDS,
        allow_redirects=False,
    )


def cookie_of(answer: requests.Response) -> str:
    """Return the session cookie that a response sets."""
    assert answer.status_code == 303, answer.text
    return str(answer.cookies[COOKIE])


def open_page(instance: RunningInstance, cookie: str, path: str = START_PATH) -> requests.Response:
    """Return a page for a session cookie, or a redirect if there is no session."""
    return requests.get(
        f"{instance.url}{path}",
        cookies={COOKIE: cookie},
        timeout=SECONDS,
        allow_redirects=False,
    )


def is_signed_in(instance: RunningInstance, cookie: str) -> bool:
    """Return whether a cookie opens the pages."""
    answer = open_page(instance, cookie)
    assert answer.status_code in (200, 303)
    return answer.status_code == 200


def send_form(
    instance: RunningInstance, cookie: str, path: str, **fields: Any
) -> requests.Response:
    """Send a form of a session with its CSRF value, and return the response without redirects."""
    page = open_page(instance, cookie).text
    match = re.search(r'name="csrf" value="([0-9a-f]{64})"', page)
    assert match is not None
    return requests.post(
        f"{instance.url}{path}",
        data={"csrf": match.group(1), **fields},
        cookies={COOKIE: cookie},
        timeout=SECONDS,
        allow_redirects=False,
    )
