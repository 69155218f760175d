"""The root group `datapilot` of this project's console scripts.

Other programs mount the commands themselves. Each command's module imports only Click at its top
level: slow imports happen when the command runs.
"""

from __future__ import annotations

import click

from datapilot_defer.cli import config
from datapilot_defer.cli.altimate_cli import DelegatingGroup
from datapilot_defer.cli.auth.login import login
from datapilot_defer.cli.auth.logout import logout
from datapilot_defer.cli.auth.status import status as auth_status
from datapilot_defer.cli.command import Group
from datapilot_defer.cli.defer.enable import disable, enable
from datapilot_defer.cli.defer.env import env
from datapilot_defer.cli.defer.explain import explain
from datapilot_defer.cli.defer.run import run
from datapilot_defer.cli.defer.status import status as defer_status
from datapilot_defer.cli.doctor import doctor
from datapilot_defer.cli.instance.audit import audit
from datapilot_defer.cli.instance.init import init
from datapilot_defer.cli.instance.migrate import migrate
from datapilot_defer.cli.instance.rotate_key import rotate_key
from datapilot_defer.cli.instance.serve import serve
from datapilot_defer.cli.instance.tokens import token
from datapilot_defer.cli.integrations import history, manage
from datapilot_defer.cli.integrations.checks import checks
from datapilot_defer.cli.onboard import onboard
from datapilot_defer.cli.pull import pull
from datapilot_defer.cli.validate import validate

_AUTH = Group(
    "auth",
    help="Credentials of instances, kept in the system's keyring.",
    commands=[login, logout, auth_status],
)
_CONFIG = Group(
    "config",
    help="The settings that are in effect.",
    commands=[config.show],
)
_DEFER = Group(
    "defer",
    help="Run a few models against production's others: where defer leads, on or off, and why.",
    commands=[enable, disable, defer_status, env, run, explain],
)
_INTEGRATIONS = Group(
    "integrations",
    help="The places on an instance that receive a dbt project's artifacts.",
    commands=[
        manage.list_,
        manage.create,
        manage.rename,
        manage.delete,
        manage.undelete,
        history.show,
        history.history,
        history.restore,
        history.accept,
        checks,
    ],
)
_DBT = DelegatingGroup(
    "dbt",
    help="Onboard, validate, pull and defer.",
    commands=[_DEFER, _INTEGRATIONS, onboard, pull, validate],
)
_INSTANCE = Group(
    "instance",
    help="An instance of your own, with the API of the hosted one.",
    commands=[audit, init, migrate, rotate_key, serve, token],
)
_ROOT = DelegatingGroup(
    "datapilot",
    help="Get production's dbt manifest to every laptop and CI job, and defer to it.",
    commands=[_AUTH, _CONFIG, _DBT, _INSTANCE, doctor],
)

root = click.version_option(package_name="datapilot-defer", prog_name="datapilot-defer")(_ROOT)
