"""Files that are replaced in one step: a reader sees the old content or the new one, never a part of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fieldscope.core.private import private_file, private_folder


@contextmanager
def replacing(path: Path, *, private: bool = False, durable: bool = False) -> Iterator[Path]:
    """Yield a path beside `path` to write to. That file replaces `path` when the block ends, and is removed when the
    block raises.

    Missing folders are created. A `private` file and its new folders are closed to other users. A `durable` file
    survives a power failure from then on. Raises `OSError`.
    """
    if private:
        private_folder(path.parent)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        if private:
            private_file(partial)
        yield partial
        if durable:
            _sync(partial)
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    if durable:
        _sync(path.parent)


def replace_file(path: Path, content: str | bytes, *, private: bool = False, durable: bool = False) -> None:
    """Replace a file's content as `replacing` does; text is written as UTF-8, its line breaks as they are."""
    with replacing(path, private=private, durable=durable) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
