"""The output of a command on a terminal."""

import io
import sys

import click
import pytest

from datapilot_defer.cli.output import Output, current_output


class Terminal(io.StringIO):
    """A text stream that reports that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_bar_is_shown_at_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Output().progress("Uploading manifest", 100) as progress:
        progress.advance(100)
    assert "Uploading manifest" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


@pytest.mark.parametrize(
    "output", [Output(quiet=True), Output(json=True), Output(log_format="json")]
)
def test_progress_bar_is_hidden_for_machine_output(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with output.progress("Uploading manifest", 100) as progress:
        progress.advance(100)
    assert terminal.getvalue() == ""


def test_command_of_other_program_has_default_output() -> None:
    with click.Context(click.Command("other")):
        assert current_output() == Output()
