"""Settings of an instance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class InstanceSettings:
    """How an instance behaves.

    public_url: base URL for clients; None uses the host of each request. behind_proxy: trust
    X-Forwarded-* headers. requests_per_minute: per client IP; 0 disables the limit. keep_count,
    keep_age: uploads of one kind that retention keeps per environment, equal bytes counted once.
    max_bytes: of one artifact. grace: unreferenced uploads and blobs are kept this long.
    """

    public_url: str | None = None
    behind_proxy: bool = False
    requests_per_minute: int = 6000
    keep_count: int = 50
    keep_age: timedelta | None = None
    max_bytes: int = 512 * 1024 * 1024
    grace: timedelta = timedelta(days=1)
    upload_seconds: int = 15 * 60
    download_seconds: int = 5 * 60
    inspection_seconds: int = 120
    inspection_bytes: int = 3 * 1024**3
