"""The retry budget of a request, and the waits between attempts."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datapilot_defer.formatting import format_duration, plural

if TYPE_CHECKING:
    from datapilot_defer.client.failures import RequestFailure
    from datapilot_defer.deadline import Deadline

# A scheduled job continues after a restart or a short outage of the instance.
UNATTENDED_RETRY_S = 300.0
# A user at a terminal sees the cause, and can repeat the command.
ATTENDED_RETRY_S = 30.0
READ_TIMEOUT_S = 60.0
# Full jitter: a wait is random between 0 and its bound, which doubles from FIRST to LONGEST.
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0
# An attempt that starts with less time than this before the deadline could not succeed.
_SHORTEST_TRY_S = 1.0
# A slow server has this much time to respond, even at the end of the budget.
_SHORTEST_LIMIT_S = 5.0


@dataclass(frozen=True)
class TimeLimits:
    """The time limits of the requests of one command.

    deadline: for all requests together. retry_s: how long to keep retrying a failed request.
    read_timeout_s: how long to wait for data from the server.
    """

    deadline: Deadline
    retry_s: float
    read_timeout_s: float = READ_TIMEOUT_S


class RetryBudget:
    """The attempts of one request. The budget starts with the first failure, or with `start`.

    seconds: the duration of the budget; 0 allows a single attempt.
    """

    def __init__(self, seconds: float, deadline: Deadline) -> None:
        self._seconds = seconds
        self._deadline = deadline
        self._failures = 0
        self._started_at: float | None = None

    def start(self) -> None:
        """Start the budget now, so that it includes the time to wait for the first response."""
        self._started_at = time.monotonic()

    @property
    def max_try_s(self) -> float:
        """Return how long the next attempt may wait for a response. The first one has no limit."""
        if self._failures == 0 or self._started_at is None:
            return math.inf
        return max(_SHORTEST_LIMIT_S, self._started_at + self._seconds - time.monotonic())

    def next_wait(self, failure: RequestFailure) -> float | None:
        """Return the seconds to wait before the next attempt; None if no attempt is left."""
        now = time.monotonic()
        if self._started_at is None:
            self._started_at = now
        self._failures += 1
        budget_end = self._started_at + min(self._seconds, failure.max_retry_s)
        left_s = min(budget_end - now, self._deadline.remaining() - _SHORTEST_TRY_S)
        wait_s = min(self._random_wait(), left_s)
        if failure.retry_after_s is not None:
            # A server that asks for 0 seconds still gets a pause.
            wait_s = max(wait_s, failure.retry_after_s)
        if left_s <= 0 or wait_s > left_s:
            return None
        return wait_s

    def describe_end(self, failure: RequestFailure) -> str:
        """Return the wait that the server asked for and the number of attempts, for the error
        message.
        """
        description = ""
        if failure.retry_after_s and self._seconds:
            description = f"; it asks to wait {format_duration(failure.retry_after_s)}"
        if self._failures > 1 and self._started_at is not None:
            elapsed_s = time.monotonic() - self._started_at
            tries = plural(self._failures, "time")
            description += f" (tried {tries} in {format_duration(elapsed_s)})"
        return description

    def _random_wait(self) -> float:
        doublings = min(self._failures - 1, 10)
        bound_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**doublings)
        return random.uniform(0, bound_s)  # noqa: S311 - not a secret
