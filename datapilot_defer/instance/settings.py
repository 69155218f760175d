"""Settings of an instance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class InstanceSettings:
    """Settings of an instance.

    public_url: base URL for clients; None uses the host of each request. behind_proxy: trust
    X-Forwarded-* headers. requests_per_minute: limit per token, per file with a valid signed URL,
    or per address without a valid token; 0 disables the limit. keep_count, keep_age: number and
    maximum age of the uploads that retention keeps per kind and environment; identical bytes count
    once.

    max_upload_bytes: maximum size of an artifact. max_stored_bytes: maximum size of all artifacts
    of an instance; None disables the limit. grace: how long unverified uploads and unreferenced
    blobs are kept. rejected_grace: how long rejected uploads are kept. upload_seconds,
    download_seconds: how long signed URLs are valid.

    verification_workers: number of processes that verify uploads, one upload at a time each.
    verification_seconds, verification_memory_bytes: limits of a verification.
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
