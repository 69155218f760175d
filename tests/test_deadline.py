"""Deadlines and calls with a time limit."""

from __future__ import annotations

import threading

import pytest

from datapilot_defer.deadline import Deadline
from datapilot_defer.errors import Unavailable


def test_run_returns_result() -> None:
    assert Deadline(10).run(lambda: 42, "counting") == 42


def test_run_raises_error_of_call() -> None:
    def fail() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        Deadline(10).run(fail, "looking")


def test_run_abandons_call_that_never_ends() -> None:
    never = threading.Event()
    try:
        with pytest.raises(Unavailable, match=r"waiting did not end within 0\.05 s"):
            Deadline(0.05).run(never.wait, "waiting")
    finally:
        never.set()


def test_check_raises_after_deadline() -> None:
    with pytest.raises(Unavailable, match="--timeout"):
        Deadline(0).check("the upload")
