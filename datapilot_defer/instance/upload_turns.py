"""Turns of uploads: which uploads may send their bytes now, and for how long."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from anyio import CancelScope, CapacityLimiter, Event, current_time, move_on_after
from fastapi import HTTPException

from datapilot_defer.instance.token_slots import TokenSlots, too_busy

# This is shorter than the time that clients wait for a server that reads nothing, so that they can
# read the response.
MAX_WAIT_S = 25.0
# A connection of 1 Mbit/s is about twice as fast.
_BYTES_PER_S = 64 * 1024
# How much longer an upload may take in total than at the minimum speed, such as for pauses.
_SLOW_S = 60.0


class Pace:
    """The minimum speed of an upload, which is canceled if it is slower.

    earlier: the events that signal the ends of earlier uploads of the same file. These uploads had
    not ended when this one started.
    """

    def __init__(self, scope: CancelScope, earlier: list[Event]) -> None:
        self._scope = scope
        self._earlier = earlier
        self._started_at = current_time()
        self.advance(0)

    def advance(self, received_bytes: int) -> None:
        """Extend the deadline according to the total number of bytes that have arrived."""
        self._scope.deadline = self._started_at + _SLOW_S + received_bytes / _BYTES_PER_S

    async def finish(self) -> None:
        """Remove the deadline after all bytes have arrived, and wait for earlier uploads to end.

        An earlier upload may already be storing its bytes, which cannot be canceled. The bytes of
        the last upload must be the ones that are kept.
        """
        self._scope.deadline = math.inf
        for ended in self._earlier:
            await ended.wait()


@dataclass(frozen=True)
class _Upload:
    """An upload that is running or waiting."""

    scope: CancelScope
    ended: Event


class UploadTurns:
    """The running and waiting uploads.

    at_once: how many may run at the same time. per_token: how many of them may belong to one token.
    """

    def __init__(self, at_once: int, per_token: int) -> None:
        self._running = CapacityLimiter(at_once)
        self._of_token = TokenSlots(per_token)
        # The uploads by file id. All but the last one of a file are canceled but have not ended
        # yet.
        self._uploads: dict[int, list[_Upload]] = {}

    @asynccontextmanager
    async def take(self, file_id: int, token_id: int) -> AsyncIterator[Pace]:
        """Cancel earlier uploads of the same file, and wait until this upload may run.

        A client may repeat an upload before the server has noticed that the first connection is
        broken.

        Raises HTTPException: 503 after MAX_WAIT_S or when too many uploads of the token are
        waiting, 409 if a later upload of the same file replaces this one, 408 if it is too slow.
        """
        # Call `of_token` first, because it may raise an exception. The earlier upload must then
        # continue.
        limiter = self._of_token.of_token(token_id)
        with self._newest_of(file_id) as (scope, earlier):
            async with AsyncExitStack() as slots:
                await self._wait(slots, limiter)
                yield Pace(scope, earlier)
        if not scope.cancelled_caught:
            return
        if current_time() >= scope.deadline:
            raise _ended(408, f"it was slower than {_BYTES_PER_S // 1024} kB/s")
        raise _ended(409, f"another upload of file {file_id} has started")

    @contextmanager
    def _newest_of(self, file_id: int) -> Iterator[tuple[CancelScope, list[Event]]]:
        """Cancel the running and waiting uploads of a file, and yield the scope of the next one.

        Also yield the events for the ends of the canceled uploads.
        """
        uploads = self._uploads.setdefault(file_id, [])
        for earlier in uploads:
            earlier.scope.cancel()
        earlier_ends = [earlier.ended for earlier in uploads]
        with CancelScope() as scope:
            upload = _Upload(scope, Event())
            uploads.append(upload)
            try:
                yield scope, earlier_ends
            finally:
                upload.ended.set()
                uploads.remove(upload)
                if not uploads:
                    del self._uploads[file_id]

    async def _wait(self, slots: AsyncExitStack, limiter: CapacityLimiter) -> None:
        with move_on_after(MAX_WAIT_S) as wait:
            await slots.enter_async_context(limiter)
            await slots.enter_async_context(self._running)
        if wait.cancelled_caught:
            raise too_busy()


def _ended(status: int, reason: str) -> HTTPException:
    """Return the error for an upload whose remaining bytes are not read."""
    detail = f"the upload was not stored: {reason}"
    return HTTPException(status, detail, headers={"Connection": "close"})
