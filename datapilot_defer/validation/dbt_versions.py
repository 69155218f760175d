"""Which dbt can read a manifest, and so defer to it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from datapilot_defer.artifact import Artifact

OLDEST_SCHEMA_VERSION, NEWEST_DBT1_SCHEMA_VERSION = 4, 12
DBT2_SCHEMA_VERSION = 20
DBT1_VERSIONS = (
    "1.0",
    "1.1",
    "1.2",
    "1.3",
    "1.4",
    "1.5",
    "1.6",
    "1.7",
    "1.8",
    "1.9",
    "1.10",
    "1.11",
    "1.12",
)
# The first release that writes each version. dbt-core reads its own and, from 1.2 on, older ones down to 4:
# `compatible_previous_versions` in each release.
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


def versions_reading(schema_version: int) -> tuple[str, ...]:
    """The minor versions of dbt-core that take schema version 4 to 12, oldest first, and "2" when dbt 2.x does."""
    first = DBT1_VERSIONS.index(_WRITTEN_FROM[schema_version])
    back = DBT1_VERSIONS.index(_FIRST_BACKWARD_COMPATIBLE)
    core = tuple(
        minor for at, minor in enumerate(DBT1_VERSIONS) if at == first or at >= max(first, back)
    )
    return (*core, "2") if schema_version in _READ_BY_DBT2 else core


def is_written_by_dbt2(artifact: Artifact) -> bool:
    """Whether dbt 2.x wrote it. The dated versions of the dbt platform, such as 2026.1.19, are dbt-core 1.x."""
    found = re.match(r"v?(\d+)\.", artifact.metadata.dbt_version or "")
    return artifact.metadata.schema_version == DBT2_SCHEMA_VERSION or (
        found is not None and 2 <= int(found.group(1)) < 1000
    )


def describe_versions(readers: tuple[str, ...]) -> str:
    """In words: "dbt 1.8 and later", "dbt 2.x"."""
    core = [reader for reader in readers if reader != "2"]
    if not readers:
        return "no dbt that is known today"
    if not core:
        return "dbt 2.x"
    return f"dbt {core[0]} and later" if "2" in readers else f"dbt {core[0]} to {core[-1]}"


def includes_version(found: tuple[str, ...], wanted: str) -> bool:
    """Whether a version that somebody runs, such as "1.11", "1.11.16", "1" or "2", is among the readers.

    A minor version of dbt-core that is newer than this program counts as the newest one that it knows.
    Raises UsageError for what is not a version.
    """
    numbers = re.fullmatch(r"v?(\d{1,4})(?:\.(\d{1,4}))?([.\-+a-z].*)?", wanted.strip())
    if not numbers:
        raise UsageError(
            f"--readable-by {wanted!r} is not a version of dbt: give one such as 1.11 or 2"
        )
    major, minor = numbers.group(1), numbers.group(2)
    if major != "1":
        return major in found
    if minor is None:
        return any(reader != "2" for reader in found)
    newest = int(DBT1_VERSIONS[-1].split(".")[1])
    return f"1.{min(int(minor), newest)}" in found
