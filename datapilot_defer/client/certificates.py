"""Certificate authorities to trust: those of certifi, of a file, or of the operating system."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter

from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


def find_ca_bundle(environ: Mapping[str, str]) -> str | None:
    """Return the file or directory of certificates that the environment names, or None.

    SSL_CERT_FILE is read here because requests ignores it. Raises UsageError if the path does not
    exist, or if it is neither a directory nor a file with certificates.
    """
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        path = environ.get(name)
        if path and not os.path.exists(path):  # noqa: PTH110 - requests expects a string
            raise UsageError(
                f"the environment variable {name} contains {path}, which does not exist"
            )
        if path:
            _check_ca_bundle(name, path)
            return path
    return None


def _check_ca_bundle(name: str, path: str) -> None:
    """Raise UsageError if a path is neither a directory nor a file with certificates.

    Every TLS handshake would fail with a file that contains none.
    """
    if os.path.isdir(path):  # noqa: PTH112
        return
    if not os.path.isfile(path):  # noqa: PTH113 - reading a pipe or a device may never end
        raise UsageError(f"the environment variable {name} contains {path}, which is not a file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:  # includes ssl.SSLError
        raise UsageError(
            f"the environment variable {name} contains {path}, which has no certificate in "
            "PEM format"
        ) from None


def create_system_store_adapter() -> HTTPAdapter:
    """Return an adapter that trusts the operating system's certificate authorities.

    Raises UsageError if truststore is not installed.
    """
    try:
        import truststore
    except ImportError:
        raise UsageError(
            "DATAPILOT_SYSTEM_CERTIFICATES needs one more package: "
            "pip install 'datapilot-defer[truststore]'"
        ) from None

    class SystemStoreAdapter(HTTPAdapter):
        """An adapter that trusts the operating system's certificate authorities."""

        def init_poolmanager(
            self, connections: int, maxsize: int, block: bool = False, **pool: Any
        ) -> None:
            context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            super().init_poolmanager(connections, maxsize, block, ssl_context=context, **pool)

        def proxy_manager_for(self, proxy: str, **proxy_options: Any) -> Any:
            """Return the connection pools for a proxy, which have a TLS context of their own."""
            context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            return super().proxy_manager_for(proxy, ssl_context=context, **proxy_options)

    return SystemStoreAdapter()
