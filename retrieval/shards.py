"""Finished vectors of an unfinished build, kept so that the next process does not encode them again."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fieldscope.core.errors import IndexMismatchError
from fieldscope.core.files import replacing
from fieldscope.retrieval.encoder import Vectors
from fieldscope.retrieval.index import check_vectors
from fieldscope.retrieval.manifest import writing

_DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, IndexMismatchError),
)
"""Errors of reading a file that is not a shard, or is a hostile one."""


class Encoded(NamedTuple):
    """An image's vector, shape (dim,), and the stamp that its file had then."""

    image_id: str
    stamp: str
    vector: Vectors


class Shards:
    """The finished batches of one encoder under `folder`, a file each. A written shard survives `kill -9`."""

    def __init__(self, folder: Path, encoder_fingerprint: str) -> None:
        self.folder = folder / f"shards-{encoder_fingerprint[:16]}"

    def write(self, batch: Sequence[Encoded]) -> None:
        """Raises `IndexMismatchError` for vectors that can't be indexed, `ConfigError` where the disk refuses."""
        labels = json.dumps([[entry.image_id, entry.stamp] for entry in batch])
        path = self.folder / f"{hashlib.sha256(labels.encode()).hexdigest()[:16]}.npz"
        vectors = np.stack([entry.vector for entry in batch])
        check_vectors([entry.image_id for entry in batch], vectors)
        with writing(self.folder), replacing(path) as partial, partial.open("wb") as stream:
            np.savez(stream, labels=np.array(labels), vectors=vectors)

    def read(self) -> Iterator[Encoded]:
        """Everything written so far. A damaged shard counts as not written."""
        for path in sorted(
            filter(Path.is_file, self.folder.glob("[!.]*.npz")), key=lambda path: path.stat().st_mtime_ns
        ):
            try:
                with np.load(path, allow_pickle=False) as shard:
                    labels, vectors = json.loads(str(shard["labels"])), shard["vectors"]
                check_vectors([image_id for image_id, _ in labels], vectors)
            except _DAMAGED:
                continue
            for (image_id, stamp), vector in zip(labels, vectors, strict=True):
                yield Encoded(image_id, stamp, vector)

    def clear(self) -> None:
        """Remove the shards once an index has their vectors."""
        shutil.rmtree(self.folder, ignore_errors=True)
