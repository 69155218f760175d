"""A user of the web pages: a session, its pages and their forms.

visit = Visit(instance, instance.token)
page = visit.get("/settings/tokens")
visit.send("/settings/tokens/create", name="job", scope="read")
"""

from __future__ import annotations

import html
import re
from typing import Any

import requests

from tests.support.instance_calls import SECONDS
from tests.support.instances import RunningInstance

INTEGRATIONS = "/settings/integrations"
TOKENS = "/settings/tokens"


class Visit:
    """A session of the web pages. Without a token, the user is not signed in."""

    def __init__(self, instance: RunningInstance, token: str | None = None) -> None:
        self.url = instance.url
        self.session = requests.Session()
        if token is not None:
            answer = self.session.post(
                f"{self.url}/sign-in", data={"token": token}, timeout=SECONDS
            )
            assert answer.status_code == 200

    def get(self, path: str, **more: Any) -> requests.Response:
        """Open a page."""
        return self.session.get(f"{self.url}{path}", timeout=SECONDS, **more)

    def send(
        self, path: str, *, follow: bool = True, csrf: str | None = None, **fields: Any
    ) -> requests.Response:
        """Send a form. csrf: None uses the value of the session's forms."""
        if csrf is None:
            match = re.search(r'name="csrf" value="([0-9a-f]+)"', self.get(INTEGRATIONS).text)
            assert match is not None
            csrf = match.group(1)
        return self.session.post(
            f"{self.url}{path}",
            data={"csrf": csrf, **fields},
            timeout=SECONDS,
            allow_redirects=follow,
        )


def text_of(page: requests.Response) -> str:
    """Return the visible text of a page on one line."""
    with_spaces = re.sub(r"</?(?:td|th|tr|li|p|dt|dd|h\d|div|label|option)\b[^>]*>", " ", page.text)
    without_tags = re.sub(r"<[^>]*>", "", with_spaces)
    return " ".join(html.unescape(without_tags).split())
