"""A client of the documented HTTP API that needs little CPU.

It uses http.client with one connection and does not import the package.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from tests.support.server_process import ServerProcess

TIMEOUT_S = 600
# The server closes a connection that is idle for 5 s.
_MAX_IDLE_S = 4


class CallFailed(Exception):
    """An API call whose response does not have status 200."""


class Onboarded(NamedTuple):
    """A file that became current, and the durations of its API calls in seconds."""

    file_id: int
    upload_s: float
    verify_s: float
    total_s: float


class Client:
    """One connection to an instance, which is opened again if the server closes it."""

    def __init__(
        self, server: ServerProcess, *, token: str = "", timeout_s: float = TIMEOUT_S
    ) -> None:
        host, port = server.host_and_port
        self._origin = server.url
        self._used_at = time.monotonic()
        self._headers = {**server.headers, "Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection = http.client.HTTPConnection(
            host, port, timeout=timeout_s, blocksize=1024 * 1024
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._connection.close()

    def send(
        self, method: str, target: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send one request and return status and body."""
        if time.monotonic() - self._used_at > _MAX_IDLE_S:
            self._connection.close()
        try:
            self._connection.request(method, target, body, headers or {})  # type: ignore[arg-type]
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        finally:
            self._used_at = time.monotonic()

    def call(self, method: str, target: str, body: object = None) -> Any:
        """Send an API call and return its JSON. Raise CallFailed unless the status is 200."""
        content = None
        if body is not None:
            content = json.dumps(body)
        status, answer = self.send(method, target, content, self._headers)
        if status != 200:
            raise CallFailed(f"{method} {target}: HTTP {status} {answer[:500].decode()}")
        return json.loads(answer)

    def create_integration(self, name: str, environment: str = "PROD") -> int:
        """Create an integration and return its id."""
        body = {"name": name, "environment": environment, "integration_type": "dbt_core"}
        answer = self.call("POST", "/dbt/v1/project_integration", body)
        return int(answer["dbt_core_integration_id"])

    def announce(self, integration_id: int, kind: str = "manifest") -> tuple[str, int]:
        """Return the path and query of a signed URL, and the file's id."""
        query = {
            "dbt_core_integration_id": integration_id,
            "dbt_core_integration_environment_type": "PROD",
            "file_type": kind,
        }
        target = self.call("GET", f"/dbt/v1/signed_url?{urlencode(query)}")
        url = urlsplit(target["url"])
        return f"{url.path}?{url.query}", int(target["dbt_core_integration_file_id"])

    def put(self, target: str, content: bytes | Iterable[bytes], size_bytes: int) -> int:
        """Send content to a signed URL and return the status."""
        headers = {"Content-Length": str(size_bytes)}
        return self.send("PUT", target, content, headers)[0]

    def verify(self, file_id: int) -> Any:
        """Verify an upload."""
        body = {"dbt_core_integration_file_id": file_id}
        return self.call("POST", "/dbt/v1/verify_upload", body)

    def upload(
        self, integration_id: int, content: bytes | Iterable[bytes], size_bytes: int
    ) -> tuple[int, float]:
        """Announce and PUT a manifest. Return the file's id and the seconds of the PUT."""
        target, file_id = self.announce(integration_id)
        started = time.perf_counter()
        status = self.put(target, content, size_bytes)
        if status != 200:
            raise CallFailed(f"PUT: HTTP {status}")
        return file_id, time.perf_counter() - started

    def onboard(
        self, integration_id: int, content: bytes | Iterable[bytes], size_bytes: int | None = None
    ) -> Onboarded:
        """Send all API calls of an onboarding in the order of the public client."""
        if size_bytes is None:
            assert isinstance(content, bytes)
            size_bytes = len(content)
        started = time.perf_counter()
        self.call("GET", "/dbt/v3/validate-credentials")
        self.call("GET", "/dbt/v1/validate-permissions")
        file_id, upload_s = self.upload(integration_id, content, size_bytes)
        sent = time.perf_counter()
        self.verify(file_id)
        verify_s = time.perf_counter() - sent
        self.start_ingestion(integration_id)
        return Onboarded(file_id, upload_s, verify_s, time.perf_counter() - started)

    def start_ingestion(self, integration_id: int) -> None:
        """Send the last API call of an onboarding."""
        body = {
            "dbt_core_integration_id": integration_id,
            "dbt_core_integration_environment_type": "PROD",
        }
        self.call("POST", "/dbt/v1/start_dbt_ingestion", body)

    def fetch(self, integration_id: int, file_id: int | None = None) -> str:
        """Return the path and query of the URL of the current manifest or another upload."""
        query: dict[str, str | int] = {"artifact_type": "manifest"}
        query |= {"dbt_core_integration_id": integration_id}
        if file_id is not None:
            query["dbt_core_integration_file_id"] = file_id
        url = urlsplit(self.call("GET", f"/dbt/v1/fetch_artifact_url?{urlencode(query)}")["url"])
        return f"{url.path}?{url.query}"

    def pull(self, integration_id: int, file_id: int | None = None) -> bytes:
        """Return the bytes of the current manifest or another upload."""
        status, content = self.send("GET", self.fetch(integration_id, file_id))
        if status != 200:
            raise CallFailed(f"download: HTTP {status}")
        return content

    def show(self, integration_id: int) -> Any:
        """Return an environment with its history."""
        return self.call("GET", f"/dbt/v1/project_integrations/{integration_id}/PROD")

    def show_bytes(self, integration_id: int) -> bytes:
        """Return the undecoded response of `show`."""
        target = f"/dbt/v1/project_integrations/{integration_id}/PROD"
        status, content = self.send("GET", target, None, self._headers)
        if status != 200:
            raise CallFailed(f"GET {target}: HTTP {status}")
        return content

    def sign_in(self, token: str) -> str:
        """Sign in on the web page and return the session's cookie."""
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Origin": self._origin,
            "Sec-Fetch-Site": "same-origin",
        }
        self._connection.request("POST", "/sign-in", urlencode({"token": token}), headers)
        response = self._connection.getresponse()
        response.read()
        cookie = response.getheader("Set-Cookie")
        if response.status != 303 or cookie is None:
            raise CallFailed(f"sign-in: HTTP {response.status}")
        return cookie.partition(";")[0]

    def page(self, target: str, cookie: str) -> bytes:
        """Return a web page."""
        status, content = self.send("GET", target, None, {"Cookie": cookie})
        if status != 200:
            raise CallFailed(f"GET {target}: HTTP {status}")
        return content
