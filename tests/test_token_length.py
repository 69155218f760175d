"""What is given as a token is read up to the length that a token can have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.commands import Outcome, datapilot

ADDRESS = ("--backend-url", "http://127.0.0.1:1", "--instance-name", "acme")
TOO_LONG = "what was given as token is too long"


def login(*words: object, stdin: str | None = None) -> Outcome:
    return datapilot("auth", "login", *ADDRESS, *words, stdin=stdin)


def test_a_long_text_is_no_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("x" * 70_000, encoding="utf-8")
    for done in (login("--token-file", file), login("--token-stdin", stdin="x" * 70_000)):
        assert (done.exit_code, TOO_LONG in done.stderr) == (2, True), done.stderr


@pytest.mark.skipif(os.name == "nt", reason="a device with a path")
def test_a_device_without_an_end_is_no_token() -> None:
    done = login("--token-file", "/dev/zero")
    assert (done.exit_code, TOO_LONG in done.stderr) == (2, True), done.stderr
