"""The user's dbt: where it is and which version. It is run, never imported."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer.errors import UsageError

OLDEST_SUPPORTED = (1, 5)
_VERSION_TIMEOUT_S = 60.0  # `dbt --version` imports every adapter and asks the package index
_SHEBANG = re.compile(
    rb"#!\s*(?P<direct>\S*python[^\s/]*)\s|'''exec'\s+\"?(?P<long>[^\"\n]*python[^\s/\"]*)\"?\s"
)
_INSTALLED = re.compile(
    r"(?:installed:|dbt-fusion|dbt-core|^dbt)\s+v?(\d+\.\d+[\w.+-]*)", re.MULTILINE
)


@dataclass(frozen=True)
class DbtInstallation:
    """An installed dbt. version: such as "1.11.16"."""

    path: Path
    version: str

    @property
    def major_minor(self) -> tuple[int, int]:
        """Major and minor."""
        major, minor = re.findall(r"\d+", self.version)[:2]
        return int(major), int(minor)

    @property
    def version_series(self) -> str:
        """The versions that read the same manifests: "1.8", "1.11", "2"."""
        major, minor = self.major_minor
        return f"{major}.{minor}" if major == 1 else str(major)


def find_dbt(given: str | None, environ: Mapping[str, str]) -> DbtInstallation:
    """The dbt that was named, else the one on PATH.

    given: a path or a name. Raises UsageError when it is not there, does not say its version, is older than 1.5, or
    is the dbt Cloud CLI, which does not take a state directory of ours.
    """
    path = locate_executable(given, environ)
    if path is None:
        what = f"no dbt at {given}" if given else "dbt is not on PATH"
        raise UsageError(
            f"{what}: activate the environment that has it, or name it with --dbt (or DATAPILOT_DBT)"
        )
    dbt = DbtInstallation(path, _detect_version(path, environ))
    if dbt.major_minor < OLDEST_SUPPORTED:
        raise UsageError(
            f"{path} is dbt {dbt.version}, which can't be used here: dbt 1.5 or newer is needed"
        )
    return dbt


def locate_executable(given: str | None, environ: Mapping[str, str]) -> Path | None:
    """The path of dbt's executable, or None. Costs nothing."""
    found = shutil.which(given or "dbt", path=environ.get("PATH"))
    return Path(found).absolute() if found else None


def _detect_version(path: Path, environ: Mapping[str, str]) -> str:
    python = _find_interpreter(path)
    if python is not None:
        code = "from importlib.metadata import version; print(version('dbt-core'))"
        said = _capture_output([python, "-c", code], environ, path.parent)
        if said and re.fullmatch(r"\d+\.\d+\S*", said.strip()):
            return said.strip()
    said = _capture_output([str(path), "--version"], environ)
    if "Cloud CLI" in said:
        raise UsageError(
            f"{path} is the dbt Cloud CLI, which defers on the platform by itself; name a dbt Core with --dbt"
        )
    found = _INSTALLED.search(said)
    if found is None:
        raise UsageError(
            f"{path} does not say which version of dbt it is; does `{path} --version` work?"
        )
    return found.group(1)


def _find_interpreter(path: Path) -> str | None:
    """The interpreter that runs a dbt installed by pip: asking it is twenty times faster than asking dbt."""
    beside = path.with_name("python.exe")
    if path.suffix.lower() == ".exe":
        return str(beside) if beside.is_file() else None
    try:
        with path.open("rb") as file:
            found = _SHEBANG.search(file.read(1024))
    except OSError:
        return None
    python = (found["direct"] or found["long"]).decode(errors="replace") if found else ""
    return python if python and Path(python).is_file() else None


def _capture_output(
    command: list[str], environ: Mapping[str, str], folder: Path | None = None
) -> str:
    """What a command prints. folder: where it runs; `python -c` imports from there, so never the user's own."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")
