"""`datapilot dbt pull`."""

from __future__ import annotations

import os
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datapilot_defer.artifact import Kind
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import (
    environment_option,
    integration_options,
    legacy_connection_options,
    require_integration,
)
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.cli.pulling import Access, as_json, dbt_option, max_age_option, offline_option
from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from datapilot_defer.pull.update import PullResult


@click.command("pull", cls=Command)
@integration_options
@environment_option(default=None)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="State directory to pull into, made if needed. [default: one that persists in the user's cache folder]",
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([kind.value for kind in Kind]),
    multiple=True,
    help="What to pull; may be given several times. [default: manifest]",
)
@click.option(
    "--at", metavar="TIME", help="Pull what was current then: ISO time, such as 2026-11-22T09:00Z."
)
@click.option(
    "--file-id",
    type=click.IntRange(min=1),
    help="Pull this earlier artifact; see `integrations history`.",
)
@max_age_option
@offline_option
@click.option(
    "--readable-by",
    metavar="VERSION",
    envvar="DATAPILOT_READABLE_BY",
    show_envvar=True,
    help="Refuse a manifest that this dbt, such as 1.11, can't read. [default: the version of the dbt on PATH]",
)
@dbt_option
@click.option("--force", is_flag=True, help="Pull anew, and over files that no pull put there.")
@legacy_connection_options
def pull(
    integration_id: int | None,
    integration_name: str | None,
    environment: str | None,
    output: Path | None,
    kinds: tuple[str, ...],
    at: str | None,
    file_id: int | None,
    max_age: float | None,
    offline: bool,
    readable_by: str | None,
    dbt_path: str | None,
    force: bool,
    **rest: Any,
) -> None:
    """Pull artifacts into a state directory.

    They are those of one environment. The folder, which is printed, is for `dbt --state`.

    What is there already costs one small request. When the instance can't be reached, what was pulled before is
    used, with a warning; --max-age bounds how old it may be.
    """
    from datapilot_defer.pull.update import PullOptions
    from datapilot_defer.pull.update import pull as pull_artifacts

    report = current_output()
    access = Access(report, rest)
    wish = PullOptions(
        access.integration_id(
            require_integration(integration_id, integration_name), offline=offline
        ),
        environment,
        tuple(dict.fromkeys(Kind(kind) for kind in kinds)) or (Kind.MANIFEST,),
        file_id,
        _parse_time(at),
        readable_by or _installed_dbt_version(report, dbt_path),
        max_age,
    )
    if output is not None:
        output = output.resolve() if ".." in output.parts else output.absolute()
        _check_not_target(output)
    if file_id and len(wish.kinds) > 1:
        raise UsageError("--file-id names one artifact: give at most one --kind with it")
    pulled = pull_artifacts(access.source(wish, output), wish, force=force, offline=offline)
    report.note(_format_result(pulled, wish.description))
    data = {"ok": True, "integration_id": wish.integration_id, **as_json(pulled)}
    report.print_result(data, str(pulled.folder))


def _format_result(pulled: PullResult, where: str) -> str:
    from datapilot_defer.pull.update import age

    verb = "Offline" if pulled.offline else "Unchanged" if pulled.unchanged else "Pulled"
    manifest = pulled.manifest
    said = f"{verb}: {', '.join(entry.kind for entry in pulled.entries)} of {where}"
    if manifest is None:
        return said
    written = ", written" if len(pulled.entries) == 1 else "; the manifest was written"
    return f"{said}{written} by dbt {manifest.dbt_version} ({age(manifest)})"


def _parse_time(at: str | None) -> str | None:
    """A time as the instance takes it: ISO, with a zone (UTC when none is given)."""
    from datetime import datetime

    if at is None:
        return None
    try:
        moment = datetime.fromisoformat(at.replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(
            f"--at {at} is no ISO time: write 2026-11-22T09:00Z or 2026-11-22"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        raise UsageError(f"--at {at} is before the year 1 or after the year 9999, in UTC") from None


def _installed_dbt_version(report: Output, dbt_path: str | None) -> str | None:
    """The version of the dbt that will read it, as far as there is one: a machine that only pulls needs none."""
    from datapilot_defer import dbt_installation

    if not dbt_path and dbt_installation.locate_executable(None, os.environ) is None:
        return None
    try:
        return dbt_installation.find_dbt(dbt_path, os.environ).version_series
    except UsageError as error:
        if dbt_path:
            raise
        report.detail(f"{error}; so the manifest is not checked against a version of dbt")
        return None


def _check_not_target(output: Path) -> None:
    """dbt writes its own manifest to its target folder before it looks at the state, and then defers nothing."""
    from datapilot_defer import dbt_project

    for start in (output.parent, Path.cwd()):
        folder = next(
            (
                each
                for each in (start, *start.parents)
                if (each / dbt_project.PROJECT_FILE).is_file()
            ),
            None,
        )
        if folder is not None and dbt_project.is_target_directory(
            output, dbt_project.read_project(folder.resolve(), os.environ)
        ):
            raise UsageError(
                f"{output} is dbt's own target folder: dbt would overwrite the manifest before it defers to it, and "
                "silently not defer; take another folder"
            )
