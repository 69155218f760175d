"""The root group `datapilot` of this project's console scripts.

Other programs may mount individual commands instead. Slow imports happen when a command runs, not
at the top level of its module.
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
    help="Manage credentials in the system keyring.",
    commands=[login, logout, auth_status],
)
_CONFIG = Group(
    "config",
    help="Print the effective settings.",
    commands=[config.show],
)
_DEFER = Group(
    "defer",
    help="Turn defer on or off, and run dbt with it.",
    commands=[enable, disable, defer_status, env, run, explain],
)
_INTEGRATIONS = Group(
    "integrations",
    help="Manage integrations and the artifacts in them.",
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
    help="Onboard, validate and pull dbt artifacts, and defer to them.",
    commands=[_DEFER, _INTEGRATIONS, onboard, pull, validate],
)
_INSTANCE = Group(
    "instance",
    help="Host an instance with the API of the hosted service.",
    commands=[audit, init, migrate, rotate_key, serve, token],
)
_ROOT = DelegatingGroup(
    "datapilot",
    help="Deliver production's dbt manifest to laptops and CI jobs, and defer to it.",
    commands=[_AUTH, _CONFIG, _DBT, _INSTANCE, doctor],
)

root = click.version_option(package_name="datapilot-defer", prog_name="datapilot-defer")(_ROOT)
