"""File permissions of a data directory, which only the user who runs the instance may access."""

from __future__ import annotations

import logging
import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from datapilot_defer.errors import UsageError

log = logging.getLogger("datapilot_defer.instance")

_OTHERS = 0o077
_ENTER_BY_OTHERS = 0o011


@contextmanager
def private_umask() -> Iterator[None]:
    """Deny other users access to the files and directories that the block creates."""
    previous = os.umask(_OTHERS)
    try:
        yield
    finally:
        os.umask(previous)


def check_write_access(paths: Sequence[Path]) -> None:
    """Raise UsageError if one of the paths exists and this user cannot write to it."""
    for path in paths:
        if path.exists() and not os.access(path, os.W_OK):
            raise UsageError(
                f"cannot write to {path}. Check its owner, its permissions, and whether its file "
                "system is mounted read-only."
            )


def restrict_permissions(
    directory: Path, secret_files: Sequence[Path], other_paths: Sequence[Path]
) -> None:
    """Remove other users' access to the files of a data directory on POSIX systems, and log it.

    Their access to the directory itself is also removed, unless the directory contains other files.
    They may keep this access if it cannot be removed, for example from the mount point of a volume.
    Raises UsageError when they can still access a secret file.
    """
    if os.name != "posix":
        return
    paths = [*secret_files, *other_paths]
    if _is_exclusive(directory, paths):
        paths.insert(0, directory)
    restricted = [str(path) for path in paths if _restrict(path)]
    if restricted:
        log.warning("removed the access of other users to %s", ", ".join(restricted))
    if _mode(directory) & _ENTER_BY_OTHERS:
        _check_exposure(directory, secret_files)


def _is_exclusive(directory: Path, paths: Sequence[Path]) -> bool:
    """Return whether a directory contains only these paths, hidden files and lost+found.

    A directory that contains anything else, such as /tmp, must stay shared.
    """
    names = {path.name for path in paths} | {"lost+found"}
    return all(entry.name in names or entry.name.startswith(".") for entry in directory.iterdir())


def _restrict(path: Path) -> bool:
    """Remove other users' access to a path. Return True if they had access and no longer do."""
    mode = _mode(path)
    if not mode & _OTHERS or path.is_symlink():  # the target may belong to another program
        return False
    try:
        path.chmod(mode & ~_OTHERS)
    except OSError:
        return False
    return not _mode(path) & _OTHERS  # some file systems ignore the change


def _check_exposure(directory: Path, secret_files: Sequence[Path]) -> None:
    """Raise UsageError if other users can access a secret file in a directory that they can enter.

    Also log a warning if any user can replace the files in the directory.
    """
    mode = _mode(directory)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        log.warning("any user can replace the files in %s. Use a subdirectory instead.", directory)
    for file in secret_files:
        if _mode(file) & _OTHERS:
            raise _exposed_error(directory, file)


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return 0


def _exposed_error(directory: Path, file: Path) -> UsageError:
    files = f"{shlex.quote(str(directory))}/records.*"
    return UsageError(
        f"other users can access {file}, which contains the signing key, and this user cannot "
        f"change its permissions. Run `sudo chown {os.geteuid()} {files} && "
        f"sudo chmod go= {files}`, or mount the file system with private permissions."
    )
