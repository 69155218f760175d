"""dbt-core's own loader as an oracle for the tests.

The programs in this directory run in an environment with dbt.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.environments import require_program

FOLDER = Path(__file__).parent


class Oracle:
    """A running dbt that reports which manifests it loads."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self._process = process
        self._file = folder / "asked.json"

    def loads(self, content: bytes) -> bool:
        """Return whether dbt loads a manifest with these bytes to defer to it."""
        self._file.write_bytes(content)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._file}\n")
        self._process.stdin.flush()
        return bool(json.loads(self._process.stdout.readline())["loads"])


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Oracle]:
    """Run the loader of dbt-core 1.11; the directory is for its input files."""
    command = [str(require_program("dbt", "python")), str(FOLDER / "loader.py"), *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, encoding="utf-8"
    ) as process:
        yield Oracle(process, folder)
        assert process.stdin is not None
        process.stdin.close()


def classes(folder: Path) -> Iterator[dict[str, object]]:
    """Yield which values each class of the manifest accepts; see classes.py."""
    command = [str(require_program("dbt", "python")), str(FOLDER / "classes.py")]
    completed = subprocess.run(
        command, stdout=subprocess.PIPE, cwd=folder, encoding="utf-8", check=True
    )
    yield from map(json.loads, completed.stdout.splitlines())
