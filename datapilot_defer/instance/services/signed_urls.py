"""Artifacts on their way in and out, over URLs that an instance signed: one file, one purpose, for minutes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from datapilot_defer.artifact import Kind
from datapilot_defer.instance.services import tokens
from datapilot_defer.instance.services.principal import Principal
from datapilot_defer.storage import tokens as token_records
from datapilot_defer.storage import uploads
from datapilot_defer.storage.blobs import CHUNK_BYTES, Blob, BlobStore, BlobWriter
from datapilot_defer.storage.database import Database
from datapilot_defer.storage.uploads import Upload

router = APIRouter(tags=["files"])
MAX_ID = 2**31 - 1

FileId = Annotated[int, Path(ge=1, le=MAX_ID)]
Expires = Annotated[int, Query(ge=0, le=2**53)]
Signature = Annotated[str, Query(max_length=64)]


def upload_url(caller: Principal, file_id: int) -> str:
    """Give the URL that takes the bytes of one announced file."""
    return _sign(caller, file_id, "upload", caller.settings.upload_seconds)


def download_url(caller: Principal, file_id: int) -> str:
    """Give the URL that gives the bytes of one verified file."""
    return _sign(caller, file_id, "download", caller.settings.download_seconds)


@router.put("/files/{file_id}", responses={403: {}, 409: {}, 413: {}})
async def put_file(
    request: Request, file_id: FileId, expires: Expires, signature: Signature
) -> Response:
    """Take the raw bytes of an announced file; they stay invisible until verify_upload."""
    owner, _ = await run_in_threadpool(
        open_signed_url, request, file_id, "upload", expires, signature
    )
    limit = request.app.state.settings.max_bytes
    if int(request.headers.get("content-length", "0")) > limit:
        raise _too_large(limit)
    with request.app.state.blobs.open_writer() as incoming:
        await _stream_to_blob(request, incoming, limit)
        blob = await run_in_threadpool(incoming.commit, owner.id)
    await run_in_threadpool(receive_upload, request.app.state.records, file_id, blob)
    return Response(headers={"ETag": f'"{blob.sha256}"'})


@router.get("/files/{file_id}", responses={403: {}, 404: {}})
def get_file(request: Request, file_id: FileId, expires: Expires, signature: Signature) -> Response:
    """Give the raw bytes of a verified file."""
    owner, file = open_signed_url(request, file_id, "download", expires, signature)
    if file.uploaded_at is None or file.sha256 is None or file.size_bytes is None:
        raise HTTPException(404, f"file {file_id} was not uploaded whole")
    blobs: BlobStore = request.app.state.blobs
    blob = Blob(file.sha256, file.size_bytes)
    first = blobs.read(owner.id, blob.sha256, start=0, length=min(CHUNK_BYTES, blob.size_bytes))
    return StreamingResponse(
        _chunks(blobs, owner.id, blob, first),
        media_type="application/json",
        headers={
            "Content-Length": str(blob.size_bytes),
            "ETag": f'"{blob.sha256}"',
            "Content-Disposition": f'attachment; filename="{Kind(file.kind).file_name}"',
        },
    )


def _sign(caller: Principal, file_id: int, purpose: str, seconds: int) -> str:
    expires = tokens.expiry(seconds)
    signature = tokens.signed(caller.owner.signing_key, purpose, file_id, expires)
    return f"{caller.base_url}/files/{file_id}?expires={expires}&signature={signature}"


def open_signed_url(
    request: Request, file_id: int, purpose: str, expires: int, signature: str
) -> tuple[token_records.Instance, Upload]:
    """Give the file that a signed URL opens, and whose it is. Raises 403, also for a file that does not exist."""
    with request.app.state.records.read() as connection:
        place = uploads.locate_upload(connection, file_id)
        file = uploads.find_upload(connection, file_id)
        owner = token_records.get_instance(connection, place[0]) if place else None
    if (
        owner is None
        or file is None
        or not tokens.holds(owner.signing_key, signature, expires, purpose, file_id)
    ):
        raise HTTPException(403, "this signed URL is not valid, or no longer: ask for a new one")
    if purpose == "upload" and file.uploaded_at is not None:
        raise HTTPException(
            409, f"file {file_id} is already verified: ask for a new signed URL to upload another"
        )
    return owner, file


async def _stream_to_blob(request: Request, incoming: BlobWriter, limit: int) -> None:
    """Pass a body on in pieces of `CHUNK` bytes, so that one upload holds no more than that."""
    piece = bytearray()
    try:
        async for part in request.stream():
            piece += part
            if incoming.size_bytes + len(piece) > limit:
                raise _too_large(limit)
            if len(piece) >= CHUNK_BYTES:
                await run_in_threadpool(incoming.write, bytes(piece))
                piece.clear()
    except ClientDisconnect:
        raise HTTPException(400, "the upload ended before it was whole") from None
    await run_in_threadpool(incoming.write, bytes(piece))


def receive_upload(records: Database, file_id: int, blob: Blob) -> None:
    with records.write() as connection:
        if not uploads.mark_received(
            connection, file_id, sha256=blob.sha256, size_bytes=blob.size_bytes
        ):
            raise HTTPException(
                409, f"file {file_id} was verified meanwhile: ask for a new signed URL"
            )


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"larger than the {limit} bytes that this instance takes")


def _chunks(blobs: BlobStore, owner: int, blob: Blob, first: bytes) -> Iterator[bytes]:
    yield first
    for start in range(CHUNK_BYTES, blob.size_bytes, CHUNK_BYTES):
        yield blobs.read(
            owner, blob.sha256, start=start, length=min(CHUNK_BYTES, blob.size_bytes - start)
        )
