"""One request to an instance or its storage, and the response."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from datapilot_defer.console import NoProgress
from datapilot_defer.formatting import as_one_line, map_strings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

    from datapilot_defer.console import Progress

MAX_ANSWER_BYTES = 8 * 1024 * 1024  # of an API response, not of an artifact
_HEADER_WORD = re.compile(r"[A-Za-z0-9.+_-]{1,64}")
# JSON without these bytes decodes to strings without control characters and line breaks.
_MAY_NEED_CHANGE = re.compile(rb"[\\\x7f-\xff]")


@dataclass(frozen=True)
class Response:
    """Status, headers and, unless it was written to `destination`, the body.

    content: the body parsed as JSON, with control characters in its strings replaced; None if the
    body is not JSON.
    """

    status: int
    headers: requests.structures.CaseInsensitiveDict[str]
    body: bytes = field(default=b"", repr=False)
    content: object = field(default=None, repr=False)

    def json(self) -> object:
        """Return the body parsed as JSON; None if it is not JSON."""
        return self.content

    @property
    def is_success(self) -> bool:
        """Return whether the status code is one of 2xx."""
        return 200 <= self.status < 300

    @property
    def request_id(self) -> str | None:
        """Return the request ID that the instance logs; None if the response contains none."""
        return self._header_word("X-Request-ID")

    @property
    def instance_version(self) -> str | None:
        """Return the version of the instance; None if the response does not contain it."""
        return self._header_word("X-Datapilot-Version")

    def describe_request(self) -> str:
        """Return the request ID and the version of the instance, as far as they are known."""
        facts = []
        if self.request_id:
            facts.append(f"request {self.request_id}")
        if self.instance_version:
            facts.append(f"instance version {self.instance_version}")
        return ", ".join(facts)

    def _header_word(self, name: str) -> str | None:
        value = self.headers.get(name, "")
        return value if _HEADER_WORD.fullmatch(value) else None

    @property
    def is_truncated(self) -> bool:
        """Return whether the body is declared as JSON but is invalid, so a part may be missing."""
        is_declared_json = self.headers.get("Content-Type", "").startswith("application/json")
        return is_declared_json and self.json() is None and self.body.strip() != b"null"


@dataclass(frozen=True)
class Request:
    """One request.

    action: a description for messages, such as "checking the credentials". url: a signed URL, or
    the path of an API call. body: sent as JSON. content: the bytes of an upload. destination:
    receives the body of a response with status 200. limit_bytes: the maximum size of that body.
    repeatable: whether the request may be sent again after it may have been received.
    """

    action: str
    method: str
    url: str = field(repr=False)  # it may contain a signature
    params: Mapping[str, str | int] | None = None
    body: object = None
    content: bytes | None = field(default=None, repr=False)
    destination: BinaryIO | None = None
    limit_bytes: int = MAX_ANSWER_BYTES
    repeatable: bool = True
    progress: Progress = field(default_factory=NoProgress)


def parse_body(body: bytes) -> object:
    """Return a body parsed as JSON; None if it is not JSON.

    Control characters in strings, including line breaks, are replaced.
    """
    try:
        content = json.loads(body)
        if _MAY_NEED_CHANGE.search(body) is None:
            return content
        return map_strings(content, as_one_line)
    except (ValueError, RecursionError):
        return None
