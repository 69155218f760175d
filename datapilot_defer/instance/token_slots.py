"""Shares of a token: one token cannot occupy what all tokens wait for."""

from __future__ import annotations

from weakref import WeakValueDictionary

from anyio import CapacityLimiter


class TokenSlots:
    """How much of something each token may use at the same time; more of it waits for its turn."""

    def __init__(self, per_token: int) -> None:
        self._per_token = per_token
        # A limiter exists while a request of its token uses it or waits for it.
        self._limiters: WeakValueDictionary[int, CapacityLimiter] = WeakValueDictionary()

    def of_token(self, token_id: int) -> CapacityLimiter:
        """Return the limiter of a token."""
        limiter = self._limiters.get(token_id)
        if limiter is None:
            limiter = CapacityLimiter(self._per_token)
            self._limiters[token_id] = limiter
        return limiter
