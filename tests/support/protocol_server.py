"""A server with only the API calls of the public clients.

It represents the hosted service, whose other behavior is not public. A test injects a fault by
replacing the response of one route.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN, INSTANCE_NAME = "hosted-token-1f8a", "hosted"
CREATED = "2026-01-01T00:00:00Z"
INTEGRATION = {
    "id": 7,
    "name": "shop",
    "environments": [{"id": 1, "environment_type": "PROD", "created_at": CREATED}],
    "created_at": CREATED,
    "last_modified_at": CREATED,
    "last_file_upload_time": None,
    "is_deleted": False,
    "integration_type": "dbt_core",
}


@dataclass(frozen=True)
class RecordedRequest:
    """A request that the server received."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body, parsed as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """A response, which is JSON unless `body` is bytes."""

    body: object = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class ProtocolServer:
    """Address, requests and content of the server.

    answers: functions that replace the response of a route, by "METHOD /path".
    """

    url: str = ""
    requests: list[RecordedRequest] = field(default_factory=list)
    uploads: dict[int, bytes] = field(default_factory=dict)
    verified: list[int] = field(default_factory=list)
    answers: dict[str, Callable[[RecordedRequest], Reply]] = field(default_factory=dict)
    integrations: list[dict[str, object]] = field(default_factory=lambda: [dict(INTEGRATION)])

    @property
    def access(self) -> dict[str, str]:
        """Return the environment variables that select this server."""
        return {
            "ALTIMATE_URL": self.url,
            "ALTIMATE_INSTANCE_NAME": INSTANCE_NAME,
            "ALTIMATE_API_KEY": TOKEN,
        }

    @property
    def calls(self) -> list[str]:
        """Return all requests in order, as "METHOD /path"."""
        return [f"{request.method} {request.path}" for request in self.requests]

    def reply(self, request: RecordedRequest) -> Reply:
        """Return the response to a request."""
        route = f"{request.method} {request.path}"
        if route in self.answers:
            return self.answers[route](request)
        if request.path.startswith("/storage/"):
            return self._storage(request)
        if (
            request.headers.get("Authorization") != f"Bearer {TOKEN}"
            or request.headers.get("x-tenant") != INSTANCE_NAME
        ):
            return Reply({"detail": "Invalid credentials"}, 401)
        return self._api(route, request)

    def _storage(self, request: RecordedRequest) -> Reply:
        if request.query.get("signature") != "s3cret" or "Authorization" in request.headers:
            return Reply(b"<Error><Code>AccessDenied</Code></Error>", 403)
        file_id = int(request.path.rpartition("/")[2])
        if request.method == "PUT":
            self.uploads[file_id] = request.body
            return Reply(b"")
        return Reply(self.uploads[file_id])

    def _api(self, route: str, request: RecordedRequest) -> Reply:
        file_id = len(self.requests)
        body: object
        match route.rstrip("/"):
            case "GET /dbt/v3/validate-credentials" | "GET /dbt/v1/validate-permissions":
                body = {"ok": True}
            case "GET /dbt/v1/project_integrations":
                body = self.integrations
            case "GET /dbt/v1/signed_url":
                body = self._location(file_id)
            case "POST /dbt/v1/verify_upload":
                self.verified.append(request.json["dbt_core_integration_file_id"])
                body = {"ok": True}
            case "POST /dbt/v1/start_dbt_ingestion":
                body = {"ok": True}
            case "GET /dbt/v1/fetch_artifact_url" if self.verified:
                body = self._location(self.verified[0])
            case _:
                return Reply({"detail": "Not Found"}, 404)
        return Reply(body)

    def _location(self, file_id: int) -> dict[str, object]:
        return {"url": self._signed(file_id), "dbt_core_integration_file_id": file_id}

    def _signed(self, file_id: int) -> str:
        return f"{self.url}/storage/{file_id}?signature=s3cret"


@contextmanager
def protocol_server() -> Iterator[ProtocolServer]:
    """Serve on a free loopback port during a `with` block."""
    state = ProtocolServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # A separate packet for the body would wait for an ACK.

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            request = RecordedRequest(
                self.command, parts.path, query, dict(self.headers.items()), body
            )
            state.requests.append(request)
            reply = state.reply(request)
            content = (
                reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            )
            self.send_response_only(reply.status)
            for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 (http.server requires these names)

        def log_message(self, *_: object) -> None:
            """Suppress the log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
