"""INQUIRE's published lists of the best 1,000 images for each query (`MODEL--top-1000.pkl`), one file for each CLIP.

Such a file is a pickled list of dictionaries: `query`, `distances` (cosine similarities, best first) and `indices` as
torch's tensors, and `matches`, the images' metadata with their `image_path`. Nothing in it is ever run
(`fieldscope.eval.benchmarks.inert_pickle`), and torch is not needed to read it.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fieldscope.eval.benchmarks.inert_pickle import NUMPY, Inert, Reader, read_inert

_MAGIC = 0x1950A86A20F9469CFC6C  # what torch writes before a storage
_TYPES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4",
}  # fmt: skip
"""The kinds of numbers in a tensor, by torch's names."""


@dataclass(frozen=True)
class RankedImages:
    """The best images for a query, best first: paths below iNat24's folder, as the file spells them, and the
    similarities, which may be equal."""

    paths: tuple[str, ...]
    scores: tuple[float, ...]

    def top(self, count: int) -> RankedImages:
        """The first so many."""
        return RankedImages(self.paths[:count], self.scores[:count])


def is_top_k(path: Path) -> bool:
    """Whether a file is meant to be such a list, by its name."""
    return path.suffix.lower() in {".pkl", ".pickle"}


def read_top_k(path: Path) -> dict[str, RankedImages]:
    """Query text -> its best images. Raises `BenchmarkError` for a file that is no such list."""
    lists: dict[str, RankedImages] = read_inert(path, _lists, "a list of the best images")
    return lists


def _lists(file: BinaryIO) -> dict[str, RankedImages]:
    entries = Reader(file, _NAMES).load()
    if not isinstance(entries, list) or not entries:
        raise ValueError("there is no list of queries in it")
    return {entry["query"]: _ranked(entry) for entry in entries}


def _ranked(entry: Mapping[str, Any]) -> RankedImages:
    query, scores, matches = entry["query"], entry["distances"], entry["matches"]
    if not isinstance(query, str) or not isinstance(scores, list) or not isinstance(matches, list):
        raise ValueError("an entry has not a query, its distances and its matches")
    paths = [match["image_path"] for match in matches]
    if len(scores) != len(paths) or not all(isinstance(path, str) for path in paths):
        raise ValueError(f"the images of the query {query!r} have not one path and one distance each")
    if not all(map(math.isfinite, scores)):
        raise ValueError(f"the distances of the query {query!r} are no finite numbers")
    return RankedImages(tuple(paths), tuple(scores))


@dataclass(frozen=True)
class _StorageType:
    """What stands for a class of torch's storages."""

    code: str


def _storage(data: Any) -> np.ndarray[Any, Any]:
    """The numbers of a storage, as `torch.save` writes it without the zip format: a magic number, a version, facts
    about the machine, the storage as a reference, the list of references, and then its bytes."""
    file = BytesIO(data)
    if Reader(file, {}).load() != _MAGIC:
        raise pickle.UnpicklingError("it holds a tensor of an unknown form")
    version, machine = Reader(file, {}).load(), Reader(file, {}).load()
    if version != 1001 or machine.get("little_endian") is not True:
        raise pickle.UnpicklingError("it holds a tensor of an unknown form")
    referred = Reader(file, _STORAGES, persistent=lambda reference: reference).load()
    kind, key, keys = referred[1], referred[2], Reader(file, {}).load()
    if not isinstance(kind, _StorageType) or keys != [key]:
        raise pickle.UnpicklingError("it holds a tensor of an unknown form")
    count = int.from_bytes(file.read(8), "little")
    return np.frombuffer(file.read(), dtype=kind.code, count=count)


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> list[float]:
    if not isinstance(storage, np.ndarray) or len(size) != 1 or offset < 0:
        raise pickle.UnpicklingError("it holds a tensor of an unknown form")
    values = storage[offset :: max(stride[0], 1)][: size[0]]
    if len(values) != size[0]:
        raise pickle.UnpicklingError("it holds a tensor that is cut off")
    return [float(value) for value in values]


_STORAGES = {("torch", name): _StorageType(code) for name, code in _TYPES.items()}
_NAMES: Mapping[tuple[str, str], Any] = {
    **NUMPY,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): Inert,
}
