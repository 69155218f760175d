"""The times when tokens were last used, which are stored later so that requests do not wait."""

from __future__ import annotations

import threading
from datetime import datetime

from datapilot_defer.errors import Unavailable
from datapilot_defer.storage import Storage
from datapilot_defer.storage import tokens as token_records
from datapilot_defer.storage.database import utc_now


class LastUsed:
    """The last use of each token, if it is not stored yet. Thread-safe."""

    def __init__(self) -> None:
        self._moments: dict[int, datetime] = {}
        self._lock = threading.Lock()

    def record(self, token_id: int) -> None:
        """Record that a token was used now."""
        moment = utc_now()
        with self._lock:
            self._moments[token_id] = moment

    def flush(self, storage: Storage) -> None:
        """Store the times in one transaction.

        If the database is unavailable, keep them for the next call.
        """
        with self._lock:
            moments = self._moments
            self._moments = {}
        if not moments:
            return
        try:
            with storage.database.write() as connection:
                token_records.store_last_used(connection, moments)
        except Unavailable:
            with self._lock:
                self._moments = moments | self._moments
