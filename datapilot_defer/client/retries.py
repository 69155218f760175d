"""How long a request that failed is sent again, and how long to wait before each try."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from datapilot_defer.formatting import format_duration, plural

if TYPE_CHECKING:
    from datapilot_defer.client.failures import RequestFailure
    from datapilot_defer.deadline import Deadline

# A scheduled job continues after a restart or a short outage of the instance.
UNATTENDED_RETRY_S = 300.0
# A user at a terminal sees the cause, and can repeat the command.
ATTENDED_RETRY_S = 30.0
# Full jitter: a wait is random between 0 and its bound, which doubles from FIRST to LONGEST.
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0
# A try that begins later than this before the deadline could not succeed.
_SHORTEST_TRY_S = 1.0


class RetryBudget:
    """The tries of one request.

    The budget starts with the first failure, so that a long upload that fails is sent again.
    seconds: 0 for a single try.
    """

    def __init__(self, seconds: float, deadline: Deadline) -> None:
        self._seconds = seconds
        self._deadline = deadline
        self._failures = 0
        self._failing_since = 0.0

    def next_wait(self, failure: RequestFailure) -> float | None:
        """Return the seconds to wait before the next try; None when there is none."""
        now = time.monotonic()
        if self._failures == 0:
            self._failing_since = now
        self._failures += 1
        budget_end = self._failing_since + min(self._seconds, failure.max_retry_s)
        left_s = min(budget_end - now, self._deadline.remaining() - _SHORTEST_TRY_S)
        wait_s = failure.retry_after_s
        if wait_s is None:
            wait_s = min(self._random_wait(), left_s)
        if left_s <= 0 or wait_s > left_s:
            return None
        return wait_s

    def describe_end(self, failure: RequestFailure) -> str:
        """Return why there is no further try, to append to the message of the last failure."""
        description = ""
        if failure.retry_after_s is not None and self._seconds:
            description = f"; it asks to wait {format_duration(failure.retry_after_s)}"
        if self._failures > 1:
            elapsed_s = time.monotonic() - self._failing_since
            tries = plural(self._failures, "time")
            description += f" (tried {tries} in {format_duration(elapsed_s)})"
        return description

    def _random_wait(self) -> float:
        doublings = min(self._failures - 1, 10)
        bound_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**doublings)
        return random.uniform(0, bound_s)  # noqa: S311 - not a secret
