"""An index on disk: `manifest.json`, which says what is there, beside the vectors themselves.

The manifest is replaced last and in one step, and names the vectors by their checksum: a process that dies while it
saves leaves the index as it was.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fieldscope.core.errors import ConfigError, IndexMismatchError
from fieldscope.core.files import replace_file, replacing
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.reading import file_bytes
from fieldscope.retrieval.encoder import CorrectedEncoder, Encoder, Vectors

FORMAT = 1
MANIFEST = "manifest.json"
_ROWS = 65_536  # vectors that are looked at together
_LOG = logging.getLogger(__name__)
_HALF_WRITTEN = re.compile(r"\.(vectors|manifest|skipped)(-[^.]+)?\.(npy|json)(\.[\d-]+\.part)?")
_REBUILD = "build it again with `fieldscope index`"


class Manifest(BaseModel):
    """What an index folder holds. `attributes` are further facts of the folder's owner, as JSON."""

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
    """Save vectors, shape (len(ids), dim), and replace the index in `folder`.

    `encoder_name` is what people call the encoder. Raises `ConfigError` where the disk refuses.
    """
    with writing(folder):
        digest = hashlib.sha256()
        np.save(cast(Any, SimpleNamespace(write=digest.update)), vectors, allow_pickle=False)
        manifest = Manifest(
            encoder_fingerprint=encoder_fingerprint,
            encoder_name=encoder_name,
            dim=vectors.shape[1],
            ids=tuple(ids),
            vectors_sha256=digest.hexdigest(),
            attributes=dict(attributes or {}),
        )
        with replacing(folder / manifest.vectors_name) as partial, partial.open("wb") as stream:
            np.save(stream, vectors, allow_pickle=False)
        body = manifest.model_dump(mode="json")
        replace_file(folder / MANIFEST, json.dumps({"format": FORMAT, "checksum": fingerprint(body), **body}))
        for old in folder.glob("vectors-*.npy"):
            if old.name != manifest.vectors_name:
                old.unlink()


def is_index(folder: Path) -> bool:
    """Whether a folder holds an index."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """What the index in `folder` says of itself. Raises `IndexMismatchError` where there is none, or a damaged one."""
    path = folder / MANIFEST
    try:
        body = json.loads(file_bytes(path))
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


def read_index(folder: Path, encoder: Encoder, *, mapped: bool = False) -> tuple[Manifest, Vectors]:
    """The index in `folder`, checked against its checksums and against the encoder that shall search it. With `mapped`
    its vectors stay in their file, of which memory holds what is read.

    Where another process replaces it meanwhile, the new one. Raises `IndexMismatchError` where the vectors are another
    encoder's, or the files are missing or damaged.
    """
    manifest = read_manifest(folder)
    while True:
        require_encoder(folder, manifest, encoder)
        try:
            return manifest, _read_vectors(folder / manifest.vectors_name, manifest, encoder.dim, mapped)
        except IndexMismatchError:
            latest = read_manifest(folder)
            if latest.vectors_sha256 == manifest.vectors_sha256:
                raise
            manifest = latest


def vectors_in(folder: Path, ids: Sequence[str]) -> Vectors | None:
    """The vectors under these ids, shape (len(ids), dim), without the encoder that made them; None where one of them is
    not in the index. Raises `IndexMismatchError` where the files are missing or damaged."""
    manifest = read_manifest(folder)
    rows = {image_id: row for row, image_id in enumerate(manifest.ids)}
    if not all(image_id in rows for image_id in ids):
        return None
    stored = _read_vectors(folder / manifest.vectors_name, manifest, manifest.dim, mapped=True)
    return np.asarray(stored[[rows[image_id] for image_id in ids]])


def _read_vectors(path: Path, manifest: Manifest, dim: int, mapped: bool) -> Vectors:
    try:
        if _sha256(path) != manifest.vectors_sha256:
            raise IndexMismatchError(f"{str(path)!r} is damaged (its checksum does not match); {_REBUILD}")
        stored = np.lib.format.open_memmap(path, mode="r")  # what its header claims is compared with the file's size
    except FileNotFoundError as error:
        raise IndexMismatchError(f"{str(path)!r} is missing; {_REBUILD}") from error
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise IndexMismatchError(f"{str(path)!r} can't be read; {_REBUILD}") from error
    if stored.dtype != np.float32 or stored.shape != (len(manifest.ids), manifest.dim) or manifest.dim != dim:
        raise IndexMismatchError(
            f"{str(path)!r} holds {stored.dtype} of shape {stored.shape}, not {len(manifest.ids)} vectors of length"
            f" {dim}; {_REBUILD}"
        )
    vectors: Vectors = stored if mapped else np.array(stored)
    finite = all(np.isfinite(vectors[start : start + _ROWS]).all() for start in range(0, len(vectors), _ROWS))
    if not finite or len(set(manifest.ids)) < len(manifest.ids):
        raise IndexMismatchError(f"{str(path)!r} holds numbers that are not finite, or an id twice; {_REBUILD}")
    return vectors


def require_encoder(folder: Path, manifest: Manifest, encoder: Encoder) -> None:
    """Raises `IndexMismatchError` where the index was made with another encoder than this one."""
    if manifest.encoder_fingerprint == encoder.fingerprint:
        return
    if is_of_wrong_build(manifest, encoder):
        raise IndexMismatchError(
            f"{str(folder)!r} was made with {manifest.encoder_name!r} built with GELU, but its weights were trained"
            f" with QuickGELU, so its vectors are wrong; rebuild it with `{_rebuild_command(folder, manifest)}`"
        )
    name = f"{manifest.encoder_name!r} " if manifest.encoder_name else ""
    raise IndexMismatchError(
        f"{str(folder)!r} was made with the encoder {name}(fingerprint {manifest.encoder_fingerprint[:12]}), not"
        f" with this one ({encoder.fingerprint[:12]}); use that encoder, or index the images into another folder"
    )


def is_of_wrong_build(manifest: Manifest, encoder: Encoder) -> bool:
    """Whether the index was made with this encoder's weights by a release that built them into a wrong model."""
    return isinstance(encoder, CorrectedEncoder) and manifest.encoder_fingerprint == encoder.wrong_fingerprint


def _rebuild_command(folder: Path, manifest: Manifest) -> str:
    match manifest.attributes.get("collection"):
        case {"kind": "folder", "root": str(root)}:
            images = root
        case {"kind": "parquet", "paths": [str(path), *_]}:
            images = str(Path(path).parent)
        case _:
            images = "IMAGES"
    return shlex.join(["fieldscope", "index", images, "-o", str(folder), "--encoder", manifest.encoder_name])


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Be the only process that writes an index into `folder`, which is created if it is missing. Waits for another
    process, and removes partial files of a killed one. Raises `ConfigError` where the disk refuses."""
    with ExitStack() as held:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((folder / ".lock").open("ab"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it dies with the process
            except BlockingIOError:
                _LOG.warning("another process is writing to %s; waiting for it", folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:
                pass  # a file system without locks: then the user must avoid two writers
            for left in (path for below in (folder, folder / "captions") for path in below.glob(".*")):
                if _HALF_WRITTEN.fullmatch(left.name):
                    left.unlink(missing_ok=True)
        yield


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn errors of the file system into a `ConfigError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"can't write to {str(folder)!r} ({error.strerror or error}); "
            "choose another folder, or free some disk space"
        ) from error


def _sha256(path: Path) -> str:
    if path.exists() and not path.is_file():  # reading a pipe might never end
        raise OSError(errno.EINVAL, "not a regular file")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
