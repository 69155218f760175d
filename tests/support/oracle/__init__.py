"""The loader of dbt-core as an oracle for the tests.

The programs in this directory run in an environment with dbt.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.environments import require_program

DIRECTORY = Path(__file__).parent


class Oracle:
    """A running dbt that reports which manifests it loads."""

    def __init__(self, process: "subprocess.Popen[str]", directory: Path) -> None:
        self._process = process
        self._file = directory / "manifest.json"

    def loads(self, content: bytes) -> bool:
        """Return whether dbt loads this content as the manifest of a state."""
        self._file.write_bytes(content)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._file}\n")
        self._process.stdin.flush()
        return bool(json.loads(self._process.stdout.readline())["loads"])


@contextmanager
def running(directory: Path, *options: str) -> Iterator[Oracle]:
    """Run the loader of dbt-core 1.11. directory: the directory for its input files."""
    command = [str(require_program("dbt", "python")), str(DIRECTORY / "loader.py"), *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=directory, encoding="utf-8"
    ) as process:
        yield Oracle(process, directory)
        assert process.stdin is not None
        process.stdin.close()


def classes(directory: Path) -> Iterator[dict[str, object]]:
    """Yield the values that each class of the manifest accepts, as printed by classes.py."""
    command = [str(require_program("dbt", "python")), str(DIRECTORY / "classes.py")]
    completed = subprocess.run(
        command, stdout=subprocess.PIPE, cwd=directory, encoding="utf-8", check=True
    )
    yield from map(json.loads, completed.stdout.splitlines())
