"""A dbt project as it lies on disk: its name, and the target folder that dbt writes artifacts to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer.errors import UsageError

_ENV_VAR = re.compile(r"""\{\{\s*env_var\(\s*['"](\w+)['"]\s*(?:,\s*['"]([^'"]*)['"]\s*)?\)\s*\}\}""")


@dataclass(frozen=True)
class Project:
    """root: the folder of dbt_project.yml. target: an absolute folder, whether or not it exists."""

    root: Path
    name: str | None
    target: Path


def find(project_dir: str | Path | None, environ: Mapping[str, str]) -> Project:
    """The project that dbt itself would take.

    project_dir: as given to dbt, else DBT_PROJECT_DIR, else the working folder or the nearest one above it that
    holds a dbt_project.yml. The target folder is DBT_TARGET_PATH, else `target-path`, else `target`; relative
    ones belong to the project. Raises UsageError when there is no project, or its file can't be understood.
    Source: dbt-core 1.11's `--project-dir` and `--target-path`; its DBT_ENGINE_* names win.
    """
    root = _root(project_dir or _variable(environ, "PROJECT_DIR"))
    settings = _settings(root / "dbt_project.yml", environ)
    target = _variable(environ, "TARGET_PATH") or settings.get("target-path") or "target"
    return Project(root, settings.get("name"), (root / target).resolve())


def _variable(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(f"DBT_ENGINE_{name}") or environ.get(f"DBT_{name}") or None


def _root(project_dir: str | Path | None) -> Path:
    if project_dir:
        root = Path(project_dir).expanduser().resolve()
        if not (root / "dbt_project.yml").is_file():
            raise UsageError(f"{root} is no dbt project: it has no dbt_project.yml")
        return root
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dbt_project.yml").is_file():
            return folder
    raise UsageError(
        f"no dbt_project.yml in {here} or above it; give --manifest-path with an absolute path, "
        "or --project-dir (Airflow's BashOperator starts in a temporary folder: see its cwd=)"
    )


def _settings(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The two values that we need of dbt_project.yml, as text."""
    import yaml

    try:
        content = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not YAML"
        raise UsageError(f"can't read {path}: {reason}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no settings; is it dbt's?")
    found = {key: content.get(key) for key in ("name", "target-path")}
    return {key: _rendered(value, path, environ) for key, value in found.items() if isinstance(value, str) and value}


def _rendered(value: str, path: Path, environ: Mapping[str, str]) -> str:
    """Replace env_var() as dbt does. Other Jinja needs dbt itself."""

    def replace(found: re.Match[str]) -> str:
        name, default = found.groups()
        if name not in environ and default is None:
            raise UsageError(f"{path} names environment variable {name}, which is not set")
        return environ.get(name, default or "")

    rendered = _ENV_VAR.sub(replace, value)
    if "{{" in rendered or "{%" in rendered:
        raise UsageError(f"{path} computes {value!r} with more than env_var(); say where the artifacts are with an option")
    return rendered
