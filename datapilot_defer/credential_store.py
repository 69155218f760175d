"""Stored credentials, in the system keyring or in the config file.

Each set of credentials is one keyring entry with the user name "<instance name> <URL>" and a JSON
object as its password. Keyrings cannot be listed, so another entry, "index", lists the sets, most
recently saved first.
"""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from datapilot_defer import ci, config
from datapilot_defer.config import CONFIG_FILE_KEYS, DEFAULT_URL
from datapilot_defer.deadline import Deadline
from datapilot_defer.errors import Unavailable, UsageError
from datapilot_defer.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

KEYRING_SERVICE = "datapilot-defer"
KEYRING_TIMEOUT_S = 5.0  # a locked or broken D-Bus session never answers
_INDEX_ENTRY = "index"


@dataclass(frozen=True)
class StoredCredentials:
    """URL, instance name and token of one instance. `url` has no trailing slash."""

    url: str
    instance_name: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class _KeyringEntry:
    """The part of a keyring entry that is not in the index."""

    token: str = field(repr=False)


def is_keyring_enabled(environ: Mapping[str, str]) -> bool:
    """Return whether to use the keyring, as DATAPILOT_KEYRING specifies; by default not in CI.

    In CI, no user can unlock a keyring.
    """
    setting = config.read_boolean_variable(environ, "DATAPILOT_KEYRING")
    if setting is not None:
        return setting
    return ci.detect_ci(environ) is None


def find_in_keyring(url: str | None, instance_name: str | None) -> StoredCredentials | None:
    """Return the most recently saved credentials in the keyring for this instance, or None.

    A URL or instance name of None matches any. Raises Unavailable if the keyring cannot be used.
    """
    for stored_name, stored_url in _read_index():
        if url in (None, stored_url) and instance_name in (None, stored_name):
            token = _read_token(stored_name, stored_url)
            if token is not None:
                return StoredCredentials(stored_url, stored_name, token)
    return None


def describe_keyring() -> str:
    """Return the name of the keyring that would be used, without reading it.

    Raises Unavailable if there is no keyring, or if it cannot be used.
    """
    import keyring
    from keyring.backends import fail, null

    with _unusable_keyring_as_unavailable():
        backend = Deadline(KEYRING_TIMEOUT_S).run(keyring.get_keyring, "the keyring")
    if isinstance(backend, fail.Keyring | null.Keyring):
        raise Unavailable("there is no keyring on this system")
    return f"the keyring {backend.name}"


def save_to_keyring(credentials: StoredCredentials) -> None:
    """Save credentials in the keyring, in addition to those for other instances.

    Raises Unavailable if the keyring cannot be used.
    """
    key = (credentials.instance_name, credentials.url)
    others = [stored for stored in _read_index() if stored != key]
    _set_password(_keyring_user_name(*key), json.dumps(asdict(credentials)))
    _set_password(_INDEX_ENTRY, json.dumps([key, *others]))


def remove_from_keyring(instance_name: str, url: str) -> bool:
    """Remove the credentials for one instance. Return False if none are stored.

    Raises Unavailable if the keyring cannot be used.
    """
    key = (instance_name, url)
    index = _read_index()
    if key not in index:
        return False
    _delete_password(_keyring_user_name(*key))
    _set_password(_INDEX_ENTRY, json.dumps([stored for stored in index if stored != key]))
    return True


def save_to_config_file(credentials: StoredCredentials, environ: Mapping[str, str]) -> Path:
    """Write credentials to the config file, and keep its other settings.

    Only the owner can read the file. Returns its path. Raises UsageError if the file cannot be
    written, or is invalid.
    """
    file = config.read_config_file(environ)
    values = {CONFIG_FILE_KEYS[part]: value for part, value in asdict(credentials).items()}
    return _write_config_file({**file.values, **values}, environ)


def remove_from_config_file(environ: Mapping[str, str]) -> Path | None:
    """Remove the credentials from the config file. Return its path, or None if it has no token.

    Raises UsageError if the file cannot be written, or is invalid.
    """
    file = config.read_config_file(environ)
    if CONFIG_FILE_KEYS["token"] not in file.values:
        return None
    credential_keys = set(CONFIG_FILE_KEYS.values())
    others = {key: value for key, value in file.values.items() if key not in credential_keys}
    return _write_config_file(others, environ)


def find_in_config_file(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the instance name and URL in the config file; None if it contains no token."""
    file = config.read_config_file(environ)
    name = file.get(CONFIG_FILE_KEYS["instance_name"], environ)
    url = file.get(CONFIG_FILE_KEYS["url"], environ)
    if CONFIG_FILE_KEYS["token"] not in file.values:
        return None
    stored_name = name.value if name else ""
    stored_url = url.value.rstrip("/") if url else DEFAULT_URL
    return stored_name, stored_url


def _write_config_file(values: Mapping[str, object], environ: Mapping[str, str]) -> Path:
    path = config.config_file_path(environ)
    if path is None:
        raise UsageError("there is no home directory for the config file. Set HOME")
    try:
        path = path.resolve()  # keep a symbolic link to another file
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = json.dumps(values, indent=2) + "\n"
        write_atomically(path, content.encode(), mode=0o600)
    except OSError as error:
        raise UsageError(f"cannot write the config file {path}: {error.strerror}") from None
    return path


def _keyring_user_name(instance_name: str, url: str) -> str:
    return f"{instance_name} {url}"


def _read_index() -> list[tuple[str, str]]:
    """Return the instance name and URL of all stored credentials, most recently saved first."""
    import msgspec

    text = _get_password(_INDEX_ENTRY) or "[]"
    try:
        return msgspec.json.decode(text, type=list[tuple[str, str]])
    except msgspec.DecodeError:
        return []


def _read_token(instance_name: str, url: str) -> str | None:
    import msgspec

    text = _get_password(_keyring_user_name(instance_name, url)) or ""
    try:
        return msgspec.json.decode(text, type=_KeyringEntry).token
    except (msgspec.DecodeError, RecursionError):
        return None


def _get_password(user: str) -> str | None:
    import keyring

    with _unusable_keyring_as_unavailable():
        call = partial(keyring.get_password, KEYRING_SERVICE, user)
        return Deadline(KEYRING_TIMEOUT_S).run(call, "the keyring")


def _set_password(user: str, value: str) -> None:
    import keyring

    with _unusable_keyring_as_unavailable():
        call = partial(keyring.set_password, KEYRING_SERVICE, user, value)
        Deadline(KEYRING_TIMEOUT_S).run(call, "the keyring")


def _delete_password(user: str) -> None:
    import keyring
    from keyring.errors import PasswordDeleteError

    with _unusable_keyring_as_unavailable(), suppress(PasswordDeleteError):
        call = partial(keyring.delete_password, KEYRING_SERVICE, user)
        Deadline(KEYRING_TIMEOUT_S).run(call, "the keyring")


@contextmanager
def _unusable_keyring_as_unavailable() -> Iterator[None]:
    """Raise Unavailable for any error of the keyring. Its backends may raise any exception."""
    from keyring.errors import NoKeyringError

    try:
        yield
    except NoKeyringError:
        raise Unavailable("there is no keyring on this system") from None
    except Unavailable:
        raise Unavailable(
            f"the system keyring did not respond within {KEYRING_TIMEOUT_S:g} s"
        ) from None
    except Exception as error:  # noqa: BLE001 - a backend may raise anything
        raise Unavailable(f"the system keyring cannot be used ({type(error).__name__})") from None
