"""A real instance for tests, which runs under uvicorn in a thread on a loopback port.

    def test_something(instance: RunningInstance) -> None:
        requests.get(f"{instance.url}/dbt/v1/project_integrations", headers=instance.headers)

`running_instance(directory)` serves an instance until its `with` block ends. The same directory has
the same instance again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from datapilot_defer.instance.app import create_app
from datapilot_defer.instance.connections import Connections
from datapilot_defer.instance.http_connection import ServerConfig
from datapilot_defer.instance.log_limit import limited_logs
from datapilot_defer.instance.serve import Server, open_listener
from datapilot_defer.instance.services import instances, tokens
from datapilot_defer.instance.services.token_format import generate_token
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import Storage, open_storage
from datapilot_defer.storage.audit import Actor


@dataclass(frozen=True)
class RunningInstance:
    """An instance that runs at `url` until its `with` block ends. token: an admin token."""

    url: str
    instance_name: str
    token: str = field(repr=False)
    data: Path
    storage: Storage = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of a request as admin."""
        return self.headers_of(self.token)

    def headers_of(self, token: str) -> dict[str, str]:
        """Return the headers of a request with this token."""
        return {"Authorization": f"Bearer {token}", "x-tenant": self.instance_name}

    def new_token(
        self,
        *scopes: str,
        integration_id: int | None = None,
        expires_at: datetime | None = None,
        name: str = "test",
    ) -> str:
        """Create a token with scopes such as "read", "upload" or "admin"."""
        return tokens.create_token(
            self.storage,
            self.instance_name,
            name=name,
            scopes=frozenset(scopes),
            integration_id=integration_id,
            expires_at=expires_at,
            actor=Actor("test"),
        )[1]


def create_instance(storage: Storage, name: str) -> str | None:
    """Create an instance and return its admin token, or None if the name exists."""
    token = generate_token()
    with instances.creating_instance(storage, name, token=token, actor=Actor("test")) as is_new:
        if is_new:
            return token
    return None


@contextmanager
def running_instance(
    data: Path,
    instance_name: str = "acme",
    settings: InstanceSettings | None = None,
    connections: Connections | None = None,
) -> Iterator[RunningInstance]:
    """Serve a data directory on a free port of 127.0.0.1. Create the directory if necessary."""
    with open_storage(data) as storage:
        token = create_instance(storage, instance_name)
        if token is None:
            _, token = tokens.create_token(
                storage,
                instance_name,
                name="test",
                scopes=frozenset({"admin"}),
                actor=Actor("test"),
            )
        config = ServerConfig(
            create_app(storage, settings or InstanceSettings()), connections or Connections(1000)
        )
        with open_listener("127.0.0.1", 0) as listener, limited_logs() as log_limit:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            is_ready = threading.Event()
            server = Server(config, storage, log_limit, is_ready.set)
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            try:
                while not is_ready.wait(0.1) and thread.is_alive():
                    pass
                yield RunningInstance(url, instance_name, token, data, storage)
            finally:
                server.should_exit = True
                thread.join()
