"""The real parts that the tests run against: found on this machine, or made once and kept.

A part is asked for with `need`; programs inside it with `program`:

    dbt = require_program("dbt", "dbt")             # the executable of dbt-core, in an environment of its own
    folder = require("manifests")              # a folder of real artifacts, named by DATAPILOT_TEST_MANIFESTS

Environments live under `.envs/` of the checkout, or where DATAPILOT_TEST_ENVS says. Each is made once, under
a lock, and again when its row of `REQUIREMENTS` changes. A part that can't be had skips the test, saying why;
with DATAPILOT_TEST_REQUIRE=all it fails the test instead, unless DATAPILOT_TEST_WITHOUT lists it (`manifests,oldest`).
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parents[2]

# One row per environment, exact versions: what a test saw yesterday it sees today.
REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "dbt": ("dbt-core==1.11.16", "dbt-duckdb==1.11.1"),
    "dbt-1.10": ("dbt-core==1.10.20", "dbt-duckdb==1.10.1"),
    "dbt-1.8": ("dbt-core==1.8.9", "dbt-duckdb==1.8.4"),
    "altimate": ("altimate-datapilot-cli==0.3.8",),
    "together": ("altimate-datapilot-cli==0.3.8", f"{REPOSITORY}[instance]"),
    "oldest": (
        f"{REPOSITORY}[instance]",
    ),  # CPython 3.10, each dependency as old as setup.cfg admits
    "airflow": ("apache-airflow==3.3.2",),
    "node": ("@altimateai/dbt-integration@0.2.14", "node-fetch@2.7.0", "axe-core@4.14.1"),
}
_CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

# As it was before any test changed it: what makes a part needs the real home folder, proxies and package index.
ENVIRONMENT: Mapping[str, str] = dict(os.environ)


class EnvironmentUnavailable(Exception):
    """A part can't be had here; `str()` of it says why and what would help."""


def require(part: str) -> Path:
    """Give a real part, making it when it isn't there yet.

    part: a row of `REQUIREMENTS` (the environment's folder; "node": the folder that holds node_modules),
    "chromium" or "gnome-keyring" (the executable), or "manifests" (the folder of real artifacts).

    A part that can't be had skips the test, or fails it when DATAPILOT_TEST_REQUIRE says so.
    """
    found = _look_for(part)
    if isinstance(found, Path):
        return found
    excused = os.environ.get("DATAPILOT_TEST_WITHOUT", "").split(",")
    if os.environ.get("DATAPILOT_TEST_REQUIRE") == "all" and part not in excused:
        pytest.fail(f"{part} is required here: {found}", pytrace=False)
    pytest.skip(f"without {part}: {found}")


def require_program(part: str, name: str) -> Path:
    """Give the executable `name` of a Python environment, such as `require_program("dbt", "dbt")`; else as `need`."""
    return executable(require(part), name)


def executable(environment: Path, name: str) -> Path:
    """Give the path of an executable in a virtual environment, on this operating system."""
    return (
        environment / "Scripts" / f"{name}.exe" if os.name == "nt" else environment / "bin" / name
    )


def envs() -> Path:
    """Give the folder that keeps what is made once: `.envs/` of the checkout, or DATAPILOT_TEST_ENVS."""
    folder = Path(ENVIRONMENT.get("DATAPILOT_TEST_ENVS") or REPOSITORY / ".envs").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def make_once(name: str, ingredients: object, make: Callable[[Path], None]) -> Path:
    """Give `envs()/name`, made by `make(folder)` unless it was already made of the same ingredients.

    ingredients: anything JSON; a change of it makes the folder anew.
    A second process that wants the same folder waits for the first.
    """
    folder, wanted = envs() / name, hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()
    marker = folder / ".made-of"
    with locked(name):
        if not marker.is_file() or marker.read_text(encoding="utf-8") != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            marker.write_text(wanted, encoding="utf-8")
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock of `envs()/name`, so that nobody makes it anew meanwhile."""
    with FileLock(envs() / f"{name}.lock"):
        yield


def run(command: Sequence[str | Path], *, folder: Path = REPOSITORY) -> str:
    """Run a command that makes a part, outside all isolation; gives its output. Raises EnvironmentUnavailable when it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-8:])
        raise EnvironmentUnavailable(
            f"`{' '.join(map(str, command))}` ended with {done.returncode}:\n{last}"
        )
    return done.stdout


@cache
def _look_for(part: str) -> Path | EnvironmentUnavailable:
    """Find or make a part, once per process: what failed once would only fail slowly again."""
    try:
        match part:
            case "chromium":
                return _chromium()
            case "gnome-keyring":
                return _gnome_keyring()
            case "manifests":
                return _manifests()
            case "node":
                return make_once(part, REQUIREMENTS[part], _make_node)
            case "oldest":
                return make_once(
                    part, [_oldest_python(), _metadata(), *REQUIREMENTS[part]], _make_oldest
                )
            case _:
                return make_once(
                    part,
                    _ingredients(part),
                    lambda folder: _make_python(folder, REQUIREMENTS[part]),
                )
    except EnvironmentUnavailable as missing:
        return missing


def _ingredients(part: str) -> list[str]:
    return [sys.version, *REQUIREMENTS[part], *([_metadata()] if part == "together" else [])]


def _metadata() -> str:
    return (REPOSITORY / "setup.cfg").read_text(encoding="utf-8")


def _make_python(
    folder: Path,
    requirements: Sequence[str],
    *,
    python: str = sys.executable,
    constraints: Path | None = None,
) -> None:
    run([python, "-m", "venv", folder])
    words = [
        word
        for each in requirements
        for word in (["-e", each] if each.startswith(str(REPOSITORY)) else [each])
    ]
    words += ["-c", str(constraints)] if constraints else []
    run(
        [
            executable(folder, "python"),
            "-m",
            "pip",
            "install",
            "-qq",
            "--disable-pip-version-check",
            *words,
        ]
    )


def _make_oldest(folder: Path) -> None:
    bounds = re.findall(r"^ +([\w.-]+)(?:\[.*\])?>=([\w.]+)$", _metadata(), flags=re.MULTILINE)
    constraints = envs() / "oldest.txt"
    constraints.write_text(
        "".join(f"{name}=={version}\n" for name, version in bounds), encoding="utf-8"
    )
    _make_python(folder, REQUIREMENTS["oldest"], python=_oldest_python(), constraints=constraints)


def _oldest_python() -> str:
    siblings = sorted(
        Path(sys.base_prefix).parent.glob("3.10.*/bin/python3.10")
    )  # as pyenv keeps them
    for found in (shutil.which("python3.10", path=ENVIRONMENT.get("PATH")), *siblings):
        # A shim of pyenv is on PATH also where its Python is not.
        if (
            found
            and subprocess.run(
                [found, "--version"], capture_output=True, env=ENVIRONMENT
            ).returncode
            == 0
        ):
            return str(found)
    raise EnvironmentUnavailable("no python3.10 on PATH or beside this Python")


def _make_node(folder: Path) -> None:
    npm = shutil.which("npm", path=ENVIRONMENT.get("PATH"))
    if npm is None or shutil.which("node", path=ENVIRONMENT.get("PATH")) is None:
        raise EnvironmentUnavailable("node and npm are not on PATH; install Node.js 18 or newer")
    (folder / "package.json").write_text('{"private": true}\n', encoding="utf-8")
    run(
        [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", *REQUIREMENTS["node"]],
        folder=folder,
    )


def _chromium() -> Path:
    for name in _CHROMIUM_NAMES:
        found = shutil.which(name, path=ENVIRONMENT.get("PATH"))
        if found:
            return Path(found)
    raise EnvironmentUnavailable("no Chromium on PATH; install your system's package `chromium`")


def _gnome_keyring() -> Path:
    found = shutil.which("gnome-keyring-daemon", path=ENVIRONMENT.get("PATH"))
    if found is None or shutil.which("dbus-run-session", path=ENVIRONMENT.get("PATH")) is None:
        raise EnvironmentUnavailable(
            "a keyring of its own needs the system's packages `gnome-keyring` and `dbus`"
        )
    return Path(found)


def _manifests() -> Path:
    named = ENVIRONMENT.get("DATAPILOT_TEST_MANIFESTS")
    if not named:
        raise EnvironmentUnavailable(
            "DATAPILOT_TEST_MANIFESTS is not set; it names a folder of real artifacts with an INDEX.tsv"
        )
    folder = Path(named).resolve()
    if not (folder / "INDEX.tsv").is_file():
        raise EnvironmentUnavailable(
            f"DATAPILOT_TEST_MANIFESTS names {folder}, which holds no INDEX.tsv"
        )
    return folder
