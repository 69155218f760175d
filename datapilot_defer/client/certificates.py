"""Which certificate authorities are believed: those of certifi, one's own, or the operating system's."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Any

from requests.adapters import HTTPAdapter

from datapilot_defer.errors import UsageError


def find_ca_bundle(environ: Mapping[str, str]) -> str | None:
    """The file or folder with own certificate authorities, if any. requests itself does not know SSL_CERT_FILE.

    Raises UsageError when it is not there, or is a file without certificates.
    """
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        path = environ.get(name)
        if path and not os.path.exists(path):  # noqa: PTH110 - a string is what requests takes
            raise UsageError(f"environment variable {name} names {path}, which is not there")
        if path:
            _check_ca_bundle(name, path)
            return path
    return None


def _check_ca_bundle(name: str, path: str) -> None:
    """Say now, and rightly, what would look like a failed handshake with every host."""
    if os.path.isdir(path):  # noqa: PTH112
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:  # ssl.SSLError is one
        raise UsageError(
            f"environment variable {name} names {path}, which holds no certificate to read (PEM)"
        ) from None


def create_system_store_adapter() -> HTTPAdapter:
    """What asks the operating system which certificates to believe. Raises UsageError without truststore."""
    try:
        import truststore
    except ImportError:
        raise UsageError(
            "DATAPILOT_SYSTEM_CERTIFICATES needs one more package: pip install 'datapilot-defer[truststore]'"
        ) from None

    class SystemStore(HTTPAdapter):
        """An adapter that asks the operating system which certificates to believe."""

        def init_poolmanager(
            self, connections: int, maxsize: int, block: bool = False, **pool: Any
        ) -> None:
            context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            super().init_poolmanager(connections, maxsize, block, ssl_context=context, **pool)

    return SystemStore()
