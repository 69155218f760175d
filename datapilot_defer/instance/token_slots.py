"""Limits per token on resources that all tokens share."""

from __future__ import annotations

from weakref import WeakValueDictionary

from anyio import CapacityLimiter
from fastapi import HTTPException

# A waiting request occupies a connection, which cannot be closed before the request's turn.
_MAX_WAITING = 100
_RETRY_AFTER_S = 5


def too_busy() -> HTTPException:
    """Return the error for a request that would have to wait too long for its turn."""
    return HTTPException(
        503,
        "too many requests of this kind are running. Try again.",
        headers={"Retry-After": str(_RETRY_AFTER_S)},
    )


class TokenSlots:
    """A limit on the requests of one kind that each token may run at once.

    Further requests wait.
    """

    def __init__(self, per_token: int) -> None:
        self._per_token = per_token
        # A limiter exists while a request of its token uses it or waits for it.
        self._limiters: WeakValueDictionary[int, CapacityLimiter] = WeakValueDictionary()

    def of_token(self, token_id: int) -> CapacityLimiter:
        """Return the limiter of a token.

        Raises HTTPException 503 when too many requests of the token are waiting for it.
        """
        limiter = self._limiters.get(token_id)
        if limiter is None:
            limiter = CapacityLimiter(self._per_token)
            self._limiters[token_id] = limiter
        if limiter.statistics().tasks_waiting >= _MAX_WAITING:
            raise too_busy()
        return limiter
