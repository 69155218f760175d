"""The root group `datapilot`, for our own two console scripts. Other hosts mount the commands themselves.

Each command's module imports no more than Click; what is slow is imported when the command runs.
"""

from __future__ import annotations

import click

from datapilot_defer.cli import auth as _auth
from datapilot_defer.cli import integrations as _integrations
from datapilot_defer.cli.altimate_cli import DelegatingGroup
from datapilot_defer.cli.config import show as _show_settings
from datapilot_defer.cli.defer import enable as _defer
from datapilot_defer.cli.defer.env import env as _defer_env
from datapilot_defer.cli.defer.explain import explain as _defer_explain
from datapilot_defer.cli.defer.run import run as _defer_run
from datapilot_defer.cli.defer.status import status as _defer_status
from datapilot_defer.cli.doctor import doctor
from datapilot_defer.cli.instance.serve import init, serve
from datapilot_defer.cli.instance.tokens import token
from datapilot_defer.cli.onboard import onboard
from datapilot_defer.cli.pull import pull
from datapilot_defer.cli.validate import validate


@click.group("datapilot", cls=DelegatingGroup)
@click.version_option(package_name="datapilot-defer", prog_name="datapilot-defer")
def root() -> None:
    """Get production's dbt manifest to every laptop and CI job, and defer to it."""


@root.group("auth")
def auth() -> None:
    """Credentials of instances, kept in the system's keyring."""


@root.group("config")
def config() -> None:
    """The settings that are in effect."""


@root.group("dbt", cls=DelegatingGroup)
def dbt() -> None:
    """Onboard, validate, pull and defer."""


@dbt.group("defer")
def defer() -> None:
    """Run a few models against production's others: where defer leads, on or off, and why."""


@dbt.group("integrations")
def integrations() -> None:
    """The places on an instance that receive a dbt project's artifacts."""


@root.group("instance")
def instance() -> None:
    """An instance of your own, with the API of the hosted one."""


_TREE: tuple[tuple[click.Group, tuple[click.Command, ...]], ...] = (
    (root, (doctor,)),
    (auth, (_auth.login, _auth.logout, _auth.status)),
    (config, (_show_settings,)),
    (dbt, (onboard, pull, validate)),
    (
        defer,
        (
            _defer.enable,
            _defer.disable,
            _defer_status,
            _defer_env,
            _defer_run,
            _defer_explain,
        ),
    ),
    (
        integrations,
        (
            _integrations.list_,
            _integrations.create,
            _integrations.show,
            _integrations.history,
            _integrations.restore,
        ),
    ),
    (instance, (init, serve, token)),
)
for _group, _commands in _TREE:
    for _command in _commands:
        _group.add_command(_command)
