"""An index on disk: `manifest.json`, which says what is there, beside the vectors themselves.

The manifest is replaced last and in one step, and names the vectors by their checksum: a process that dies while it
saves leaves the index as it was. Any index type opens the same folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import ConfigError, IndexMismatchError
from core.fingerprint import fingerprint
from retrieval.encoder import Encoder, Vectors

FORMAT = 1
_REBUILD = "build it again with `fieldscope index`"


class Manifest(BaseModel):
    """What an index folder holds. `attributes` are whatever the folder's owner wants to find there again, as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder_fingerprint: str
    encoder_name: str = ""
    dim: int = Field(ge=1)
    ids: tuple[str, ...]
    vectors_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    attributes: dict[str, Any] = Field(default_factory=dict)

    @property
    def vectors_name(self) -> str:
        return f"vectors-{self.vectors_sha256[:16]}.npy"


def write_index(
    folder: Path,
    ids: Sequence[str],
    vectors: Vectors,
    encoder_fingerprint: str,
    *,
    encoder_name: str = "",
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Save vectors, shape (len(ids), dim), in place of the index that `folder` held.

    `encoder_name` is what people call the encoder. Raises `ConfigError` where the disk refuses.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f".vectors-{os.getpid()}.npy"
        with fresh.open("wb") as stream:
            np.save(stream, vectors, allow_pickle=False)
        manifest = Manifest(
            encoder_fingerprint=encoder_fingerprint,
            encoder_name=encoder_name,
            dim=vectors.shape[1],
            ids=tuple(ids),
            vectors_sha256=_sha256(fresh),
            attributes=dict(attributes or {}),
        )
        fresh.replace(folder / manifest.vectors_name)
        body = manifest.model_dump(mode="json")
        replace_file(
            folder / "manifest.json",
            lambda path: path.write_text(json.dumps({"format": FORMAT, "checksum": fingerprint(body), **body})),
        )
        for old in folder.glob("vectors-*.npy"):
            if old.name != manifest.vectors_name:
                old.unlink()


def read_manifest(folder: Path) -> Manifest:
    """What the index in `folder` says of itself. Raises `IndexMismatchError` where there is none, or a damaged one."""
    path = folder / "manifest.json"
    try:
        body = json.loads(path.read_bytes())
        if body.pop("format") != FORMAT:
            raise IndexMismatchError(f"{str(folder)!r} is an index of another Fieldscope version; {_REBUILD}")
        if body.pop("checksum") != fingerprint(body):
            raise IndexMismatchError(f"{str(path)!r} is damaged (its checksum does not match); {_REBUILD}")
        return Manifest.model_validate(body)
    except FileNotFoundError as error:
        raise IndexMismatchError(
            f"{str(folder)!r} holds no index; build one with `fieldscope index FOLDER -o {folder}`"
        ) from error
    except OSError as error:
        raise IndexMismatchError(f"{str(path)!r} can't be read ({error.strerror}); check the file") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        raise IndexMismatchError(f"{str(path)!r} is damaged; {_REBUILD}") from error


def read_index(folder: Path, encoder: Encoder) -> tuple[Manifest, Vectors]:
    """The index in `folder`, checked against its checksums and against the encoder that shall search it.

    Raises `IndexMismatchError` where the vectors are another encoder's, or the files are missing or damaged.
    """
    manifest = read_manifest(folder)
    require_encoder(folder, manifest, encoder)
    path = folder / manifest.vectors_name
    try:
        if _sha256(path) != manifest.vectors_sha256:
            raise IndexMismatchError(f"{str(path)!r} is damaged (its checksum does not match); {_REBUILD}")
        vectors: Vectors = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise IndexMismatchError(f"{str(path)!r} is missing; {_REBUILD}") from error
    except (OSError, ValueError, EOFError) as error:
        raise IndexMismatchError(f"{str(path)!r} can't be read; {_REBUILD}") from error
    if vectors.dtype != np.float32 or vectors.shape != (len(manifest.ids), manifest.dim):
        raise IndexMismatchError(
            f"{str(path)!r} holds {vectors.dtype} of shape {vectors.shape}, not {len(manifest.ids)} vectors of length"
            f" {manifest.dim}; {_REBUILD}"
        )
    return manifest, vectors


def require_encoder(folder: Path, manifest: Manifest, encoder: Encoder) -> None:
    """Raises `IndexMismatchError` where the index was made with another encoder than this one."""
    if manifest.encoder_fingerprint != encoder.fingerprint:
        name = f"{manifest.encoder_name!r} " if manifest.encoder_name else ""
        raise IndexMismatchError(
            f"{str(folder)!r} was made with the encoder {name}(fingerprint {manifest.encoder_fingerprint[:12]}), not"
            f" with this one ({encoder.fingerprint[:12]}); use that encoder, or index the images into another folder"
        )


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a new file, and put it at `path` in one step, so that no half-written file is ever there."""
    fresh = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    write(fresh)
    fresh.replace(path)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into a `ConfigError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"can't write to {str(folder)!r} ({error.strerror or error}); choose another folder, or make room"
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
