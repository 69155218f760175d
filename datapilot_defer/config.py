"""Settings and their precedence: option, environment variable, config file, keyring.

The config file is that of altimate-datapilot-cli, `~/.altimate/altimate.json`. An empty environment
variable is treated as unset. No file in the current directory is read, because it could set the URL
that receives a token.
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.errors import UsageError
from datapilot_defer.files import read_small_file

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_URL = "https://api.myaltimate.com"  # Source: the default of altimate-datapilot-cli 0.3.8.
CONFIG_FILE_KEYS = {
    "token": "altimateApiKey",
    "instance_name": "altimateInstanceName",
    "url": "altimateUrl",
}
CREDENTIAL_VARIABLES = {
    "token": ("DATAPILOT_TOKEN", "ALTIMATE_API_KEY"),
    "instance_name": ("DATAPILOT_INSTANCE_NAME", "ALTIMATE_INSTANCE_NAME"),
    "url": ("DATAPILOT_URL", "ALTIMATE_URL"),
}
_SECRET_NAME = re.compile(
    r"(DATAPILOT|ALTIMATE)_\w*(TOKEN|KEY|SECRET|PASSWORD)\w*|DBT_(ENGINE_)?ENV_SECRET\w*",
    re.IGNORECASE,
)
_VARIABLE_REFERENCE = re.compile(r"\$\{env:([^}]*)\}")
# A token of a self-hosted instance. Its prefix is public.
SELF_HOSTED_TOKEN = re.compile(r"dpd_[0-9A-Za-z]{8,}")
CREDENTIAL_OPTIONS = {
    "token": "--token",
    "instance_name": "--instance-name",
    "url": "--backend-url",
}


class SettingSource(Enum):
    """The source of a setting. OTHER: a default, a prompt, or a token that `auth login` reads."""

    OPTION = auto()
    VARIABLE = auto()
    CONFIG_FILE = auto()
    KEYRING = auto()
    OTHER = auto()


@dataclass(frozen=True)
class Setting:
    """A value and its origin.

    value: excluded from the repr, because it may be a secret. origin: the exact option, variable or
    file, for messages.
    """

    value: str = field(repr=False)
    origin: str
    source: SettingSource = field(default=SettingSource.OTHER, repr=False)


def read_variable(environ: Mapping[str, str], names: tuple[str, ...]) -> Setting | None:
    """Return the first of these environment variables that is set and not empty, or None."""
    for name in names:
        if environ.get(name):
            return Setting(environ[name], f"environment variable {name}", SettingSource.VARIABLE)
    return None


def is_protected_variable(name: str, environ: Mapping[str, str]) -> bool:
    """Return whether an environment variable contains one of our credentials or a dbt secret.

    Such a variable must not be used in a path, because paths are printed. Upper and lower case are
    equal, as on Windows. Variables that contain a token are protected whatever their names are,
    because the config file may refer to any variable.
    """
    credentials = {each for names in CREDENTIAL_VARIABLES.values() for each in names}
    if name.upper() in credentials or _SECRET_NAME.fullmatch(name):
        return True
    return name in environ and name not in without_tokens(environ)


def read_boolean_variable(environ: Mapping[str, str], name: str) -> bool | None:
    """Return the value of a boolean environment variable; None if it is unset or empty.

    Raises UsageError for any value except 1, true, yes, on and their opposites.
    """
    value = environ.get(name, "").lower()
    if not value:
        return None
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"the environment variable {name} is {environ[name]!r}. Set it to 1 or 0")


def strip_user_info(url: str) -> str:
    """Return a URL without user and password. The URL of a proxy may have no scheme."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def home_directory(environ: Mapping[str, str]) -> Path | None:
    """Return the user's home directory; None if there is none, as in some containers."""
    variable = "USERPROFILE" if os.name == "nt" else "HOME"
    if environ.get(variable):
        return Path(environ[variable])
    try:
        return Path.home()
    except RuntimeError:
        return None


def user_config_directory() -> Path | None:
    """Return the directory for this user's settings; None without a home directory."""
    from platformdirs import user_config_path

    with suppress(RuntimeError):  # without a home directory
        return _absolute_or_none(user_config_path("datapilot-defer", appauthor=False))
    return None


def user_cache_directory() -> Path:
    """Return the per-user cache directory. Raises UsageError without a home directory."""
    from platformdirs import user_cache_path

    with suppress(RuntimeError):  # without a home directory
        directory = _absolute_or_none(user_cache_path("datapilot-defer", appauthor=False))
        if directory is not None:
            return directory
    raise UsageError(
        "there is no home directory for the cache. Set HOME or XDG_CACHE_HOME, or "
        "specify a directory"
    )


def _absolute_or_none(directory: Path) -> Path | None:
    """Return the directory if its path is absolute, otherwise None.

    Without a home directory, some versions of platformdirs return a path below "~".
    """
    return directory if directory.is_absolute() else None


def config_file_path(environ: Mapping[str, str]) -> Path | None:
    """Return the path of the config file, which may not exist. None without a home directory."""
    home = home_directory(environ)
    if home is None:
        return None
    return home / ".altimate" / "altimate.json"


@dataclass(frozen=True)
class ConfigFile:
    """The content of the config file. A value is checked only when it is needed."""

    path: Path
    values: Mapping[str, object] = field(default_factory=dict, repr=False)
    text: str = field(default="", repr=False)

    def get(self, key: str, environ: Mapping[str, str]) -> Setting | None:
        """Return one value, with each `${env:NAME}` in it replaced; None if it is missing or empty.

        Raises UsageError if it is not a string, or refers to a variable that is not set.
        """
        value = self.values.get(key)
        if value is None or value == "":
            return None
        location = self._location(key)
        if not isinstance(value, str):
            raise UsageError(f"{location}: {key} must be a string, in quotes")
        expanded = self._expand_variables(value, key, environ)
        return Setting(expanded, location, SettingSource.CONFIG_FILE)

    def _expand_variables(self, value: str, key: str, environ: Mapping[str, str]) -> str:
        def replace(match: re.Match[str]) -> str:
            name = match.group(1)
            if not environ.get(name):
                raise UsageError(
                    f"{self._location(key)}: {key} contains the environment variable "
                    f"{name}, which is not set"
                )
            return environ[name]

        return _VARIABLE_REFERENCE.sub(replace, value)

    def _location(self, key: str) -> str:
        for number, line in enumerate(self.text.splitlines(), start=1):
            if f'"{key}"' in line:
                return f"{self.path}:{number}"
        return str(self.path)

    def is_readable_by_others(self) -> bool:
        """Return whether other users can read the file.

        Always returns False on Windows, where the permissions of the directory apply.
        """
        if os.name == "nt" or not self.text:
            return False
        return bool(self.path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def read_config_file(environ: Mapping[str, str]) -> ConfigFile:
    """Return the config file; an empty one if it does not exist.

    Raises UsageError if it cannot be read or is not a JSON object. The message does not contain the
    content, which is secret.
    """
    path = config_file_path(environ)
    if path is None:
        return ConfigFile(Path("~/.altimate/altimate.json"))
    try:
        text = read_small_file(path).decode("utf-8-sig")
    except FileNotFoundError:
        return ConfigFile(path)
    except OSError as error:
        raise UsageError(f"cannot read the config file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"cannot read the config file {path}: it is not UTF-8 text") from None
    return ConfigFile(path, _parse_config(path, text), text)


def without_tokens(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the variables that contain the token of an instance.

    These are the variables that we read tokens from, those that the config file refers to for its
    token, any other variable with the same value as one of them, and any variable whose value is a
    token of a self-hosted instance.
    """
    names = set(CREDENTIAL_VARIABLES["token"])
    with suppress(UsageError):  # reported where a token is needed
        token = read_config_file(environ).values.get(CONFIG_FILE_KEYS["token"])
        names |= set(_VARIABLE_REFERENCE.findall(str(token)))
    tokens = {environ[name] for name in names if environ.get(name)}
    return {
        name: value
        for name, value in environ.items()
        if name not in names and value not in tokens and not SELF_HOSTED_TOKEN.fullmatch(value)
    }


def _parse_config(path: Path, text: str) -> dict[str, object]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path}:{error.lineno}: the config file is not JSON ({error.msg}). Fix or delete it"
        ) from None
    except (ValueError, RecursionError):  # a number of 5,000 digits, 100,000 brackets
        raise UsageError(
            f"{path}: the config file contains a number that is too long, or is nested "
            "too deeply. Fix or delete it"
        ) from None
    if not isinstance(values, dict):
        raise UsageError(
            f"{path}: the config file must be one JSON object, {{…}}. Fix or delete it"
        )
    return values
