"""What whoever runs an instance may choose."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class InstanceSettings:
    """How an instance behaves.

    public_url: what clients reach it under; None: what each of them used. behind_proxy: believe forwarded headers.
    requests_per_minute: of one client's address; 0: any number. keep_count, keep_age: what retention leaves of an
    environment's files of one kind, equal bytes counted once. max_bytes: of one artifact. grace: what nobody
    needs stays so long.
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
