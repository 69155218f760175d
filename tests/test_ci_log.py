"""Output for CI systems, whose log and files contain no commands except annotations."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from datapilot_defer import ci, ci_log
from tests.support.ci_readers import ATTACK, find_commands


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n::error::b", "a\n: :error::b"),
        (" \t::group::b", " \t: :group::b"),
        ("a ##[error]b ##vso[c]", "a # #[error]b # #vso[c]"),
        ("--- a\n+++ b\n~~~ c", "- -- a\n+ ++ b\n~ ~~ c"),
        ("a\rb\x85c\u2028d\x1b[0m", "a\ufffdb\ufffdc\ufffdd\ufffd[0m"),
        ("model::a --- b # #5 ## title", "model::a --- b # #5 ## title"),
    ],
)
def test_neutralize_splits_command_markers(text: str, shown: str) -> None:
    assert ci_log.neutralize(text) == shown
    assert ci_log.neutralize(shown) == shown


def test_escaped_json_is_one_line_without_markers() -> None:
    text = json.dumps({ATTACK: f"{ATTACK}\U000e0001\\##[a]"}, ensure_ascii=False)
    escaped = ci_log.escape_json(text)
    assert json.loads(escaped) == json.loads(text)
    assert escaped.isprintable()
    assert find_commands(escaped, on_github=False) == []
    assert ci_log.escape_json('{"name": "Größe"}') == '{"name": "Größe"}'


@pytest.mark.parametrize("length", [10_000, 200_000])
def test_long_text_is_processed_in_linear_time(length: int) -> None:
    for part in ("\n", " ", "#", ":", "##a", "`", " \n"):
        ci_log.neutralize(part * length)
        ci_log.format_code_block(part * length)


def test_annotation_is_one_line() -> None:
    assert (
        ci_log.format_annotation("error", "50% of\r\nit: a::b, c")
        == "::error title=datapilot::50%25 of%0D%0Ait: a::b, c"
    )


@pytest.mark.skipif(os.name == "nt", reason="pipes with a path")
def test_pipe_instead_of_job_file_is_ignored(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    environ = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SHA": "merge",
        "GITHUB_EVENT_NAME": "pull_request",
        "GITHUB_STEP_SUMMARY": str(pipe),
    }
    ci_log.append_summary(environ, "# x")
    for path in (str(pipe), "/dev/zero"):
        run = ci.detect_ci({**environ, "GITHUB_EVENT_PATH": path})
        assert run is not None
        assert run.commit == "merge"


def test_no_file_is_written_outside_github(tmp_path: Path) -> None:
    environ = {
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }
    ci_log.append_outputs(environ, {"a": "b"})
    ci_log.append_summary(environ, "# x")
    ci_log.append_summary({"GITHUB_ACTIONS": "true"}, "# x")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_summary_is_ignored(tmp_path: Path) -> None:
    ci_log.append_summary({"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path)}, "# x")


def test_annotation_property_is_escaped() -> None:
    assert (
        ci_log.format_annotation("error", "x", "a,title=b::c\n.sql")
        == "::error file=a%2Ctitle=b%3A%3Ac%0A.sql,title=datapilot::x"
    )


def test_a_name_that_is_no_text_is_in_the_summary(tmp_path: Path) -> None:
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    ci_log.append_summary(environ, "\udcff.json: rejected")
    assert (tmp_path / "summary").read_text(encoding="utf-8") == "\\udcff.json: rejected\n\n"


def test_a_summary_that_is_full_stays_as_it_is(tmp_path: Path) -> None:
    summary = tmp_path / "summary"
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    summary.write_bytes(b"x" * (1024 * 1024 - 4))
    ci_log.append_summary(environ, "abc")
    assert summary.stat().st_size == 1024 * 1024 - 4
    ci_log.append_summary(environ, "ab")
    assert summary.read_bytes()[-4:] == b"ab\n\n"


def test_output_is_one_line(tmp_path: Path) -> None:
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(tmp_path / "output")}
    ci_log.append_outputs(environ, {"a": "b\r\nc<<EOF\nd=e"})
    assert (tmp_path / "output").read_bytes() == "a=b\ufffd\ufffdc<<EOF\ufffdd=e\n".encode()


def test_markdown_is_escaped_and_shortened() -> None:
    assert ci_log.escape_markdown("<a>|`x`\n![b](c) www.d.e") == (
        r"\<a\>\|\`x\`" "\ufffd" r"\!\[b\]\(c\) www\.d\.e"
    )
    assert len(ci_log.escape_markdown("a" * 10_000)) < 300


def test_markdown_link_is_escaped_and_requires_http() -> None:
    assert ci_log.format_markdown_link("a]", "https://b/c d)|`<") == (
        r"[a\]](https://b/c%20d%29%7C%60%3C)"
    )
    assert ci_log.format_markdown_link("a", "javascript:b") == "a"


def test_code_block_cannot_be_closed_by_text_and_is_shortened() -> None:
    block = ci_log.format_code_block("a\n```\n# b")
    assert block == "````text\na\n```\n# b\n````"
    assert len(ci_log.format_code_block("a" * 2_000_000)) < 30_000


def test_path_in_checkout_requires_file_inside_checkout(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for path in (checkout / "a.sql", tmp_path / "b.sql"):
        path.write_text("", encoding="utf-8")
    environ = {"GITHUB_WORKSPACE": str(checkout)}
    assert ci_log.path_in_checkout(environ, checkout / "a.sql") == "a.sql"
    for outside in ("none.sql", "../b.sql", "a\0.sql", "a" * 5000, "."):
        assert ci_log.path_in_checkout(environ, checkout / outside) is None
    assert ci_log.path_in_checkout({}, checkout / "a.sql") is None
