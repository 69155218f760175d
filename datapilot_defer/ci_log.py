"""Output that a CI system interprets: commands in a log, annotations, a summary, step outputs.

CI systems interpret a line of a log as a command if it begins with a marker, and some also if it
contains one. Text from outside must not become a command: for example, an uploader controls the dbt
version, and an instance controls its error messages. Only `format_annotation` writes a command.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from datapilot_defer.ci import is_github
from datapilot_defer.formatting import as_one_line, escape_controls

if TYPE_CHECKING:
    from collections.abc import Mapping

# Source: the parsers of the runners. Azure Pipelines finds "##vso[" anywhere in a line, GitHub
# "##[", TeamCity "##teamcity[", Airflow "::group::".
_MARKER_ANYWHERE = re.compile(r"#(?=#(?:vso|\w*\[))|:(?=:(?:end)?group:)", re.IGNORECASE)
# GitHub skips white space before "::". The other markers begin a group on Buildkite.
_MARKER_AT_START = re.compile(r"^([^\S\n]*)(?:(:)(?=:)|([-+~^])(?=\3\3))", re.MULTILINE)
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_BACKTICKS = re.compile(r"`+")
_SAFE_IN_URL = ":/?#@!$&'*+,;=%~"
# GitHub drops a summary of more than 1 MiB, including what earlier commands of the step added.
_MAX_FILE_BYTES = 1024 * 1024
_MAX_SUMMARY_LENGTH = 20_000
_MAX_CELL_LENGTH = 250


def neutralize(text: str) -> str:
    """Replace control characters, and change the text so that no line of it is a CI command.

    A space separates the characters of a marker, so that it remains readable: `: :error::`.
    """
    separated = _MARKER_ANYWHERE.sub(r"\g<0> ", escape_controls(text))
    return _MARKER_AT_START.sub(r"\1\2\3 ", separated)


def escape_json(text: str) -> str:
    """Return JSON with the same value, in one line that contains no marker of a command."""
    escaped = _MARKER_ANYWHERE.sub(_escape_character, text)
    characters = list(escaped)
    for index, character in enumerate(characters):
        if not character.isprintable():
            characters[index] = json.dumps(character)[1:-1]
    return "".join(characters)


def _escape_character(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def format_annotation(level: str, text: str, file: str | None = None) -> str:
    """Return the GitHub workflow command that shows a text on the page of the run.

    level: "error" or "warning". file: the file that the text is about, relative to the repository.
    Percent signs and line breaks are escaped in the message; in a property, colons and commas are
    escaped too. Source: "Workflow commands for GitHub Actions".
    """
    properties = "title=datapilot"
    if file is not None:
        path = _escape_data(file).replace(":", "%3A").replace(",", "%2C")
        properties = f"file={path},{properties}"
    return f"::{level} {properties}::{_escape_data(text)}"


def _escape_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def path_in_checkout(environ: Mapping[str, str], path: Path) -> str | None:
    """Return the path of a file relative to the checkout of this GitHub job.

    Returns None if there is no checkout, or if the path is not a file in it.
    """
    checkout = environ.get("GITHUB_WORKSPACE")
    if not checkout:
        return None
    try:
        resolved = path.resolve()
        if not resolved.is_file():
            return None
        return resolved.relative_to(Path(checkout).resolve()).as_posix()
    except (OSError, ValueError):
        return None


def escape_markdown(text: str) -> str:
    """Return Markdown that shows a text in one line without markup, shortened if it is long."""
    line = as_one_line(text)
    if len(line) > _MAX_CELL_LENGTH:
        line = f"{line[:_MAX_CELL_LENGTH]}…"
    return _PUNCTUATION.sub(r"\\\1", line)


def format_markdown_link(text: str, url: str) -> str:
    """Return a Markdown link for untrusted text. A URL other than http or https is omitted."""
    label = escape_markdown(text)
    if not url.startswith(("https://", "http://")):
        return label
    return f"[{label}]({quote(url, safe=_SAFE_IN_URL)})"


def format_code_block(text: str) -> str:
    """Return a Markdown code block with a text, shortened if it is long."""
    shown = escape_controls(text)
    if len(shown) > _MAX_SUMMARY_LENGTH:
        shown = f"{shown[:_MAX_SUMMARY_LENGTH]}\n… (the log has the rest)"
    longest = max((len(run) for run in _BACKTICKS.findall(shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"


def append_summary(environ: Mapping[str, str], markdown: str) -> None:
    """Append Markdown to the summary of this GitHub job; do nothing elsewhere."""
    _append_to_file(environ, "GITHUB_STEP_SUMMARY", f"{markdown}\n\n")


def append_outputs(environ: Mapping[str, str], values: Mapping[str, str]) -> None:
    """Set outputs of this step of a GitHub job, each as one line; do nothing elsewhere."""
    lines = [f"{name}={as_one_line(value)}\n" for name, value in values.items()]
    _append_to_file(environ, "GITHUB_OUTPUT", "".join(lines))


def _append_to_file(environ: Mapping[str, str], variable: str, text: str) -> None:
    if not environ.get(variable) or not is_github(environ):
        return
    path = Path(environ[variable])
    try:
        if path.exists() and not path.is_file():
            return  # writing to a pipe may block forever
        # A file name may contain bytes that are not text.
        added = text.encode(errors="backslashreplace")
        with path.open("ab") as file:
            if file.tell() + len(added) > _MAX_FILE_BYTES:
                return
            file.write(added)
    except (OSError, ValueError):
        # A full or read-only disk of the runner must not fail an upload that succeeded.
        return
