"""Nothing outlives its deadline, and what is run reports what happened to it."""

from __future__ import annotations

import threading

import pytest

from datapilot_defer.deadline import Deadline
from datapilot_defer.errors import Unavailable


def test_the_result_of_a_call_comes_back() -> None:
    assert Deadline(10).run(lambda: 42, "counting") == 42


def test_the_error_of_a_call_comes_back() -> None:
    def fail() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        Deadline(10).run(fail, "looking")


def test_a_call_that_never_ends_is_left_behind() -> None:
    never = threading.Event()
    try:
        with pytest.raises(Unavailable, match=r"waiting did not end within 0\.05 s"):
            Deadline(0.05).run(never.wait, "waiting")
    finally:
        never.set()


def test_a_deadline_that_has_passed_stops_work_between_two_steps() -> None:
    with pytest.raises(Unavailable, match="--timeout"):
        Deadline(0).check("the upload")
