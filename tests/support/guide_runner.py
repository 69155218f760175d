"""Runs the scripts of guides: with the shop, an instance, and a public directory like GitHub's.

`pip install`, `python3 -m venv` and `gh release upload` would need a network. Programs of the same
names take their places: the first two provide what the test environment has already, and the last
one copies the file to where GitHub would serve it.
"""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.commands import access
from tests.support.dbt_project import Shop
from tests.support.environments import REPOSITORY
from tests.support.guide_pages import GUIDES, read_blocks
from tests.support.instances import RunningInstance

COMMIT = "c0ffee5"
REPOSITORY_NAME = "acme/shop"
_PROGRAMS = {
    "pip": '[ "$1" = install ]',
    "gh": 'mkdir -p "$PUBLISHED/$GITHUB_REPOSITORY/releases/download/$3" && '
    'cp "$4" "$PUBLISHED/$GITHUB_REPOSITORY/releases/download/$3/"',
    "python3": 'if [ "$1" != -m ]; then exec "$PYTHON" "$@"; fi; '
    'mkdir -p "$3/bin" && cp "$PROGRAMS/pip" "$3/bin/pip" && ln -s "$DATAPILOT" "$DBT" "$3/bin/" '
    '&& echo "PATH=$PWD/$3/bin:\\$PATH" > "$3/bin/activate"',
}
# What each CI system sets in a job, as far as `datapilot` or a guide reads it.
_CI_VARIABLES = {
    "github-actions": {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SHA": COMMIT,
        "GITHUB_REF_NAME": "main",
        "GITHUB_REPOSITORY": REPOSITORY_NAME,
        "GITHUB_RUN_ID": "12",
    },
    "gitlab": {
        "GITLAB_CI": "true",
        "CI_COMMIT_SHA": COMMIT,
        "CI_COMMIT_REF_NAME": "main",
        "CI_JOB_URL": "https://gitlab.example.com/acme/shop/-/jobs/12",
    },
    "jenkins": {
        "JENKINS_URL": "https://jenkins.example.com/",
        "GIT_COMMIT": COMMIT,
        "GIT_BRANCH": "main",
        "BUILD_URL": "https://jenkins.example.com/job/shop/12/",
    },
}


@dataclass(frozen=True)
class Reader:
    """Who follows a guide: in a checkout of the shop, with the programs on PATH."""

    shop: Shop
    instance: RunningInstance
    directory: Path
    server_url: str

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of a shell that may use the instance as admin."""
        datapilot = Path(sys.executable).with_name("datapilot")
        programs = self.directory / "programs"
        path = [str(programs), str(datapilot.parent), str(self.shop.dbt.parent), os.environ["PATH"]]
        return {
            **self.shop.environment,
            **access(self.instance),
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHON": sys.executable,
            "PROGRAMS": str(programs),
            "PUBLISHED": str(self.directory / "published"),
            "DATAPILOT": str(datapilot),
            "DBT": str(self.shop.dbt),
        }

    def ci_environment(self, system: str) -> dict[str, str]:
        """Return the environment variables of a job, which has no token."""
        environment = {**self.environment, "CI": "true", **_CI_VARIABLES[system]}
        del environment["ALTIMATE_API_KEY"]
        environment["CI_PROJECT_DIR"] = str(self.shop.project)
        if system == "github-actions":
            environment["GITHUB_SERVER_URL"] = self.server_url
            environment["GITHUB_STEP_SUMMARY"] = str(self.directory / "summary.md")
            environment["GITHUB_OUTPUT"] = str(self.directory / "outputs")
        return environment

    def run(self, script: str, environment: Mapping[str, str]) -> str:
        """Run a script in the checkout and return both streams; it must exit with 0."""
        completed = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.shop.project,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=300,
        )
        assert completed.returncode == 0, f"{script}\n{completed.stdout}"
        return completed.stdout

    def read(self, path: str) -> str:
        """Return the text of a file of the checkout."""
        return (self.shop.project / path).read_text(encoding="utf-8")


@contextmanager
def reader(shop: Shop, instance: RunningInstance, directory: Path) -> Iterator[Reader]:
    """Return a reader of a guide, with the targets that the guides add to profiles.yml."""
    programs = directory / "programs"
    programs.mkdir()
    for name, command in _PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    _add_targets(shop)
    published = directory / "published"
    published.mkdir()
    with _serve(published) as url:
        yield Reader(shop, instance, directory, url)


def _add_targets(shop: Shop) -> None:
    """Add the targets of all YAML blocks with the profile `shop` to the shop's profiles."""
    path = shop.profiles / "profiles.yml"
    profiles = yaml.safe_load(path.read_text(encoding="utf-8"))
    for page in sorted(GUIDES.glob("*.md")):
        for info, content in read_blocks(page):
            if info == "yaml" and content.startswith("shop:"):
                profiles["shop"]["outputs"].update(yaml.safe_load(content)["shop"]["outputs"])
    path.write_text(yaml.safe_dump(profiles), encoding="utf-8")


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *args: object) -> None:
        """Log nothing."""


@contextmanager
def _serve(directory: Path) -> Iterator[str]:
    """Serve a directory on a free port of this machine."""
    handler = functools.partial(_QuietHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
