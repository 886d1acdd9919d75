"""What is for its user alone: files 0600 and folders 0700, whatever the umask says, and addresses without keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

_FILE, _FOLDER = 0o600, 0o700


def private_folder(path: Path) -> None:
    """Make a folder, with those above it that are missing; one that is there already is closed to others. Raises
    `OSError`."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing or [path]:
        _close(folder, _FOLDER)


def private_file(path: Path) -> None:
    """Make an empty file unless there is one, and close it to others. Raises `OSError`.

    A database that SQLite opens afterwards keeps its log under the same permissions.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, _FILE))
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        _close(path.with_name(name), _FILE)


def close_to_others(path: Path) -> None:
    """Close a file, or a folder with all that is in it, to others: what an older version wrote. Links are not
    followed."""
    _close(path, _FOLDER if path.is_dir() else _FILE)
    for above, folders, files in os.walk(path):
        for name in folders:
            _close(Path(above, name), _FOLDER)
        for name in files:
            _close(Path(above, name), _FILE)


@contextmanager
def writing_privately() -> Iterator[None]:
    """Whatever this process makes meanwhile is for its user alone, in all threads and all libraries. For a process
    that is one service and nothing else."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def shown_address(url: str) -> str:
    """A server's address as it may be printed and written: without user, password and query, where keys stand."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=host, query="", fragment="").geturl()
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]


def _close(path: Path, mode: int) -> None:
    """Take others' permissions from a path, where it is there and the user's own; never from a folder like /tmp."""
    with suppress(OSError):
        now = path.lstat()
        shared = stat.S_ISLNK(now.st_mode) or now.st_mode & stat.S_ISVTX or now.st_uid != os.geteuid()
        if not shared and now.st_mode & 0o077:
            path.chmod(mode)
