"""A portable file of records: JSON lines, compressed with gzip, of which the first says what the others are.

Safe to use on untrusted files. It holds JSON only; its first line states the size, which is checked against limits
before the rest is read; and a file that was cut off or altered is refused as a whole.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fieldscope.core.errors import CacheError
from fieldscope.core.files import replacing

VERSION = 1

_HEADER_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"


class ArchiveHeader(BaseModel):
    """The first line: the format, whose answers these are (a model's identity, None where none was asked), how many
    lines of each kind follow, and the size in bytes and the SHA-256 of all that follows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["fieldscope-recording"] = "fieldscope-recording"
    version: int = VERSION
    model: str | None = None
    counts: Mapping[str, int]
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class ArchiveLimits:
    """The most that is read: bytes of all lines and of a single one, as they come out of the compression."""

    max_bytes: int = 4 << 30
    max_line: int = 64 << 20


DEFAULT_LIMITS = ArchiveLimits()


def looks_like_archive(path: Path) -> bool:
    """Whether a path is a compressed file. Only reading shows its content."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(_GZIP)) == _GZIP
    except OSError:
        return False


def write_archive(path: Path, model: str | None, lines: Iterable[tuple[str, str]]) -> ArchiveHeader:
    """Write lines, each a kind and a JSON text without line breaks, completely or not at all; `path` may exist.

    The same lines make the same file, byte for byte. Raises `CacheError` where the disk refuses.
    """
    counts: Counter[str] = Counter()
    digest, size = sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as body:
            with _compressing(body) as stream:
                for kind, line in lines:
                    data = f"{line}\n".encode()
                    counts[kind] += 1
                    size += len(data)
                    digest.update(data)
                    stream.write(data)
            header = ArchiveHeader(
                model=model, counts=dict(sorted(counts.items())), size_bytes=size, sha256=digest.hexdigest()
            )
            body.seek(0)
            with replacing(path, durable=True) as partial, partial.open("wb") as file:
                with _compressing(file) as stream:
                    stream.write(f"{header.model_dump_json()}\n".encode())
                shutil.copyfileobj(body, file)
    except OSError as error:
        raise CacheError(
            f"can't write {path}: {error.strerror or error}. Check the folder, and that the disk is not full"
        ) from error
    return header


class Archive:
    """An archive to read from. Raises `CacheError` for a file that is none, too large, or of another version."""

    def __init__(self, path: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> None:
        self.path = path
        self.limits = limits
        with self._opened() as (header, _):
            self.header = header

    def lines(self) -> Iterator[bytes]:
        """Every line but the first. Only after the last one is it certain that none was altered, so act on none before.
        Raises `CacheError` for a file that differs from its first line's description."""
        digest, size = sha256(), 0
        with self._opened() as (header, stream):
            while line := stream.readline(self.limits.max_line + 1):
                size += len(line)
                if len(line) > self.limits.max_line:
                    raise CacheError(
                        f"{self.path} has a line of over {self.limits.max_line:,} bytes and is unsafe; "
                        "fetch it again, or repeat the export"
                    )
                if size > header.size_bytes:
                    break
                digest.update(line)
                yield line
            if size != header.size_bytes or digest.hexdigest() != header.sha256:
                raise CacheError(f"{self.path} was altered or cut off; fetch it again, or repeat the export")

    def check(self) -> None:
        """Read everything once, for its errors."""
        for _ in self.lines():
            pass

    @contextmanager
    def _opened(self) -> Iterator[tuple[ArchiveHeader, gzip.GzipFile]]:
        """The first line, and the file from the second one on."""
        try:
            with gzip.open(self.path, "rb") as stream:
                yield self._header(stream.readline(_HEADER_BYTES)), stream
        except EOFError as error:
            raise CacheError(f"{self.path} was cut off; fetch it again, or repeat the export") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise CacheError(f"{self.path} is damaged or is not an export of Fieldscope; fetch it again") from error
        except OSError as error:
            raise CacheError(f"can't read {self.path}: {error.strerror or error}; check the path") from error

    def _header(self, line: bytes) -> ArchiveHeader:
        try:
            header = ArchiveHeader.model_validate_json(line)
        except ValidationError as error:
            raise CacheError(f"{self.path} is damaged or is not an export of Fieldscope; fetch it again") from error
        if header.version != VERSION:
            raise CacheError(
                f"{self.path} has export format {header.version}, this Fieldscope reads {VERSION}: use the Fieldscope "
                "that wrote it, or repeat the export"
            )
        if header.size_bytes > self.limits.max_bytes:
            raise CacheError(
                f"{self.path} holds {header.size_bytes:,} bytes, and at most {self.limits.max_bytes:,} are read; "
                "export fewer runs at once"
            )
        return header


def _compressing(file: IO[bytes]) -> gzip.GzipFile:
    """Without name and time, so that the same content makes the same bytes."""
    return gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
