"""Behavior of all commands: output, exit codes, the JSON in the last line, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import click
import pytest
from click.testing import CliRunner, Result

from datapilot_defer import errors
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.output import current_output
from tests.support.commands import datapilot
from tests.support.json_contract import find_problems


def run(command: click.Command, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
    return CliRunner().invoke(command, list(arguments), env=env)


def make_failing_command(error: BaseException) -> click.Command:
    @click.command("fail", cls=Command)
    def fail() -> NoReturn:
        """Fail."""
        raise error

    return fail


@click.command("talk", cls=Command)
@click.option("--name", required=True)
def print_everywhere(name: str) -> None:
    """Print text on every channel."""
    report = current_output()
    report.hide_secret("s3cret-t0ken")
    report.note(f"note to {name}")
    report.detail("detail of s3cret-t0ken")
    report.warn("50% of\nit")
    report.print_result({"name": name, "token": "s3cret-t0ken"}, f"hello {name}, s3cret-t0ken")


ERRORS = [
    (errors.ArtifactRefused("x"), 1, "artifact_refused"),
    (errors.UsageError("x"), 2, "usage_error"),
    (errors.AccessDenied("x"), 3, "access_denied"),
    (errors.NotFound("x"), 4, "not_found"),
    (errors.Unavailable("x"), 5, "unavailable"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (click.UsageError("x"), 2, "usage_error"),
]


@pytest.mark.parametrize(("error", "exit_code", "kind"), ERRORS)
def test_error_sets_exit_code_and_prints_json(
    error: BaseException, exit_code: int, kind: str
) -> None:
    result = run(make_failing_command(error), "--json")
    assert result.exit_code == exit_code
    last = json.loads(result.output.splitlines()[-1])
    assert find_problems("dbt.onboard", last) == []
    assert (last["ok"], last["exit_code"], last["error"]["kind"]) == (False, exit_code, kind)
    assert result.stderr.startswith("Error: ")


def test_unexpected_exception_is_not_hidden() -> None:
    assert isinstance(run(make_failing_command(ZeroDivisionError())).exception, ZeroDivisionError)


def test_missing_option_prints_json() -> None:
    result = run(print_everywhere, "--json")
    assert result.exit_code == 2
    assert "--name" in json.loads(result.output.splitlines()[-1])["error"]["message"]
    plain = run(print_everywhere)
    assert plain.exit_code == 2
    assert plain.stdout == ""


def test_results_go_to_stdout_and_everything_else_to_stderr() -> None:
    result = run(print_everywhere, "--name", "ann")
    assert result.stdout == "hello ann, ***\n"
    assert result.stderr == "note to ann\nWarning: 50% of\n  it\n"


def test_quiet_hides_notes_and_verbose_adds_redacted_details() -> None:
    assert run(print_everywhere, "--name", "ann", "-q").stderr == "Warning: 50% of\n  it\n"
    assert "detail of ***" in run(print_everywhere, "--name", "ann", "-v").stderr


def test_log_lines_can_be_json() -> None:
    lines = [
        json.loads(line)
        for line in run(
            print_everywhere, "--name", "ann", "--log-format", "json"
        ).stderr.splitlines()
    ]
    assert [line["level"] for line in lines] == ["info", "warning"]
    assert lines[0]["message"] == "note to ann"


def test_github_warning_is_annotation_without_secrets() -> None:
    result = run(print_everywhere, "--name", "ann", env={"GITHUB_ACTIONS": "true"})
    assert "::warning title=datapilot::50%25 of%0Ait\n" in result.stderr
    assert "s3cret-t0ken" not in result.output


@pytest.mark.parametrize("groups", [[], ["dbt"], ["dbt", "defer"], ["instance", "token"]])
@pytest.mark.parametrize("token", ["dpd_0123456789abcdef", "--dpd_0123456789abcdef"])
def test_token_instead_of_command_is_hidden(groups: list[str], token: str) -> None:
    outcome = datapilot(*groups, f"{token}\n::error::x")
    assert outcome.exit_code == 2
    assert "dpd_***" in outcome.stderr
    assert "0123456789abcdef" not in outcome.output
    assert "\n::error" not in outcome.output


@pytest.mark.parametrize(
    "words",
    [
        ["{token}"],
        ["dbt", "{token}"],
        ["dbt", "onboard", "{token}"],
        ["dbt", "onboard", "--timeout", "{token}"],
        ["dbt", "validate", "{token}"],
        ["dbt", "validate", "{token}", "--json"],
    ],
)
def test_a_token_of_the_environment_in_the_wrong_place_is_not_repeated(words: list[str]) -> None:
    token = "A9" * 16  # as those of the hosted service, without a prefix that gives it away
    outcome = datapilot(
        *(word.format(token=token) for word in words), env={"ALTIMATE_API_KEY": token}
    )
    assert outcome.exit_code == 2
    assert "***" in outcome.output
    assert token not in outcome.output


def test_a_password_with_an_at_sign_is_hidden_whole() -> None:
    outcome = run(print_everywhere, "--name", "https://ann:pa@ss@host/x and a@b")
    assert outcome.stdout == "hello https://***@host/x and a@b, ***\n"


def test_the_choices_of_a_missing_option_are_listed_in_its_line() -> None:
    outcome = datapilot("instance", "token", "create", "--data", "x", "--name", "x")
    assert "Missing option '--scope'. Choose from: read, upload, admin\n" in outcome.stderr


def test_not_a_number_is_no_time_limit() -> None:
    outcome = datapilot("dbt", "validate", "x", "--timeout", "nan")
    assert outcome.exit_code == 2
    assert "'nan' is not a number" in outcome.stderr


def test_a_usage_error_is_a_line_of_json_where_lines_are_json() -> None:
    for words in (("--log-format", "json"), ("--log-format=json", "--json")):
        outcome = datapilot("dbt", "onboard", "--bogus", *words)
        assert outcome.exit_code == 2
        (line,) = outcome.stderr.splitlines()
        assert json.loads(line)["level"] == "error"


def test_color_respects_no_color() -> None:
    def has_color(env: Mapping[str, str]) -> bool:
        return (
            "\x1b["
            in CliRunner().invoke(print_everywhere, ["--name", "ann"], env=env, color=True).stderr
        )

    assert has_color({})
    assert not has_color({"NO_COLOR": "1"})


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM handlers")
def test_sigterm_ends_waiting_command_with_exit_code_143() -> None:
    code = """
import time, click
from datapilot_defer.cli.command import Command
@click.command(cls=Command)
def wait():
    try:
        click.echo("waiting")
        time.sleep(60)
    finally:
        click.echo("cleaned up")
wait()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--json"], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        lines_after_signal = process.stdout.read().splitlines()
    assert process.returncode == 143
    assert lines_after_signal[0] == "cleaned up"
    assert json.loads(lines_after_signal[-1])["exit_code"] == 143


@pytest.mark.parametrize(
    ("value", "is_shown"), [("1", True), ("true", True), ("0", False), ("off", False), ("", False)]
)
def test_datapilot_debug_acts_like_verbose(value: str, is_shown: bool) -> None:
    result = run(print_everywhere, "--name", "you", env={"DATAPILOT_DEBUG": value})
    assert result.exit_code == 0
    assert ("detail of" in result.stderr) is is_shown
    assert (
        "detail of"
        in run(print_everywhere, "--name", "you", "-v", env={"DATAPILOT_DEBUG": value}).stderr
    )


def test_invalid_datapilot_debug_enables_details() -> None:
    result = run(print_everywhere, "--name", "you", env={"DATAPILOT_DEBUG": "loud"})
    assert result.exit_code == 0
    assert "detail of" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["bogus"],
        ["--bogus"],
        ["dbt", "bogus"],
        ["dbt", "defer", "--bogus"],
        ["config", "show", "--bogus"],
    ],
)
def test_usage_error_appears_in_job_summary_and_json(words: list[str], tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    for arguments in (words, [*words, "--json"]):
        outcome = datapilot(*arguments, env=env)
        assert outcome.exit_code == 2
        (annotation,) = [line for line in outcome.stderr.splitlines() if line.startswith("::")]
        assert annotation.startswith("::error title=datapilot::No such ")
        assert "bogus" in annotation
    details = outcome.json
    assert find_problems("dbt.onboard", details) == []
    assert (details["exit_code"], details["error"]["kind"]) == (2, "usage_error")
    assert "bogus" in details["error"]["message"]
    path = " ".join(["datapilot", *(word for word in words if "bogus" not in word)])
    assert f"### {path}: failed" in summary.read_text(encoding="utf-8")


def test_invalid_boolean_variable_is_annotation() -> None:
    env = {"GITHUB_ACTIONS": "true", "DATAPILOT_REQUIRE_SUCCESS": "x"}
    outcome = datapilot("dbt", "onboard", env=env)
    assert outcome.exit_code == 2
    assert "::error title=datapilot::Invalid value for '--require-success'" in outcome.stderr


def test_group_without_command_shows_help() -> None:
    outcome = datapilot("dbt", env={"GITHUB_ACTIONS": "true"})
    assert outcome.exit_code == 2
    assert "::error" not in outcome.stderr
    assert "onboard" in outcome.output
