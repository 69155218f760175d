"""Jobs of CI systems that check output for commands and forged lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer import ci
from tests.support.ci_readers import find_commands
from tests.support.commands import Outcome, datapilot

_ESCAPED = r"(?:\\[!-/:-@\[-`{-~]|[^!-/:-@\[-`{-~\n])*"
_OWN_MARKDOWN = re.compile(
    rf"|### {_ESCAPED}: (?:failed|rejected|not confirmed)"
    rf"|### (?:Onboarded to|Unchanged in) \[{_ESCAPED}\]\(https?://[^\s()<>|`\\]*\)"
    r"|\| artifact \| bytes \| dbt \| sha256 \||\|---\|---:\|---\|---\|"
    rf"|\| \w+ \| [\d,]+ \| {_ESCAPED} \| `[0-9a-f]{{64}}` \|"
)
_OWN_OUTPUT = re.compile(r"(?:sha256=[0-9a-f]{64}|file-id=\d+|status-url=[^\s]*)")


@dataclass(frozen=True)
class Job:
    """A job of a CI system in which commands run."""

    system: ci.CiSystem
    directory: Path

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment variables of the job."""
        return {
            self.system.marker: "true",
            "GITHUB_STEP_SUMMARY": str(self._summary),
            "GITHUB_OUTPUT": str(self._outputs),
            "PATH": str(self.directory),
        }

    def check(self, *words: object, env: Mapping[str, str]) -> None:
        """Run a command in each output format and fail if the system would obey the output."""
        for more in ([], ["--json"], ["--log-format", "json", "-v"]):
            done = datapilot(*words, *more, env={**self.environ, **env})
            self.check_output(done)
            if "--json" in more:
                assert isinstance(done.json, dict)

    def check_output(self, done: Outcome) -> None:
        """Fail if any system would obey a line of the output, the summary or the job's outputs."""
        on_github = self.system is ci.GITHUB_ACTIONS
        assert find_commands(done.stdout, on_github=False) == []
        assert find_commands(done.stderr, on_github=on_github) == []
        if self._summary.exists():
            summary = self._summary.read_text(encoding="utf-8")
            unexpected = [
                line for line in _outside_code(summary) if not _OWN_MARKDOWN.fullmatch(line)
            ]
            assert unexpected == []
        if self._outputs.exists():
            lines = self._outputs.read_text(encoding="utf-8").splitlines()
            assert [line for line in lines if not _OWN_OUTPUT.fullmatch(line)] == []

    @property
    def _summary(self) -> Path:
        return self.directory / "summary"

    @property
    def _outputs(self) -> Path:
        return self.directory / "outputs"


def _outside_code(markdown: str) -> Iterator[str]:
    """Yield the lines outside fenced code blocks. A closing fence is at least as long."""
    fence = ""
    for line in markdown.split("\n"):
        run = re.match(r" {0,3}(`{3,})", line)
        if fence:
            if run and len(run[1]) >= len(fence) and not line.strip().strip("`"):
                fence = ""
        elif run and line[run.end() :] == "text":
            fence = run[1]
        else:
            yield line
