"""Serving an instance until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from datapilot_defer.errors import UsageError
from datapilot_defer.instance.app import create_app
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage.blobs import BlobStore
from datapilot_defer.storage.database import Database

# How long running uploads may go on after the instance was told to stop.
_SHUTDOWN_TIMEOUT_S = 60


@dataclass(frozen=True)
class ListenAddress:
    """Where to listen. port: 0 takes a free one. certificate, private_key: files for TLS; without, plain http."""

    host: str
    port: int
    certificate: str | None = None
    private_key: str | None = None


class _Server(uvicorn.Server):
    """Says when it can be reached."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets=sockets)
        if self.started:
            self._on_ready()


def serve(
    records: Database,
    blobs: BlobStore,
    settings: InstanceSettings,
    address: ListenAddress,
    *,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT; then finish running uploads, for a minute at most, and return.

    on_ready: called once, with the instance's URL, when it can be reached.
    Raises UsageError when it can't listen at the address or can't use the certificate.
    """
    with open_listener(address.host, address.port) as listener:
        port = listener.getsockname()[1]
        host = f"[{address.host}]" if ":" in address.host else address.host
        url = settings.public_url or f"{'https' if address.certificate else 'http'}://{host}:{port}"
        config = uvicorn.Config(
            create_app(records, blobs, settings),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=settings.behind_proxy,
            forwarded_allow_ips="*",
            ssl_certfile=address.certificate,
            ssl_keyfile=address.private_key,
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"the TLS certificate or its key can't be used: {error}") from None
        _ignore_repeated_signals()
        _Server(config, lambda: on_ready(url.rstrip("/"))).run(sockets=[listener])


def open_listener(host: str, port: int) -> socket.socket:
    """Take a port of an address; 0: a free one. Raises UsageError when it can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Said to be TCP, so that the event loop turns off Nagle's algorithm: it would cost 40 ms per answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if (
            os.name == "posix"
        ):  # a port that was just left is free; on Windows this would share one that is taken
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"can't listen on {host} port {port}: {reason}; choose another --port, or 0 for a free one"
        ) from None
    return listener


def _ignore_repeated_signals() -> None:
    """Uvicorn stops on a signal and then sends it again, which would end the process before it has cleaned up."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
