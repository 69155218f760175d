"""The check that a manifest has a node in common with a project or its packages.

dbt matches nodes by unique ID alone, `model.<package>.<model>`. Without a common node it silently
defers nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from datapilot_defer.artifact import Artifact
from datapilot_defer.console import Log
from datapilot_defer.dbt_project import PROJECT_FILE, DbtProject, read_project
from datapilot_defer.defer.nodes import list_unique_ids, read_defining_files
from datapilot_defer.errors import ArtifactRefused, UsageError
from datapilot_defer.yaml_file import read_yaml_file

_PACKAGE_FILES = ("packages.yml", "dependencies.yml")
# dbt 1.7 and later record all packages in this file, including indirect ones.
_PACKAGE_LOCK = "package-lock.yml"
_PACKAGE_KEYS = ("package", "git", "local", "tarball", "private", "subdirectory")
# dbt 2.x reads these variables. dbt 1.x does not.
_INSTALL_PATH_VARIABLES = ("DBT_PACKAGES_INSTALL_PATH", "DBT_ENGINE_PACKAGES_INSTALL_PATH")


def check_overlap(
    manifest: Artifact, project: DbtProject, *, environ: Mapping[str, str], console: Log
) -> None:
    """Raise ArtifactRefused for a manifest without a node of the project or of its packages.

    Warn instead if not all packages are installed, because they cannot be checked. Also warn if all
    common nodes are in packages, and the manifest is not of one of these packages.
    """
    nodes = _ManifestNodes(manifest)
    if nodes.are_in(project):
        return
    manifest_project = manifest.metadata.project_name
    shared = [package.name for package in _find_shared_packages(project, nodes, environ)]
    if not shared and _lacks_packages(project, environ):
        console.warn(
            f"{_describe_mismatch(project, manifest_project)}. Skipping the check whether "
            "the manifest is of a package of this project, because not all of them are "
            "installed. Run `dbt deps`."
        )
    elif not shared:
        is_namesake = project.name in nodes.names_by_package
        raise _no_overlap_error(project, manifest_project, is_namesake=is_namesake)
    elif manifest_project not in (None, *shared):
        console.warn(
            f"{_describe_mismatch(project, manifest_project)}. Only models of the package "
            f"{', '.join(sorted(shared))} can be deferred"
        )


class _ManifestNodes:
    """The nodes of a manifest. names_by_package: their names, with and without a version."""

    def __init__(self, manifest: Artifact) -> None:
        self._manifest = manifest
        self.names_by_package: dict[str, set[str]] = {}
        for unique_id in list_unique_ids(manifest):
            _, _, rest = unique_id.partition(".")
            package, _, name = rest.partition(".")
            names = self.names_by_package.setdefault(package, set())
            names.add(name.replace(".", "_"))
            names.add(name.partition(".")[0])

    def are_in(self, project: DbtProject) -> bool:
        """Return whether some of the nodes are models, seeds or snapshots of this project.

        For a project without files of its own, only the package name is compared.
        """
        names = self.names_by_package.get(project.name)
        if names is None:
            return False
        project_names = {path.stem for path in project.sources}
        if not project_names or not project_names.isdisjoint(names):
            return True
        # A snapshot, or a version with `defined_in`, may have a different name from its file.
        paths = read_defining_files(self._manifest, project.name)
        return any(_has_file(project.folder, path) for path in paths)


def _has_file(folder: Path, path: str) -> bool:
    """Return whether a file exists in a directory. path: relative, with any system's separators."""
    file = os.path.normpath(folder / path.replace("\\", "/"))
    return Path(file).is_relative_to(folder) and os.path.isfile(file)  # noqa: PTH113 - never raises


def _find_shared_packages(
    project: DbtProject, nodes: _ManifestNodes, environ: Mapping[str, str]
) -> Iterator[DbtProject]:
    """Yield the installed packages that have a node in the manifest."""
    for directory in _list_installed_packages(project, environ):
        if directory.name not in nodes.names_by_package:
            continue
        try:
            package = read_project(directory, environ)
        except UsageError:  # dbt reports the problem
            continue
        if nodes.are_in(package):
            yield package


def _list_installed_packages(project: DbtProject, environ: Mapping[str, str]) -> list[Path]:
    """Return the directories of the packages that `dbt deps` has installed."""
    installed = project.packages
    # Path.is_dir raises an error for a name that is too long.
    if not os.path.isdir(installed):  # noqa: PTH112
        for name in _INSTALL_PATH_VARIABLES:
            if environ.get(name):
                installed = project.folder / environ[name]
    try:
        return [path for path in installed.iterdir() if (path / PROJECT_FILE).is_file()]
    except OSError:
        return []


def _lacks_packages(project: DbtProject, environ: Mapping[str, str]) -> bool:
    """Return whether the project declares packages that `dbt deps` has not installed.

    Only the numbers of packages, including indirect ones, are compared, because a package may have
    any name.
    """
    packages: set[tuple[str, ...]] = set()
    for name in _PACKAGE_FILES:
        packages.update(_read_packages(project.folder / name))
    if not packages:
        return False
    packages.update(_read_packages(project.folder / _PACKAGE_LOCK))
    return len(packages) > len(_list_installed_packages(project, environ))


def _read_packages(file: Path) -> Iterator[tuple[str, ...]]:
    """Yield the values that identify each package, whether in a package file or the lock file."""
    try:
        content = read_yaml_file(file)
    except UsageError:  # the file does not exist, or dbt reports the problem
        return
    if not isinstance(content, dict) or not isinstance(content.get("packages"), list):
        return
    for package in content["packages"]:
        if isinstance(package, dict):
            yield tuple(str(package.get(key)) for key in _PACKAGE_KEYS)


def _no_overlap_error(
    project: DbtProject, manifest_project: str | None, *, is_namesake: bool
) -> ArtifactRefused:
    if is_namesake:
        return ArtifactRefused(
            f"the manifest is of a project that is also called {project.name!r}, but "
            f"shares no model or seed with {project.folder}, so dbt would silently defer "
            "nothing. Use the integration or manifest directory of the project in that directory"
        )
    return ArtifactRefused(
        f"{_describe_mismatch(project, manifest_project)} or of its installed packages. "
        "dbt matches models by project and model name, so it would silently defer nothing. "
        f"Use the integration or manifest directory of project {project.name!r}"
    )


def _describe_mismatch(project: DbtProject, manifest_project: str | None) -> str:
    origin = "is of another project"
    if manifest_project:
        origin = f"is of project {manifest_project!r}"
    return (
        f"the manifest {origin} and contains no node of {project.name!r} "
        f"({project.folder / PROJECT_FILE})"
    )
