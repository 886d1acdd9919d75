"""An append-only file of JSON lines that survives `kill -9`: a line that `append` returned from is on the disk."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fieldscope.core.errors import ConfigError


class JsonLines:
    """One writer at a time, across processes where the file system has locks. Call `recover` before `append`.

    Raises `ConfigError` where another process is writing, or the file can't be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("a+b", buffering=0)  # so that nothing is left to write when a full disk is closed
        except OSError as error:
            raise ConfigError(f"can't write {path}: {error.strerror}. Choose another folder.") from error
        try:
            # The lock dies with the process, so a killed one leaves nothing to clean up.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise ConfigError(f"another process is writing {path}. Wait for it, or choose another folder.") from error
        except OSError:
            pass  # A file system without locks: the user must then avoid two writers.

    def recover(self) -> list[bytes]:
        """The complete lines without their ends, oldest first. A last line that was cut off by a kill is dropped."""
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        return content[:whole].splitlines()

    def append(self, lines: Iterable[str], durable: bool = True) -> None:
        """Write the lines and, unless they need not be `durable`, wait until they are on the disk: without that they
        survive the process, and no loss of power. Where it fails none of them is there."""
        block = "".join(f"{line}\n" for line in lines).encode()
        if not block:
            return
        whole = os.fstat(self._file.fileno()).st_size
        try:
            rest = memoryview(block)
            while rest:
                rest = rest[self._file.write(rest) :]
            if durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(whole)
            raise ConfigError(
                f"can't write {self._path}: {error.strerror}; free some disk space, then rerun this command."
            ) from error

    def close(self) -> None:
        """Close the file and let other processes write it."""
        self._file.close()
