"""Run `datapilot` as a user other than root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
USER_ID = 65534
# Import every module before the user changes, because the other user may not be able to read them.
_SCRIPT = """
import os, sys, tempfile
import datapilot_defer.instance.serve
from datapilot_defer.cli.main import root

def run(arguments):
    try:
        root(arguments, prog_name="datapilot")
    except SystemExit as end:
        return end.code

with tempfile.TemporaryDirectory() as scratch:
    run(["instance", "init", "--data", scratch, "--instance-name", "warm-up"])
print("BEGIN")
print("BEGIN", file=sys.stderr)
sys.stdout.flush()
os.setgroups([int(group) for group in sys.argv[2].split(",") if group])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
sys.exit(run(sys.argv[3:]))
"""

needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can switch to another user"
)


def run_as_other_user(
    *arguments: object, groups: Sequence[int] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `datapilot ARGUMENTS` as the user USER_ID, with these supplementary groups."""
    # The other user cannot write coverage data.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }
    result = subprocess.run(
        [
            *(sys.executable, "-c", _SCRIPT, str(USER_ID), ",".join(map(str, groups))),
            *(str(argument) for argument in arguments),
        ],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    result.stdout = result.stdout.partition("BEGIN\n")[2]
    result.stderr = result.stderr.partition("BEGIN\n")[2]
    return result
