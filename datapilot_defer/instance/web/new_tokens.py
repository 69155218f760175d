"""New tokens, which are kept until a page shows each of them once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

_LIFETIME_S = 300.0
_MAX_TOKENS = 1000


class NewTokens:
    """Tokens that were created but not shown yet, in the memory of this process.

    A token is never part of a URL or a cookie, and the database contains only the token's hash.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: OrderedDict[tuple[str, int], tuple[str, float]] = OrderedDict()

    def add(self, session: str, token_id: int, token: str) -> None:
        """Keep a token for one view within five minutes.

        session: an identifier of the session. If there are too many tokens, the oldest one is
        deleted.
        """
        now = time.monotonic()
        with self._lock:
            self._tokens[session, token_id] = (token, now + _LIFETIME_S)
            _, oldest_deadline = next(iter(self._tokens.values()))
            if len(self._tokens) > _MAX_TOKENS or oldest_deadline < now:
                self._tokens.popitem(last=False)

    def take(self, session: str, token_id: int) -> str | None:
        """Return a token that this session created, and delete it from memory.

        Return None if the token is no longer kept.
        """
        with self._lock:
            token, deadline = self._tokens.pop((session, token_id), (None, 0.0))
        if time.monotonic() > deadline:
            return None
        return token
