"""Routes for signed URLs, which stream the bytes of one artifact."""

from __future__ import annotations

from itertools import chain
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from datapilot_defer.errors import AccessDenied, NotFound
from datapilot_defer.instance.dependencies import CurrentSettings, CurrentStorage
from datapilot_defer.instance.rate_limit import limit_file, limit_token
from datapilot_defer.instance.services.conflicts import Conflict
from datapilot_defer.instance.services.quota import check_quota, check_space
from datapilot_defer.instance.services.signed_urls import Purpose, SignedUrl, open_signed_url
from datapilot_defer.instance.services.uploads import receive_upload
from datapilot_defer.instance.upload_turns import Pace
from datapilot_defer.storage import Storage
from datapilot_defer.storage.blobs import CHUNK_BYTES, Blob, BlobWriter
from datapilot_defer.storage.instances import Instance
from datapilot_defer.storage.tables import MAX_ID
from datapilot_defer.storage.uploads import Upload

router = APIRouter(tags=["files"])
FileId = Annotated[int, Path(ge=1, le=MAX_ID)]
Signature = Annotated[str, Query(max_length=200)]


@router.put("/files/{file_id}", responses={402: {}, 403: {}, 408: {}, 409: {}, 413: {}})
async def put_file(
    request: Request,
    storage: CurrentStorage,
    settings: CurrentSettings,
    file_id: FileId,
    signature: Signature,
) -> Response:
    """Receive the raw bytes of an announced file. They are not available before verify_upload."""
    url = SignedUrl(file_id, Purpose.UPLOAD, settings.upload_seconds, signature)
    instance, upload = await run_in_threadpool(_open, request, storage, url)
    size_bytes = _stated_bytes(request, settings.max_upload_bytes)
    state = request.app.state
    limit = settings.max_stored_bytes
    async with state.uploads.take(file_id, upload.token_id) as pace:
        with state.reservations.hold(instance.id, size_bytes) as space:
            await run_in_threadpool(check_space, storage, space, limit)
            with storage.blobs.open_writer() as writer:
                await _stream_to_blob(request, writer, pace)
                await run_in_threadpool(check_quota, storage, instance.id, limit, writer.blob)
                blob = await run_in_threadpool(writer.commit, instance.id)
            await run_in_threadpool(receive_upload, storage, instance.id, file_id, blob)
    return Response(headers={"ETag": f'"{blob.sha256}"'})


@router.get("/files/{file_id}", responses={403: {}, 404: {}})
def get_file(
    request: Request,
    storage: CurrentStorage,
    settings: CurrentSettings,
    file_id: FileId,
    signature: Signature,
) -> Response:
    """Return the raw bytes of a verified file."""
    url = SignedUrl(file_id, Purpose.DOWNLOAD, settings.download_seconds, signature)
    instance, upload = _open(request, storage, url)
    blob = Blob(upload.metadata.sha256, upload.metadata.size_bytes)
    chunks = storage.blobs.read_chunks(instance.id, blob)
    # Read the first chunk before the response starts. A missing blob then results in an error
    # response instead of an interrupted response.
    first = next(chunks, b"")
    return StreamingResponse(
        chain([first], chunks),
        media_type="application/json",
        headers={
            "Content-Length": str(blob.size_bytes),
            "ETag": f'"{blob.sha256}"',
            "Content-Disposition": f'attachment; filename="{upload.kind.file_name}"',
        },
    )


def _open(request: Request, storage: Storage, url: SignedUrl) -> tuple[Instance, Upload]:
    """Open a signed URL and return its instance and upload.

    The request counts toward the limit of the file, or of its address if the URL is invalid.
    """
    try:
        opened = open_signed_url(storage, url)
    except AccessDenied:
        limit_token(request, None)
        raise
    except (Conflict, NotFound):
        limit_file(request, url.upload_id)
        raise
    limit_file(request, url.upload_id)
    return opened


def _stated_bytes(request: Request, max_bytes: int) -> int:
    """Return the size that the Content-Length header states.

    Raises HTTPException 413 when the body would be too large.
    """
    size_bytes = int(request.headers.get("content-length", "0"))
    if size_bytes > max_bytes:
        raise HTTPException(
            413, f"the file is too large: the limit of this instance is {max_bytes} bytes"
        )
    return size_bytes


async def _stream_to_blob(request: Request, writer: BlobWriter, pace: Pace) -> None:
    """Write the body of a request in pieces of about CHUNK_BYTES.

    The pieces limit the memory that one upload uses. Raises HTTPException 400 when the client
    disconnects.
    """
    buffer = bytearray()
    try:
        async for part in request.stream():
            buffer += part
            pace.advance(writer.size_bytes + len(buffer))
            if len(buffer) >= CHUNK_BYTES:
                await run_in_threadpool(writer.write, bytes(buffer))
                buffer.clear()
    except ClientDisconnect:
        raise HTTPException(400, "the upload is incomplete") from None
    await pace.finish()
    await run_in_threadpool(writer.write, bytes(buffer))
