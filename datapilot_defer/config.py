"""Where settings come from and which of them wins: option, environment variable, config file, keyring.

The config file is the ecosystem's own, `~/.altimate/altimate.json`. An empty environment variable counts as unset.
No file in the working folder is read: it could choose where a token goes.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datapilot_defer.errors import UsageError

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
CREDENTIAL_OPTIONS = {
    "token": "--token",
    "instance_name": "--instance-name",
    "url": "--backend-url",
}


@dataclass(frozen=True)
class Setting:
    """A value and where it came from, in words for people. The value may be a secret: it is not in the repr."""

    value: str = field(repr=False)
    origin: str


def read_variable(environ: Mapping[str, str], names: tuple[str, ...]) -> Setting | None:
    """The first of these environment variables that is set and not empty."""
    for name in names:
        if environ.get(name):
            return Setting(environ[name], f"environment variable {name}")
    return None


def read_boolean_variable(environ: Mapping[str, str], name: str) -> bool | None:
    """An environment variable as a switch; None when it is not set. Raises UsageError for anything but yes or no."""
    value = environ.get(name, "").lower()
    if not value:
        return None
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"environment variable {name} is {environ[name]!r}: set it to 1 or 0")


def strip_user_info(url: str) -> str:
    """A URL, also one without scheme as proxies may be given, without its user and password."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def home_directory(environ: Mapping[str, str]) -> Path | None:
    """The user's home, or None in a container that has none."""
    given = environ.get("USERPROFILE" if os.name == "nt" else "HOME")
    if given:
        return Path(given)
    try:
        return Path.home()
    except RuntimeError:
        return None


def user_config_directory() -> Path | None:
    """The user's own folder for what this program is told to remember, or None where there is no home."""
    from platformdirs import user_config_path

    return _absolute_or_none(lambda: user_config_path("datapilot-defer", appauthor=False))


def user_cache_directory() -> Path:
    """The user's own folder for what can be fetched again. Raises UsageError where there is no home."""
    from platformdirs import user_cache_path

    folder = _absolute_or_none(lambda: user_cache_path("datapilot-defer", appauthor=False))
    if folder is None:
        raise UsageError(
            "there is no home folder to keep things in: set HOME or XDG_CACHE_HOME, or name a folder"
        )
    return folder


def _absolute_or_none(find: Callable[[], Path]) -> Path | None:
    """Without a home platformdirs raises, or gives a path that begins with "~", by its version."""
    try:
        folder = find()
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None


def config_file_path(environ: Mapping[str, str]) -> Path | None:
    """Where the config file is, whether or not it exists. None without a home folder."""
    home = home_directory(environ)
    return home / ".altimate" / "altimate.json" if home else None


@dataclass(frozen=True)
class ConfigFile:
    """The config file as it was read. Values are looked at only when they are needed."""

    path: Path
    values: Mapping[str, object] = field(default_factory=dict, repr=False)
    text: str = field(default="", repr=False)

    def get(self, key: str, environ: Mapping[str, str]) -> Setting | None:
        """One value, with each `${env:NAME}` in it replaced.

        Raises UsageError when it is not a string, or names an environment variable that is not set.
        """
        value = self.values.get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise UsageError(f"{self._location(key)}: {key} must be a string, in quotes")
        return Setting(self._expand_variables(value, key, environ), self._location(key))

    def _expand_variables(self, value: str, key: str, environ: Mapping[str, str]) -> str:
        def replace(found: re.Match[str]) -> str:
            name = found.group(1)
            if not environ.get(name):
                raise UsageError(
                    f"{self._location(key)}: {key} names environment variable {name}, which is not set"
                )
            return environ[name]

        return re.sub(r"\$\{env:([^}]*)\}", replace, value)

    def _location(self, key: str) -> str:
        for number, line in enumerate(self.text.splitlines(), start=1):
            if f'"{key}"' in line:
                return f"{self.path}:{number}"
        return str(self.path)

    def is_readable_by_others(self) -> bool:
        """Whether others on this machine can read it (never known on Windows, where folders decide that)."""
        if os.name == "nt" or not self.text:
            return False
        return bool(self.path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def read_config_file(environ: Mapping[str, str]) -> ConfigFile:
    """The config file, empty when there is none.

    Raises UsageError when it can't be read or is not a JSON object. What it holds is never quoted: it is a secret.
    """
    path = config_file_path(environ)
    if path is None:
        return ConfigFile(Path("~/.altimate/altimate.json"))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ConfigFile(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"can't read the config file {path}: {reason}") from None
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path}:{error.lineno}: the config file is not JSON ({error.msg}); mend or delete it"
        ) from None
    except RecursionError:
        raise UsageError(
            f"{path}: the config file is not JSON of ours (too deep); mend or delete it"
        ) from None
    if not isinstance(values, dict):
        raise UsageError(
            f"{path}: the config file must be one JSON object, {{…}}; mend or delete it"
        )
    return ConfigFile(path, values, text)
