"""Signed URLs, each valid for one file and one purpose for a few minutes."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from enum import StrEnum

from itsdangerous import BadSignature, TimestampSigner

from datapilot_defer.errors import AccessDenied, NotFound
from datapilot_defer.instance.services.conflicts import Conflict
from datapilot_defer.storage import Storage
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import integrations as integration_records
from datapilot_defer.storage import uploads as upload_records
from datapilot_defer.storage.instances import Instance
from datapilot_defer.storage.uploads import Upload


class Purpose(StrEnum):
    """The operation that a signed URL permits. A signature for one is invalid for the other."""

    UPLOAD = "upload"
    DOWNLOAD = "download"


@dataclass(frozen=True)
class SignedUrl:
    """The parts of a signed URL. lifetime_s: how long the URL is valid, in seconds."""

    upload_id: int
    purpose: Purpose
    lifetime_s: int
    signature: str = field(repr=False)


def create_signed_url(
    instance: Instance, upload_id: int, purpose: Purpose, *, base_url: str
) -> str:
    """Return a URL that permits uploading or downloading one file until it expires."""
    _, _, signature = _signer(instance, purpose).sign(str(upload_id)).decode().partition(".")
    return f"{base_url}/files/{upload_id}?signature={signature}"


def open_signed_url(storage: Storage, url: SignedUrl) -> tuple[Instance, Upload]:
    """Return the instance and the upload that a signed URL gives access to.

    Raises AccessDenied when the URL is invalid or has expired, or the upload is unknown. Raises
    Conflict when the URL would overwrite a verified upload. Raises NotFound when the URL would
    download an unverified upload, or the integration was deleted.
    """
    with storage.database.read() as connection:
        upload = upload_records.find_upload(connection, url.upload_id)
        location = upload_records.locate_upload(connection, url.upload_id)
        if upload is None or location is None:
            raise _invalid_url()
        instance = instance_records.get_instance(connection, location.instance_id)
        integration = integration_records.find_integration(
            connection, location.instance_id, location.integration_id
        )
    if not _is_valid(instance, url):
        raise _invalid_url()
    if integration is None or integration.deleted_at is not None:
        raise NotFound(f"the integration of file {upload.id} was deleted")
    is_verified = upload.uploaded_at is not None
    if url.purpose is Purpose.UPLOAD and is_verified:
        raise Conflict(f"file {upload.id} is already verified. Request a new signed URL.")
    if url.purpose is Purpose.DOWNLOAD and not is_verified:
        raise NotFound(f"file {upload.id} was not verified, so it cannot be downloaded")
    return instance, upload


def _is_valid(instance: Instance, url: SignedUrl) -> bool:
    """Return whether the URL was signed for this file and purpose, and has not expired.

    A signing time in the future is valid, because the server's clock may have been set back. The
    argument `max_age` of itsdangerous would reject it.
    """
    signed = f"{url.upload_id}.{url.signature}"
    try:
        _, signed_at = _signer(instance, url.purpose).unsign(signed, return_timestamp=True)
    except BadSignature:
        return False
    return time.time() - signed_at.timestamp() < url.lifetime_s


def _signer(instance: Instance, purpose: Purpose) -> TimestampSigner:
    return TimestampSigner(
        instance.signing_key,
        salt=f"datapilot.{purpose}",
        key_derivation="hmac",
        digest_method=hashlib.sha256,
    )


def _invalid_url() -> AccessDenied:
    return AccessDenied("the signed URL is invalid or has expired. Request a new one.")
