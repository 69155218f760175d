"""Shares of a token: one token cannot occupy what all tokens wait for."""

from __future__ import annotations

from weakref import WeakValueDictionary

from anyio import CapacityLimiter
from fastapi import HTTPException

# A waiting request holds a connection that cannot be closed before its turn.
_MAX_WAITING = 100
_RETRY_AFTER_S = 5


def too_busy() -> HTTPException:
    """Return the response to a request that does not wait any longer for its turn."""
    return HTTPException(
        503,
        "too many such requests are running. Try again.",
        headers={"Retry-After": str(_RETRY_AFTER_S)},
    )


class TokenSlots:
    """How much of something each token may use at the same time; more of it waits for its turn."""

    def __init__(self, per_token: int) -> None:
        self._per_token = per_token
        # A limiter exists while a request of its token uses it or waits for it.
        self._limiters: WeakValueDictionary[int, CapacityLimiter] = WeakValueDictionary()

    def of_token(self, token_id: int) -> CapacityLimiter:
        """Return the limiter of a token.

        Raises HTTPException 503 when too many requests of the token wait for it.
        """
        limiter = self._limiters.get(token_id)
        if limiter is None:
            limiter = CapacityLimiter(self._per_token)
            self._limiters[token_id] = limiter
        if limiter.statistics().tasks_waiting >= _MAX_WAITING:
            raise too_busy()
        return limiter
