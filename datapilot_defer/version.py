"""The version of this program."""

from __future__ import annotations

from functools import cache


@cache
def program_version() -> str:
    """Return the version, such as "1.2.3"; "0" if the program is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("datapilot-defer")
    except PackageNotFoundError:
        return "0"
