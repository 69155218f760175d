"""Create and check signed URLs: one file, one purpose, a few minutes."""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass, field
from enum import StrEnum

from datapilot_defer.errors import AccessDenied, NotFound
from datapilot_defer.instance.services.conflicts import Conflict
from datapilot_defer.storage import Storage
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import uploads as upload_records
from datapilot_defer.storage.instances import Instance
from datapilot_defer.storage.uploads import Upload


class Purpose(StrEnum):
    """What a signed URL permits. The value is part of the signature."""

    UPLOAD = "upload"
    DOWNLOAD = "download"


@dataclass(frozen=True)
class SignedUrl:
    """The parts of a signed URL. expires: in seconds since 1970."""

    upload_id: int
    purpose: Purpose
    expires: int
    signature: str = field(repr=False)


def create_signed_url(
    instance: Instance, upload_id: int, purpose: Purpose, *, base_url: str, lifetime_s: int
) -> str:
    """Return a URL that permits one transfer of one file until it expires."""
    expires = expiry_after(lifetime_s)
    signature = sign(instance.signing_key, purpose, upload_id, expires)
    return f"{base_url}/files/{upload_id}?expires={expires}&signature={signature}"


def open_signed_url(storage: Storage, url: SignedUrl) -> tuple[Instance, Upload]:
    """Return the upload that a signed URL gives access to, and its instance.

    Raises AccessDenied when the URL is invalid, also for an unknown upload; Conflict when it
    would overwrite a verified upload; NotFound when it would download an unverified one.
    """
    with storage.database.read() as connection:
        upload = upload_records.find_upload(connection, url.upload_id)
        location = upload_records.locate_upload(connection, url.upload_id)
        if upload is None or location is None:
            raise _invalid_url()
        instance = instance_records.get_instance(connection, location.instance_id)
    is_signed = verify_signature(
        instance.signing_key, url.signature, url.expires, url.purpose, url.upload_id
    )
    if not is_signed:
        raise _invalid_url()
    is_verified = upload.uploaded_at is not None
    if url.purpose is Purpose.UPLOAD and is_verified:
        raise Conflict(
            f"file {upload.id} is already verified: ask for a new signed URL to upload another"
        )
    if url.purpose is Purpose.DOWNLOAD and not is_verified:
        raise NotFound(f"file {upload.id} was not uploaded whole")
    return instance, upload


def _invalid_url() -> AccessDenied:
    return AccessDenied("this signed URL is not valid, or no longer: ask for a new one")


def sign(key: bytes, *words: object) -> str:
    """Return the signature of words with an instance's key, 64 hex digits."""
    message = "\n".join(map(str, words))
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


def expiry_after(lifetime_s: int) -> int:
    """Return when something created now expires, in seconds since 1970."""
    return int(time.time()) + lifetime_s


def verify_signature(key: bytes, signature: str, expires: int, *words: object) -> bool:
    """Return whether a signature is valid for these words and has not expired."""
    expected = sign(key, *words, expires)
    if not hmac.compare_digest(signature.encode(), expected.encode()):
        return False
    return time.time() < expires
