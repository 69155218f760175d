"""Settings of an instance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class InstanceSettings:
    """How an instance behaves.

    public_url: base URL for clients; None uses the host of each request. behind_proxy: trust
    X-Forwarded-* headers. requests_per_minute: per token, or per address without a valid token;
    0 disables the limit. keep_count, keep_age: uploads of one kind that retention keeps per
    environment, equal bytes counted once.
    max_upload_bytes: of one artifact. max_stored_bytes: of all artifacts of an instance; None
    does not limit them. grace: unreferenced uploads and blobs are kept this long; rejected_grace:
    rejected uploads.
    verification_workers: processes that verify uploads, one upload each.
    """

    public_url: str | None = None
    behind_proxy: bool = False
    requests_per_minute: int = 6000
    keep_count: int = 50
    keep_age: timedelta | None = None
    max_upload_bytes: int = 512 * 1024 * 1024
    max_stored_bytes: int | None = None
    grace: timedelta = timedelta(days=1)
    rejected_grace: timedelta = timedelta(days=7)
    upload_seconds: int = 15 * 60
    download_seconds: int = 5 * 60
    verification_workers: int = 1
    verification_seconds: int = 60
    verification_memory_bytes: int = 2 * 1024**3
