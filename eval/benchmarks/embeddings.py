"""Image embeddings computed elsewhere: NumPy files and the names of their rows, opened without loading them.

Three layouts, each a folder:

- INQUIRE's, which is clip-retrieval's: `img_emb/img_emb_*.npy`, and in `metadata/*.parquet` a row for each vector;
- plain: `embeddings.npy`, and `ids.csv` or `ids.txt` with a line for each vector;
- a library that `fieldscope index` made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fieldscope.core.errors import BenchmarkError, IndexMismatchError
from fieldscope.core.text_rows import ArrowTexts
from fieldscope.eval.benchmarks.embedding_folders import layout_of
from fieldscope.eval.benchmarks.tables import header, read_rows
from fieldscope.retrieval.encoder import Encoder, Vectors
from fieldscope.retrieval.manifest import Manifest, read_manifest, require_encoder

ID_COLUMNS = ("image_id", "inat24_image_id", "id")
PATH_COLUMNS = ("image_path", "inat24_file_name", "file_name", "path")

_BLOCK = 16_384
_UNIT = 0.01
"""Vectors whose length differs from 1 by at most this are not normalised: half precision rounds by less."""


@dataclass(frozen=True)
class Embeddings:
    """Memory-mapped vectors of images, and what is said of each: column -> values, all of one length.

    A column without a name is called "". `manifest` is there for a library of `fieldscope index`.
    """

    folder: Path
    columns: Mapping[str, Sequence[str]]
    arrays: tuple[NDArray[np.floating], ...]
    manifest: Manifest | None = None

    def __len__(self) -> int:
        return sum(map(len, self.arrays))

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.arrays[0].shape[1])

    def files(self) -> list[tuple[str, int, int]]:
        """Name, size and time of writing (ns) of each file of vectors: what changes when they do."""
        paths = [Path(str(array.filename)) for array in self.arrays if isinstance(array, np.memmap)]
        return [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths]

    def require(self, encoder: Encoder, name: str) -> None:
        """Raise `IndexMismatchError` where queries encoded by this encoder, `name` to people, can't be compared with
        these vectors. Of NumPy files only the length can tell."""
        if self.manifest is not None:
            require_encoder(self.folder, self.manifest, encoder)
        if encoder.dim != self.dim:
            raise IndexMismatchError(
                f"the embeddings in {str(self.folder)!r} have length {self.dim}, and those of the encoder {name!r} "
                f"{encoder.dim}. Name the model that made them with --encoder."
            )

    def blocks(self, first: int = 0) -> Iterator[Vectors]:
        """The vectors from the row `first` on as float32, some at a time, in order. Those that are not of length 1 are
        scaled to it.

        Raises `BenchmarkError` for numbers that are not finite.
        """
        before = 0
        for array in self.arrays:
            skipped = min(max(first - before, 0), len(array))
            before += len(array)
            for start in range(skipped, len(array), _BLOCK):
                block = np.array(array[start : start + _BLOCK], dtype=np.float32)
                lengths = np.linalg.norm(block, axis=1, keepdims=True)
                if not np.isfinite(lengths).all():
                    raise BenchmarkError(f"{str(self.folder)!r} holds vectors that are not finite. Fetch them again.")
                off = (np.abs(lengths - 1) > _UNIT) & (lengths > 0)
                yield np.where(off, block / np.where(off, lengths, 1), block).astype(np.float32, copy=False)


def open_embeddings(folder: Path) -> Embeddings:
    """The embeddings in a folder of one of the three layouts; vectors stay on the disk, and nothing is unpickled.

    Raises `BenchmarkError` for files that can't be read, or that do not agree in how many images there are.
    """
    kind = layout_of(folder)
    if kind == "library":
        manifest = read_manifest(folder)
        names: Mapping[str, Sequence[str]] = {"image_path": manifest.ids}
        return _checked(Embeddings(folder, names, (_mapped(folder / manifest.vectors_name),), manifest))
    if kind == "plain":
        names = _named(folder)
        return _checked(Embeddings(folder, names, (_mapped(folder / "embeddings.npy"),)))
    arrays = sorted((folder / "img_emb").glob("*.npy"), key=_shard)
    tables = sorted((folder / "metadata").glob("*.parquet"), key=_shard)
    mapped = tuple(map(_mapped, arrays))
    parts = [_parquet(table) for table in tables]
    if not parts:
        raise BenchmarkError(
            f"{str(folder)!r} has no metadata/*.parquet, which name the images of the vectors. Fetch them."
        )
    if len(arrays) == len(tables):
        if len(arrays) > 1 and [_shard(array)[0] for array in arrays] != [_shard(table)[0] for table in tables]:
            raise BenchmarkError(
                f"{str(folder)!r}: the numbers of img_emb/*.npy and of metadata/*.parquet differ, so the images of the "
                "vectors are unknown. Fetch the missing files."
            )
        for array, vectors, table, part in zip(arrays, mapped, tables, parts, strict=True):
            if len(vectors) != _rows_of(part):
                raise BenchmarkError(
                    f"{array.name} has {len(vectors):,} vectors, and {table.name} beside it {_rows_of(part):,} rows. "
                    "Fetch them again."
                )
    shared = [name for name in parts[0] if all(name in part for part in parts)]
    joined = {n: ArrowTexts(pa.chunked_array([piece for part in parts for piece in part[n].chunks])) for n in shared}
    return _checked(Embeddings(folder, joined, mapped))


def _checked(embeddings: Embeddings) -> Embeddings:
    dims = {array.shape[1] for array in embeddings.arrays}
    if len(dims) > 1:
        raise BenchmarkError(
            f"{str(embeddings.folder)!r} holds vectors of several lengths ({sorted(dims)}). Keep those of one model."
        )
    if not embeddings.columns:
        raise BenchmarkError(
            f"{str(embeddings.folder)!r} does not name its images. Add one of the columns {', '.join(ID_COLUMNS)} and "
            f"{', '.join(PATH_COLUMNS)}"
        )
    if (rows := _rows_of(embeddings.columns)) != len(embeddings):
        raise BenchmarkError(
            f"{str(embeddings.folder)!r} has {len(embeddings):,} vectors, and names {rows:,} images. Fetch them again."
        )
    return embeddings


def _rows_of(columns: Mapping[str, Sequence[str] | pa.ChunkedArray]) -> int:
    return len(next(iter(columns.values()), ()))


def _mapped(path: Path) -> NDArray[np.floating]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BenchmarkError(f"{str(path)!r} can't be read as an array of numbers. Fetch it again.") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or not array.size or array.dtype.kind != "f":
        what = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise BenchmarkError(
            f"{str(path)!r} holds {what}, not a row of floating-point numbers for each image. Fetch it again."
        )
    return array


def _named(folder: Path) -> dict[str, Sequence[str]]:
    """The columns of `ids.csv`, or the lines of `ids.txt`; a first line that names no column is an image's."""
    path = next((path for name in ("ids.csv", "ids.txt") if (path := folder / name).is_file()), None)
    if path is None:
        raise BenchmarkError(
            f"{str(folder)!r} has no ids.csv or ids.txt, which name the images of the vectors. Add one."
        )
    if path.suffix == ".txt":
        return {"": [line for _, (line,) in read_rows(path, delimiter=None)]}
    rows = [row for _, row in read_rows(path)]
    names = header(rows[0]) if rows else []
    if known := [name for name in names if name in (*ID_COLUMNS, *PATH_COLUMNS)]:
        if any(len(row) != len(names) for row in rows):
            raise BenchmarkError(f"{str(path)!r}: not every line has {len(names)} values. Correct the file.")
        return {name: [row[names.index(name)] for row in rows[1:]] for name in known}
    if any(len(row) != 1 for row in rows):
        raise BenchmarkError(
            f"{str(path)!r} names none of the columns {', '.join((*ID_COLUMNS, *PATH_COLUMNS))} in its first line. Add "
            "one."
        )
    return {"": [row[0] for row in rows]}


def _parquet(path: Path) -> dict[str, pa.ChunkedArray]:
    try:
        with pq.ParquetFile(path) as file:
            columns = {name: header([name])[0] for name in file.schema_arrow.names}
            known = [name for name, plain in columns.items() if plain in (*ID_COLUMNS, *PATH_COLUMNS)]
            table = file.read(columns=known)
            return {columns[name]: table.column(name).cast(pa.large_string()) for name in known}
    except (OSError, pa.ArrowException) as error:
        raise BenchmarkError(f"{str(path)!r} can't be read as Parquet. Fetch it again.") from error


def _shard(path: Path) -> tuple[int, str]:
    """Order by the number in a file's name, whether or not it is filled up with zeros."""
    numbers = re.findall(r"\d+", path.stem)
    return (int(numbers[-1]) if numbers else -1, path.name)
