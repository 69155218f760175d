"""External environments of tests, which are found on this machine or built once.

`require` returns an environment, `require_program` an executable inside one:

    dbt = require_program("dbt", "dbt")     # dbt-core, in its own virtual environment
    directory = require("manifests")        # real artifacts, named by DATAPILOT_TEST_MANIFESTS

Environments are built in `.envs/` of the checkout or in DATAPILOT_TEST_ENVS. They are built once,
under a lock, and again when their requirements change. A test that needs an unavailable environment
is skipped with the reason. With DATAPILOT_TEST_REQUIRE=all it fails unless DATAPILOT_TEST_WITHOUT
lists the environment.

A test that needs an environment has one of its markers (MARKERS), so that --fast can leave it out.
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
from functools import cache, partial
from pathlib import Path

import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parents[2]

# The requirements of each environment, with exact versions so that every run tests the same.
REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "dbt": ("dbt-core==1.11.16", "dbt-duckdb==1.11.1"),
    "dbt-1.10": ("dbt-core==1.10.20", "dbt-duckdb==1.10.1"),
    "dbt-1.8": ("dbt-core==1.8.9", "dbt-duckdb==1.8.4"),
    "altimate": ("altimate-datapilot-cli==0.3.8",),
    "together": ("altimate-datapilot-cli==0.3.8", f"{REPOSITORY}[instance]"),
    "airflow": ("apache-airflow==3.3.2",),
    "node": ("@altimateai/dbt-integration@0.2.14", "node-fetch@2.7.0", "axe-core@4.14.1"),
}
# The project on each supported Python. "oldest" has the oldest dependencies that setup.cfg allows.
PYTHON_VERSIONS: Mapping[str, str] = {
    "oldest": "3.11",
    "python-3.12": "3.12",
    "python-3.13": "3.13",
}
# A test that uses an environment needs one of these markers.
MARKERS: Mapping[str, tuple[str, ...]] = {
    "dbt": ("dbt",),
    "dbt-1.10": ("dbt",),
    "dbt-1.8": ("dbt",),
    "altimate": ("peer",),
    "together": ("peer",),
    "airflow": ("airflow",),
    "node": ("peer", "browser"),
    "chromium": ("browser",),
    "gnome-keyring": ("slow",),
    "manifests": ("slow",),
    **dict.fromkeys(PYTHON_VERSIONS, ("slow",)),
}
_CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

# The variables before any test changed them. Building an environment needs the real home
# directory, proxies and package index. With PYTHONPATH, pip would find this project installed.
ENVIRONMENT: Mapping[str, str] = {
    name: value for name, value in os.environ.items() if name != "PYTHONPATH"
}


class EnvironmentUnavailable(Exception):
    """An environment that cannot be found or built. The message has the cause and a solution."""


class _CurrentTest:
    """The running test, which tests/support/markers.py sets."""

    item: pytest.Item | None = None


current_test = _CurrentTest()


def require(name: str) -> Path:
    """Return an environment, building it if necessary.

    name: a key of MARKERS. The result is the environment's directory ("node": the one that contains
    node_modules), or the executable of "chromium" and "gnome-keyring".

    Skip the test if the environment is unavailable. Fail it if DATAPILOT_TEST_REQUIRE requires the
    environment or if the test has none of its markers.
    """
    _check_marker(name)
    environment = _find_or_build(name)
    if isinstance(environment, Path):
        return environment
    optional = os.environ.get("DATAPILOT_TEST_WITHOUT", "").split(",")
    if os.environ.get("DATAPILOT_TEST_REQUIRE") == "all" and name not in optional:
        pytest.fail(f"{name} is required here: {environment}", pytrace=False)
    pytest.skip(f"{name} is not available: {environment}")


def require_program(name: str, program: str) -> Path:
    """Return an executable of a Python environment, such as `require_program("dbt", "dbt")`."""
    return executable(require(name), program)


def executable(environment: Path, name: str) -> Path:
    """Return the path of an executable in a virtual environment on this operating system."""
    if os.name == "nt":
        return environment / "Scripts" / f"{name}.exe"
    return environment / "bin" / name


def envs() -> Path:
    """Return the directory of environments: DATAPILOT_TEST_ENVS, or `.envs/` of the checkout."""
    directory = Path(ENVIRONMENT.get("DATAPILOT_TEST_ENVS") or REPOSITORY / ".envs").resolve()
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def make_once(name: str, ingredients: object, make: Callable[[Path], None]) -> Path:
    """Return `envs()/name`, built by `make(directory)` unless it exists with the same ingredients.

    ingredients: any JSON value. The directory is rebuilt when it changes.
    Other processes that need the same directory wait until it is built.
    """
    directory = envs() / name
    digest = hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()
    marker = directory / ".made-of"
    with locked(name):
        if not marker.is_file() or marker.read_text(encoding="utf-8") != digest:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            make(directory)
            marker.write_text(digest, encoding="utf-8")
    return directory


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock of `envs()/name` so that no other process rebuilds it."""
    with FileLock(envs() / f"{name}.lock"):
        yield


def run(command: Sequence[str | Path], *, directory: Path = REPOSITORY) -> str:
    """Run a command with the original environment variables and return its output.

    Raise EnvironmentUnavailable if it fails.
    """
    completed = subprocess.run(
        [str(word) for word in command],
        cwd=directory,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if completed.returncode:
        last_lines = "\n".join(completed.stdout.splitlines()[-8:])
        words = " ".join(map(str, command))
        raise EnvironmentUnavailable(f"`{words}` exited with {completed.returncode}:\n{last_lines}")
    return completed.stdout


def _check_marker(name: str) -> None:
    """Fail the current test if it has none of the environment's markers."""
    item = current_test.item
    if item is None or any(item.get_closest_marker(marker) for marker in MARKERS[name]):
        return
    markers = " or ".join(f"pytest.mark.{marker}" for marker in MARKERS[name])
    pytest.fail(f"this test needs {name}, so it needs {markers}", pytrace=False)


@cache
def _find_or_build(name: str) -> Path | EnvironmentUnavailable:
    """Find or build an environment once per process, because a second attempt would fail again."""
    special = {
        "chromium": _find_chromium,
        "gnome-keyring": _find_gnome_keyring,
        "manifests": _find_manifests,
        "node": _build_node,
        "oldest": _build_oldest,
    }
    try:
        if name in special:
            return special[name]()
        if name in PYTHON_VERSIONS:
            return _build_project(name)
        return _build_packages(name)
    except EnvironmentUnavailable as unavailable:
        return unavailable


def _build_packages(name: str) -> Path:
    """Build an environment with packages from the index."""
    requirements = REQUIREMENTS[name]
    ingredients = [sys.version, *requirements]
    if name == "together":
        ingredients.append(_project_metadata())
    return make_once(name, ingredients, partial(_make_venv, requirements=requirements))


def _build_project(name: str) -> Path:
    """Build an environment with this project on another Python."""
    python = _find_python(PYTHON_VERSIONS[name])
    requirement = f"{REPOSITORY}[instance]"
    ingredients = [python, _project_metadata(), requirement]
    make = partial(_make_venv, requirements=[requirement], python=python)
    return make_once(name, ingredients, make)


def _build_oldest() -> Path:
    """Build an environment with the oldest supported Python and dependencies."""
    python = _find_python(PYTHON_VERSIONS["oldest"])
    requirement = f"{REPOSITORY}[instance]"
    bounds = re.findall(
        r"^ +([\w.-]+)(?:\[.*\])?>=([\w.]+)$", _project_metadata(), flags=re.MULTILINE
    )
    constraints = envs() / "oldest.txt"
    lines = [f"{package}=={version}\n" for package, version in bounds]

    def make(directory: Path) -> None:
        constraints.write_text("".join(lines), encoding="utf-8")
        _make_venv(directory, requirements=[requirement], python=python, constraints=constraints)

    return make_once("oldest", [python, _project_metadata(), requirement], make)


def _project_metadata() -> str:
    return (REPOSITORY / "setup.cfg").read_text(encoding="utf-8")


def _make_venv(
    directory: Path,
    *,
    requirements: Sequence[str],
    python: str = sys.executable,
    constraints: Path | None = None,
) -> None:
    """Create a virtual environment, in which this project is editable."""
    run([python, "-m", "venv", directory])
    pip: list[str | Path] = [executable(directory, "python"), "-m", "pip", "install", "-qq"]
    words: list[str | Path] = []
    for requirement in requirements:
        if requirement.startswith(str(REPOSITORY)):
            words.append("-e")
        words.append(requirement)
    if constraints:
        words += ["-c", constraints]
    # An editable installation writes into the checkout, so it needs a lock.
    with locked("editable"):
        run([*pip, "--disable-pip-version-check", *words])


def _find_python(version: str) -> str:
    """Return a working interpreter of this version from PATH or beside this one (pyenv)."""
    name = f"python{version}"
    siblings = Path(sys.base_prefix).parent.glob(f"{version}.*/bin/{name}")
    on_path = shutil.which(name, path=ENVIRONMENT.get("PATH"))
    for candidate in (on_path, *sorted(siblings)):
        # pyenv puts a shim on PATH even if this Python is not selected.
        if candidate and _can_run([str(candidate), "--version"]):
            return str(candidate)
    raise EnvironmentUnavailable(f"no {name} on PATH or beside this Python")


def _can_run(command: Sequence[str]) -> bool:
    completed = subprocess.run(command, capture_output=True, env=ENVIRONMENT)
    return completed.returncode == 0


def _build_node() -> Path:
    """Install the npm packages."""
    npm = shutil.which("npm", path=ENVIRONMENT.get("PATH"))
    if npm is None or shutil.which("node", path=ENVIRONMENT.get("PATH")) is None:
        raise EnvironmentUnavailable("node and npm are not on PATH; install Node.js 18 or newer")
    options = ("--ignore-scripts", "--no-audit", "--no-fund")

    def make(directory: Path) -> None:
        (directory / "package.json").write_text('{"private": true}\n', encoding="utf-8")
        run([npm, "install", *options, *REQUIREMENTS["node"]], directory=directory)

    return make_once("node", REQUIREMENTS["node"], make)


def _find_chromium() -> Path:
    for name in _CHROMIUM_NAMES:
        path = shutil.which(name, path=ENVIRONMENT.get("PATH"))
        if path:
            return Path(path)
    raise EnvironmentUnavailable("no Chromium on PATH; install your system's package `chromium`")


def _find_gnome_keyring() -> Path:
    daemon = shutil.which("gnome-keyring-daemon", path=ENVIRONMENT.get("PATH"))
    if daemon is None or shutil.which("dbus-run-session", path=ENVIRONMENT.get("PATH")) is None:
        raise EnvironmentUnavailable(
            "gnome-keyring-daemon or dbus-run-session is not on PATH; "
            "install your system's packages `gnome-keyring` and `dbus`"
        )
    return Path(daemon)


def _find_manifests() -> Path:
    value = ENVIRONMENT.get("DATAPILOT_TEST_MANIFESTS")
    if not value:
        raise EnvironmentUnavailable(
            "DATAPILOT_TEST_MANIFESTS is not set; "
            "set it to a directory of real artifacts with an INDEX.tsv"
        )
    directory = Path(value).resolve()
    if not (directory / "INDEX.tsv").is_file():
        raise EnvironmentUnavailable(
            f"DATAPILOT_TEST_MANIFESTS is {directory}, which contains no INDEX.tsv"
        )
    return directory
