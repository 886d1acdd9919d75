"""Private files (0600) and folders (0700), independent of the umask, and addresses without keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

_FILE, _FOLDER = 0o600, 0o700


def private_folder(path: Path) -> None:
    """Create a folder and its missing parents. An existing folder is closed to other users. Raises `OSError`."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing or [path]:
        _close(folder, _FOLDER)


def private_file(path: Path) -> None:
    """Create an empty file unless it exists, and close it to other users. Raises `OSError`.

    A database that SQLite opens afterwards keeps its log under the same permissions.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, _FILE))
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        _close(path.with_name(name), _FILE)


def close_to_others(path: Path) -> None:
    """Close a file, or a folder with its whole content, that an older version wrote to other users. Links are not
    followed."""
    _close(path, _FOLDER if path.is_dir() else _FILE)
    for above, folders, files in os.walk(path):
        for name in folders:
            _close(Path(above, name), _FOLDER)
        for name in files:
            _close(Path(above, name), _FILE)


@contextmanager
def writing_privately() -> Iterator[None]:
    """Files that this process creates in the block are private, in all threads and libraries. Only for a process that
    is one service and nothing else."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def shown_address(url: str) -> str:
    """A server's address without user, password and query, which may hold keys."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=host, query="", fragment="").geturl()
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]


def shown_model(name: str) -> str:
    """A model as a user names it, `URL#MODEL` or a back end's name, without what may be a key in the URL."""
    url, hash_sign, model = name.partition("#")
    return shown_address(url) + hash_sign + model if "://" in url else name


def _close(path: Path, mode: int) -> None:
    """Remove other users' permissions from a path that the user owns; never from a folder like /tmp."""
    with suppress(OSError):
        now = path.lstat()
        shared = stat.S_ISLNK(now.st_mode) or now.st_mode & stat.S_ISVTX or now.st_uid != os.geteuid()
        if not shared and now.st_mode & 0o077:
            path.chmod(mode)
