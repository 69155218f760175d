"""The user's dbt executable and its version. dbt is run, never imported."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.config import without_tokens
from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDEST_SUPPORTED = (1, 5)
_VERSION_TIMEOUT_S = 60.0  # `dbt --version` imports every adapter and queries the package index
_SHEBANG = re.compile(
    rb"#!\s*(?P<direct>\S*python[^\s/]*)\s|'''exec'\s+\"?(?P<long>[^\"\n]*python[^\s/\"]*)\"?\s"
)
_SHEBANG_BYTES = 1024
_INSTALLED = re.compile(
    r"(?:installed:|dbt-fusion|dbt-core|^dbt)\s+v?(\d+\.\d+[\w.+-]*)", re.MULTILINE
)
_DBT_CORE_VERSION = "from importlib.metadata import version; print(version('dbt-core'))"


@dataclass(frozen=True)
class DbtInstallation:
    """An installed dbt executable and its version, such as "1.11.16"."""

    path: Path
    version: str

    @property
    def major_minor(self) -> tuple[int, int]:
        """Return the major and minor version."""
        major, minor = re.findall(r"\d+", self.version)[:2]
        return int(major), int(minor)

    @property
    def version_series(self) -> str:
        """Return the release series, such as "1.8", "1.11" or "2".

        All versions of a series read the same manifests.
        """
        major, minor = self.major_minor
        if major == 1:
            return f"{major}.{minor}"
        return str(major)


def find_dbt(executable: str | None, environ: Mapping[str, str]) -> DbtInstallation:
    """Return the dbt with this path or name; None selects the one on PATH.

    Raises UsageError if it does not exist, does not report its version, is older than 1.5, or is
    the dbt Cloud CLI, which does not accept a state directory.
    """
    path = locate_executable(executable, environ)
    if path is None:
        problem = "dbt is not on PATH"
        if executable:
            problem = f"no dbt at {executable}"
        raise UsageError(
            f"{problem}. Activate the virtual environment that contains dbt, or set the "
            "path of dbt with --dbt (or DATAPILOT_DBT)"
        )
    dbt = DbtInstallation(path, _detect_version(path, environ))
    if dbt.major_minor < OLDEST_SUPPORTED:
        raise UsageError(f"{path} is dbt {dbt.version}. dbt 1.5 or newer is required")
    return dbt


def locate_executable(executable: str | None, environ: Mapping[str, str]) -> Path | None:
    """Return the absolute path of the executable, without running it; None if it does not exist."""
    path = shutil.which(executable or "dbt", path=environ.get("PATH"))
    if path is None:
        return None
    return Path(path).absolute()


def _detect_version(path: Path, environ: Mapping[str, str]) -> str:
    return _ask_interpreter(path, environ) or _ask_dbt(path, environ)


def _ask_interpreter(path: Path, environ: Mapping[str, str]) -> str | None:
    """Return the version of a dbt-core that pip installed, as its Python reports it, or None.

    This is twenty times faster than asking dbt.
    """
    python = _find_interpreter(path)
    if python is None:
        return None
    # `python -c` imports from its current directory, which must not be the user's own.
    output = _capture_output([python, "-c", _DBT_CORE_VERSION], environ, path.parent).strip()
    if re.fullmatch(r"\d+\.\d+\S*", output):
        return output
    return None


def _ask_dbt(path: Path, environ: Mapping[str, str]) -> str:
    output = _capture_output([str(path), "--version"], environ)
    if "Cloud CLI" in output:
        raise UsageError(
            f"{path} is the dbt Cloud CLI, which defers on the platform. Set the path of "
            "dbt Core with --dbt"
        )
    match = _INSTALLED.search(output)
    if match is None:
        raise UsageError(f"{path} does not report its version. Check that `{path} --version` works")
    return match.group(1)


def _find_interpreter(path: Path) -> str | None:
    """Return the Python interpreter of an executable that pip installed, or None."""
    if path.suffix.lower() == ".exe":
        python = path.with_name("python.exe")
    else:
        python = Path(_read_shebang(path))
    if not python.is_file():
        return None
    return str(python)


def _read_shebang(path: Path) -> str:
    """Return the Python interpreter that runs a script; "" if there is none."""
    try:
        with path.open("rb") as file:
            match = _SHEBANG.search(file.read(_SHEBANG_BYTES))
    except OSError:
        return ""
    if match is None:
        return ""
    interpreter: bytes = match["direct"] or match["long"]
    return interpreter.decode(errors="replace")


def _capture_output(
    command: list[str], environ: Mapping[str, str], directory: Path | None = None
) -> str:
    """Return stdout and stderr of a command; "" if it cannot be run or takes too long."""
    try:
        result = subprocess.run(
            command,
            cwd=directory,
            env=without_tokens(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.decode("utf-8", "replace")
