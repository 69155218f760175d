"""Run a command and count how often it opens, hashes and splits files.

    python -m tests.support.counted_command COUNTS_FILE COMMAND [ARGUMENT ...]

Runs `datapilot COMMAND …` and writes the counts to COUNTS_FILE as one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.support.environments import REPOSITORY

# Names and settings are hashed, too, but only artifacts are this large.
_MIN_ARTIFACT_BYTES = 2_000


@dataclass(frozen=True)
class Counts:
    """Counts of one command.

    opened: how often each file name was opened for reading. written: the same for writing.
    hashed, split: how often the content of an artifact was hashed or split.
    """

    opened: Mapping[str, int]
    written: Mapping[str, int]
    hashed: int
    split: int


def count_command(
    counts_file: Path, *arguments: object, directory: Path, env: Mapping[str, str]
) -> Counts:
    """Run `datapilot ARGUMENTS` in a new process and return its counts."""
    command = [sys.executable, "-m", "tests.support.counted_command", counts_file, *arguments]
    search_path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [str(word) for word in command],
        cwd=directory,
        env={**os.environ, **env, "PYTHONPATH": search_path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Counts(**json.loads(counts_file.read_text(encoding="utf-8")))


def main() -> None:
    """Run the command in the arguments and write its counts."""
    counts_file = Path(sys.argv[1])
    opened: Counter[str] = Counter()
    written: Counter[str] = Counter()
    hashed = _count_hashes()
    split = _count_splits()

    opening = ""

    def observe(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal opening
        if event != "open" or not isinstance(arguments[0], str):
            return
        path, mode, flags = arguments
        # `open` with an opener reports the file twice, the second time from the opener.
        is_reported_again = mode is None and path == opening
        opening = path if mode is not None else ""
        if not is_reported_again:
            is_written = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            names = written if is_written else opened
            names[Path(path).name] += 1

    sys.addaudithook(observe)
    from datapilot_defer.cli.main import root

    try:
        root(sys.argv[2:], prog_name="datapilot")
    finally:
        counts = Counts(dict(opened), dict(written), len(hashed), len(split))
        counts_file.write_text(json.dumps(asdict(counts)), encoding="utf-8")


def _count_hashes() -> list[int]:
    """Replace `sha256` by a version that adds the size of each artifact to the returned list."""
    sizes: list[int] = []
    original = hashlib.sha256

    class CountedHash:
        def __init__(self, content: bytes = b"") -> None:
            self._hash = original(content)
            self._size = len(content)

        def update(self, content: bytes) -> None:
            self._hash.update(content)
            self._size += len(content)

        def hexdigest(self) -> str:
            if self._size >= _MIN_ARTIFACT_BYTES:
                sizes.append(self._size)
            return self._hash.hexdigest()

    hashlib.sha256 = CountedHash  # type: ignore[assignment]
    return sizes


def _count_splits() -> list[int]:
    """Replace `dbt_json.split` by a version that adds each size to the returned list."""
    from datapilot_defer import dbt_json

    sizes: list[int] = []
    original = dbt_json.split

    def count_and_split(content: bytes) -> Any:
        sizes.append(len(content))
        return original(content)

    dbt_json.split = count_and_split
    return sizes


if __name__ == "__main__":
    main()
