"""Clients and servers of earlier releases, run from unpacked wheels.

They use the libraries of the environment in which the tests run.
"""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.server_process import INSTANCE_NAME, Checkout

WHEELS = Path(__file__).resolve().parents[1] / "artifacts" / "releases"


def unpack_release(version: str, directory: Path) -> Checkout:
    """Unpack the wheel of a release into a new directory and return it as a checkout."""
    with zipfile.ZipFile(WHEELS / f"datapilot_defer-{version}-py3-none-any.whl") as wheel:
        wheel.extractall(directory)
    return Checkout(directory)


@dataclass(frozen=True)
class ReleaseClient:
    """The command line of a release, configured for one instance, with an empty home directory."""

    checkout: Checkout
    url: str
    token: str = field(repr=False)
    home: Path

    def run(self, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        cache = self.home / "cache"
        environ = {
            **self.checkout.environ(),
            "ALTIMATE_URL": self.url,
            "ALTIMATE_INSTANCE_NAME": INSTANCE_NAME,
            "ALTIMATE_API_KEY": self.token,
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(cache),
            "PATH": os.defpath,
        }
        return subprocess.run(
            self.checkout.command(*map(str, words)),
            cwd=cwd or self.checkout.directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
        )

    def read(self, *words: object, cwd: Path | None = None) -> Any:
        """Run a command that must succeed and return the JSON that it prints."""
        done = self.run(*words, "--json", cwd=cwd)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])
