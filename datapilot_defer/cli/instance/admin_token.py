"""The first admin token of an instance, either printed once or stored in a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from datapilot_defer.errors import UsageError
from datapilot_defer.files import sync_to_disk, write_atomically

_MAX_FILE_BYTES = 4096


@dataclass(frozen=True)
class FirstToken:
    """The first admin token.

    file: the file of --admin-token-file, or None. is_in_file: whether the token was read from it.
    """

    token: str = field(repr=False)
    file: Path | None
    is_in_file: bool

    @property
    def result(self) -> dict[str, object]:
        """Return the fields of the command's result: the token, or the file that contains it."""
        if self.file is None:
            return {"token": self.token}
        return {"admin_token_file": str(self.file)}

    @property
    def description(self) -> str:
        """Return a sentence with the token or its location."""
        if self.file is None:
            return f"Its admin token is shown only once: {self.token}"
        return f"Its admin token is stored in {self.file}."

    def save(self) -> None:
        """Write a new token to its file, readable by this user only.

        Does nothing if there is no file or the token was read from it. Raises UsageError if the
        file cannot be written.
        """
        if self.file is None or self.is_in_file:
            return
        try:
            write_atomically(self.file, f"{self.token}\n".encode(), mode=0o600)
            sync_to_disk(self.file.resolve().parent)
        except OSError as error:
            raise UsageError(
                f"cannot write the admin token file {self.file}: {error.strerror}"
            ) from None


def load_first_token(file: Path | None) -> FirstToken:
    """Return the token in a file, or a new token if the file is not given, missing or empty.

    Raises UsageError when the file cannot be read or contains anything else.
    """
    from datapilot_defer.instance.services.token_format import generate_token

    if file is not None:
        token = _read_token(file)
        if token:
            return FirstToken(token, file, is_in_file=True)
    return FirstToken(generate_token(), file, is_in_file=False)


def _read_token(file: Path) -> str:
    """Return the token in a file, or "" if the file is missing or empty."""
    from datapilot_defer.instance.services.token_format import is_well_formed

    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES)
        is_regular = file.is_file()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UsageError(f"cannot read the admin token file {file}: {error.strerror}") from None
    token = content.decode("ascii", errors="replace").strip()
    if not token and not is_regular:  # writing would replace a device such as /dev/null
        raise UsageError(f"cannot write the admin token file {file}: not a regular file")
    if token and not is_well_formed(token):
        raise UsageError(
            f"{file} does not contain a valid token. A token is `dpd_` followed by 46 letters and "
            "digits, of which the last 6 are a checksum. Delete the file to create a new token."
        )
    return token
