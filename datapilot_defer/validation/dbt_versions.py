"""Schema versions of artifacts, and the dbt versions that can read them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from datapilot_defer.errors import UsageError
from datapilot_defer.validation.descriptions import describe_value
from datapilot_defer.validation.result import Problem, ProblemCode

if TYPE_CHECKING:
    from datapilot_defer.artifact import Artifact

SCHEMA_VERSION_PATH = "$.metadata.dbt_schema_version"
_SCHEMA_URL = "https://schemas.getdbt.com/dbt/{}/v{}.json"

OLDEST_SCHEMA_VERSION = 4
NEWEST_DBT1_SCHEMA_VERSION = 12
DBT2_SCHEMA_VERSION = 20
_NEWEST_DBT1_MINOR = 12
DBT1_VERSIONS = tuple(f"1.{minor}" for minor in range(_NEWEST_DBT1_MINOR + 1))
# The first release that writes each schema version. A release of dbt-core reads the version that it
# writes and, from 1.2 on, also older ones down to 4. See `compatible_previous_versions` in each
# release.
_WRITTEN_FROM = {
    4: "1.0",
    5: "1.1",
    6: "1.2",
    7: "1.3",
    8: "1.4",
    9: "1.5",
    10: "1.6",
    11: "1.7",
    12: "1.8",
}
_READ_BY_DBT2 = (12, DBT2_SCHEMA_VERSION)
_FIRST_BACKWARD_COMPATIBLE = "1.2"
# Dated versions of the dbt platform, such as 2026.1.19, are dbt-core 1.x.
_FIRST_DATED_MAJOR = 1000


def read_schema_version(artifact: Artifact, schema_url: object) -> int | Problem:
    """Return an artifact's schema version, or a problem if `schema_url` is invalid for its kind."""
    version = artifact.metadata.schema_version
    name = artifact.kind.value.replace("_", "-")
    if version is not None and schema_url == _SCHEMA_URL.format(name, version):
        return version
    expected = _SCHEMA_URL.format(name, "N")
    actual = describe_value(schema_url)
    return schema_version_problem(f"expected {expected} with a number for N, got {actual}")


def schema_version_problem(message: str) -> Problem:
    """Return a problem with `metadata.dbt_schema_version`."""
    return Problem(SCHEMA_VERSION_PATH, message, code=ProblemCode.SCHEMA_VERSION)


def newer_version_warning(schema_version: int | None) -> str:
    """Return the warning for a schema version that is newer than the bundled schemas."""
    return (
        f"schema version {schema_version} is newer than this program, so only its outline "
        "was checked"
    )


def unknown_schema_problem(schema_version: int | None) -> Problem:
    """Return the problem of a strict validation for which no published schema is known."""
    return schema_version_problem(
        "--strict needs the published schema, "
        f"and none is known for schema version {schema_version}"
    )


def versions_reading(schema_version: int) -> tuple[str, ...]:
    """Return the minor versions of dbt-core that read a schema version, oldest first.

    schema_version: 4 to 12. "2" follows if dbt 2.x also reads it.
    """
    writer = DBT1_VERSIONS.index(_WRITTEN_FROM[schema_version])
    compatible = DBT1_VERSIONS.index(_FIRST_BACKWARD_COMPATIBLE)
    later = DBT1_VERSIONS[max(writer + 1, compatible) :]
    readers = (DBT1_VERSIONS[writer], *later)
    if schema_version in _READ_BY_DBT2:
        readers += ("2",)
    return readers


def is_written_by_dbt2(artifact: Artifact) -> bool:
    """Return whether dbt 2.x or a later major version wrote the artifact."""
    if artifact.metadata.schema_version == DBT2_SCHEMA_VERSION:
        return True
    match = re.match(r"v?(\d+)\.", artifact.metadata.dbt_version or "")
    return match is not None and 2 <= int(match.group(1)) < _FIRST_DATED_MAJOR


def describe_versions(readers: tuple[str, ...]) -> str:
    """Describe versions, such as "dbt 1.8 and later", "dbt 1.0 to 1.12" or "dbt 2.x"."""
    if not readers:
        return "no known version of dbt"
    core = [reader for reader in readers if reader != "2"]
    if not core:
        return "dbt 2.x"
    if "2" in readers:
        return f"dbt {core[0]} and later"
    return f"dbt {core[0]} to {core[-1]}"


def includes_version(readers: tuple[str, ...], version: str) -> bool:
    """Return whether a version, such as "1.11", "1.11.16", "1" or "2", is among the readers.

    "1" is among them if any 1.x version is. A 1.x version that is newer than those known to this
    program is treated as the newest known one. Raises UsageError if `version` is not a version of
    dbt.
    """
    match = re.fullmatch(r"v?(\d{1,4})(?:\.(\d{1,4}))?([.\-+a-z].*)?", version.strip())
    if not match:
        raise UsageError(
            f"--readable-by {version!r} is not a version of dbt. Use one such as 1.11 or 2"
        )
    major = match.group(1)
    minor = match.group(2)
    if major != "1":
        return major in readers
    if minor is None:
        return any(reader != "2" for reader in readers)
    known_minor = min(int(minor), _NEWEST_DBT1_MINOR)
    return f"1.{known_minor}" in readers
