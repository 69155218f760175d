"""Where credentials are kept between calls: the system's keyring, or the config file where there is none.

In the keyring each set is one entry, a JSON object under the user name "<instance name> <URL>"; one more entry,
"index", lists the sets, the one used last first, because keyrings can't be listed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeVar

from datapilot_defer import ci, config
from datapilot_defer.config import Setting
from datapilot_defer.credentials import DEFAULT_URL, Credentials, CredentialSource
from datapilot_defer.deadline import Deadline
from datapilot_defer.errors import Unavailable, UsageError

KEYRING_SERVICE = "datapilot-defer"
KEYRING_TIMEOUT_S = 5.0  # a locked or broken D-Bus session never answers
_INDEX_ENTRY = "index"

T = TypeVar("T")


def is_keyring_enabled(environ: Mapping[str, str]) -> bool:
    """Whether the keyring may be asked: not in CI, where nobody can unlock it, unless DATAPILOT_KEYRING says so."""
    told = config.read_boolean_variable(environ, "DATAPILOT_KEYRING")
    return ci.detect_ci(environ) is None if told is None else told


def find_in_keyring(url: str | None, instance_name: str | None) -> CredentialSource | None:
    """The set in the keyring that was used last, among those of this URL and this instance name (None: of any).

    Raises Unavailable when the keyring can't be used.
    """
    for kept_name, kept_url in _read_index():
        if url in (None, kept_url) and instance_name in (None, kept_name):
            found = _read_entry(kept_name, kept_url)
            if found is not None:
                return found
    return None


def save_to_keyring(credentials: Credentials) -> None:
    """Keep this set, beside those of other instances. Raises Unavailable when the keyring can't be used."""
    url, name = credentials.url.value, credentials.instance_name.value
    entry = json.dumps({"url": url, "instance_name": name, "token": credentials.token.value})
    others = [known for known in _read_index() if known != (name, url)]
    _set_password(_keyring_user_name(name, url), entry)
    _set_password(_INDEX_ENTRY, json.dumps([(name, url), *others]))


def remove_from_keyring(instance_name: str, url: str) -> bool:
    """Forget one set; False when there was none. Raises Unavailable when the keyring can't be used."""
    every = _read_index()
    if (instance_name, url) not in every:
        return False
    import keyring
    from keyring.errors import PasswordDeleteError

    def delete() -> None:
        with suppress(PasswordDeleteError):
            keyring.delete_password(KEYRING_SERVICE, _keyring_user_name(instance_name, url))

    _call_keyring(delete)
    _set_password(
        _INDEX_ENTRY, json.dumps([known for known in every if known != (instance_name, url)])
    )
    return True


def save_to_config_file(credentials: Credentials, environ: Mapping[str, str]) -> Path:
    """Write this set to the config file, readable by its owner only; everything else in that file stays.

    Returns the file. Raises UsageError when it can't be written, or holds what is not JSON.
    """
    values = {
        config.CONFIG_FILE_KEYS["url"]: credentials.url.value,
        config.CONFIG_FILE_KEYS["instance_name"]: credentials.instance_name.value,
        config.CONFIG_FILE_KEYS["token"]: credentials.token.value,
    }
    file = config.read_config_file(environ)
    return _write_config_file(file, {**file.values, **values}, environ)


def remove_from_config_file(environ: Mapping[str, str]) -> Path | None:
    """Take the token out of the config file; None when it held none. Raises UsageError when that fails."""
    file = config.read_config_file(environ)
    if config.CONFIG_FILE_KEYS["token"] not in file.values:
        return None
    return _write_config_file(
        file,
        {
            key: value
            for key, value in file.values.items()
            if key not in config.CONFIG_FILE_KEYS.values()
        },
        environ,
    )


def find_in_config_file(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Instance name and URL of the set in the config file; None when it holds no token."""
    file = config.read_config_file(environ)
    name, url = (
        file.get(config.CONFIG_FILE_KEYS[part], environ) for part in ("instance_name", "url")
    )
    if config.CONFIG_FILE_KEYS["token"] not in file.values:
        return None
    return (name.value if name else "", url.value.rstrip("/") if url else DEFAULT_URL)


def _write_config_file(
    file: config.ConfigFile, values: Mapping[str, object], environ: Mapping[str, str]
) -> Path:
    path = config.config_file_path(environ)
    if path is None:
        raise UsageError("there is no home folder to keep the config file in; set HOME")
    new = None
    try:
        path = path.resolve()  # a link to a file elsewhere stays a link
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A temporary file is 0600 from its first byte on, and the rename keeps that.
        with NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=".altimate", delete=False
        ) as new:
            new.write(json.dumps(values, indent=2) + "\n")
        Path(new.name).replace(path)
    except OSError as error:
        if new is not None:
            with suppress(OSError):
                Path(new.name).unlink()
        raise UsageError(f"can't write the config file {path}: {error.strerror}") from None
    return path


def _keyring_user_name(instance_name: str, url: str) -> str:
    return f"{instance_name} {url}"


def _read_index() -> list[tuple[str, str]]:
    """Instance name and URL of every set, the one used last first."""
    known = _parse_json(_get_password(_INDEX_ENTRY))
    if not isinstance(known, list):
        return []
    return [
        (str(pair[0]), str(pair[1])) for pair in known if isinstance(pair, list) and len(pair) == 2
    ]


def _read_entry(instance_name: str, url: str) -> CredentialSource | None:
    fields = _parse_json(_get_password(_keyring_user_name(instance_name, url)))
    if not isinstance(fields, dict) or not isinstance(fields.get("token"), str):
        return None
    url_setting, name, token = (
        Setting(value, "the system's keyring") for value in (url, instance_name, fields["token"])
    )
    return CredentialSource(url_setting, name, token, stored=True)


def _parse_json(text: str | None) -> object:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def _get_password(user: str) -> str | None:
    import keyring

    return _call_keyring(lambda: keyring.get_password(KEYRING_SERVICE, user))


def _set_password(user: str, value: str) -> None:
    import keyring

    _call_keyring(lambda: keyring.set_password(KEYRING_SERVICE, user, value))


def _call_keyring(call: Callable[[], T]) -> T:
    """What the keyring answers. Its back ends raise what they like, so everything it raises means "unusable"."""
    from keyring.errors import NoKeyringError

    try:
        return Deadline(KEYRING_TIMEOUT_S).run(call, "the keyring")
    except NoKeyringError:
        raise Unavailable("there is no keyring on this system") from None
    except Unavailable:
        raise Unavailable(
            f"the system's keyring did not answer within {KEYRING_TIMEOUT_S:g} s"
        ) from None
    except Exception as error:  # noqa: BLE001 - a back end of unknown origin
        raise Unavailable(f"the system's keyring can't be used ({type(error).__name__})") from None
