"""What `pull` and the `defer` commands share: options, and the way from them to a source to pull from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datapilot_defer.cli.options import find_credentials, instance_at
from datapilot_defer.cli.output import Output
from datapilot_defer.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from datapilot_defer.client.instance_client import InstanceClient
    from datapilot_defer.pull.state_directory import PulledArtifact
    from datapilot_defer.pull.update import PullOptions, PullResult, Source

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _parse_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Seconds, from a length of time such as 90m, 24h, 7d."""
    if not value:
        return None
    found = re.fullmatch(
        r"(\d{1,9}(?:\.\d+)?)\s*([smhdw])(?:in|ours?|ays?|ecs?)?", value.strip().lower()
    )
    if found is None:
        raise click.BadParameter(
            f"{value!r} is no length of time: write 90m, 24h or 7d", ctx, param
        )
    return float(found.group(1)) * _UNITS[found.group(2)]


max_age_option = click.option(
    "--max-age",
    callback=_parse_duration,
    metavar="AGE",
    envvar="DATAPILOT_MAX_AGE",
    show_envvar=True,
    help="Refuse a manifest that dbt wrote longer ago, such as 24h or 7d.",
)
offline_option = click.option(
    "--offline",
    is_flag=True,
    envvar="DATAPILOT_OFFLINE",
    show_envvar=True,
    help="Do not ask the instance; use what was pulled before.",
)
dbt_option = click.option(
    "--dbt",
    "dbt_path",
    metavar="FILE",
    envvar="DATAPILOT_DBT",
    show_envvar=True,
    help="The dbt to use. [default: the one on PATH]",
)
project_dir_option = click.option(
    "--project-dir",
    metavar="DIR",
    help="Folder of the dbt project. [default: the working folder or one above]",
)


@dataclass
class Access:
    """The way to the instance, opened when it is first needed: credentials are asked for once."""

    report: Output
    options: dict[str, Any]

    def __post_init__(self) -> None:
        self.timeout: float | None = self.options.pop("timeout", None)
        self.credentials = find_credentials(self.report, **self.options)
        self._down: Unavailable | None = None

    @property
    def url(self) -> str:
        """The instance's."""
        return self.credentials.url.value

    def connect(self, seconds: float | None) -> InstanceClient:
        """The instance, for at most so many seconds. Raises Unavailable again once it was found to be."""
        if self._down is not None:
            raise self._down
        given = [limit for limit in (seconds, self.timeout) if limit is not None]
        return instance_at(self.report, self.credentials, min(given) if given else None)

    def integration_id(self, named: int | str, *, offline: bool) -> int:
        """The id of an integration that was named by id or by name.

        A name is asked for; when that can't be, the id that it had before counts, and what is then pulled falls
        back in the same way. Raises NotFound for a name that is not known, Unavailable.
        """
        from datapilot_defer.pull import integration_names
        from datapilot_defer.pull.update import FRESHNESS_CHECK_TIMEOUT_S

        if isinstance(named, int):
            return named
        place = (self.url, self.credentials.instance_name.value, named)
        known = integration_names._read_cached_id(*place)
        if offline:
            if known is None:
                raise NotFound(
                    f"integration {named!r}: offline, a name that was never looked up can't be; give --integration-id"
                )
            return known
        try:
            found = (
                self.connect(FRESHNESS_CHECK_TIMEOUT_S if known is not None else None)
                .find_integration(named)
                .id
            )
        except Unavailable as error:
            if known is None:
                raise
            self._down = error
            return known
        integration_names._cache_id(*place, found)
        return found

    def source(self, wish: PullOptions, output: Path | None = None) -> Source:
        """What to pull from, into a folder that was named, else into the one that persists."""
        from datapilot_defer.pull.state_directory import default_state_directory
        from datapilot_defer.pull.update import Source

        name = self.credentials.instance_name.value
        folder = output or default_state_directory(
            self.url, name, wish.integration_id, wish.environment, wish.pin
        )
        report = self.report
        return Source(
            self.connect, self.url, name, folder, output is not None, report.warn, _progress(report)
        )


def as_json(pulled: PullResult) -> dict[str, object]:
    """The fields that tell of a pull."""
    manifest = pulled.manifest
    about = (
        "dbt_version",
        "schema_version",
        "project_name",
        "generated_at",
        "commit",
        "branch",
        "build_url",
    )
    return {
        "state_dir": str(pulled.folder),
        "unchanged": pulled.unchanged,
        "offline": pulled.offline,
        "environment": pulled.environment,
        "artifacts": [_entry_as_json(entry, pulled.folder) for entry in pulled.entries],
        **{name: getattr(manifest, name, None) for name in about},
        "uploaded_at": manifest.uploaded_at if manifest else None,
        "age_seconds": round(manifest.age_s) if manifest and manifest.age_s is not None else None,
    }


def _entry_as_json(entry: PulledArtifact, folder: Path) -> dict[str, object]:
    return {
        "kind": entry.kind,
        "path": str(folder / f"{entry.kind}.json"),
        "size_bytes": entry.size_bytes,
        "sha256": entry.sha256,
        "file_id": entry.file_id,
        "schema_version": entry.schema_version,
        "dbt_version": entry.dbt_version,
    }


def _progress(report: Output) -> Any:
    def progress(kind: str, size_bytes: int) -> Any:
        return report.progress(f"Pulling the {kind}", size_bytes)

    return progress
