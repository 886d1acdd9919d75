"""INQUIRE-Rerank (Vendrow et al. 2024, arXiv 2411.02537): Parquet files with a row per query and candidate.

A copy of the data set `evendrow/INQUIRE-Rerank` and FieldNotes-Rerank have this shape. `clip_score` is the prior;
species, file names, places and groups are the answer key, and only groups and species are read, for the breakdowns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.benchmarks.lingo import with_lingo
from fieldscope.eval.benchmarks.species import binomials, names_species
from fieldscope.eval.benchmarks.splits import WHOLE, canonical, require_split, wanted_split
from fieldscope.eval.reported import INQUIRE_RERANK
from fieldscope.eval.types import Benchmark, QueryMeta
from fieldscope.retrieval.parquet import ParquetCollection, missing_parts

COLUMNS = (
    "image", "query", "relevant", "clip_score", "inat24_image_id", "inat24_file_name", "supercategory", "category",
    "iconic_group", "inat24_species_id", "inat24_species_name", "latitude", "longitude", "location_uncertainty", "date",
    "license", "rights_holder",
)  # fmt: skip


@dataclass(frozen=True)
class _Kind:
    name: str
    accepted: tuple[Callable[[pa.DataType], bool], ...]


_TEXT = _Kind("text", (pa.types.is_string, pa.types.is_large_string))
_ID = _Kind("whole numbers or text", (pa.types.is_integer, *_TEXT.accepted))
_NUMBER = _Kind("numbers", (pa.types.is_floating, pa.types.is_integer))
_BINARY = _Kind("0 and 1", (pa.types.is_boolean, *_NUMBER.accepted))
_IMAGE = _Kind("images as bytes", (pa.types.is_binary, pa.types.is_large_binary))
_KINDS = {
    "query": _TEXT,
    "relevant": _BINARY,
    "clip_score": _NUMBER,
    "inat24_image_id": _ID,
    "supercategory": _TEXT,
    "category": _TEXT,
    "iconic_group": _TEXT,
    "inat24_species_name": _TEXT,
}
"""The columns that are read into memory."""

FILE_PRIOR = "clip_score of the files"
"""Where the first-stage scores of such files come from, unless an encoder gives its own."""

_SPLIT_OF_NAME = re.compile(r"(train|validation|val|test)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class _Row:
    query: str
    image_id: str
    relevant: int
    prior: float
    meta: QueryMeta
    species: str


def load_inquire_rerank(path: Path, split: str | None = None, name: str | None = None) -> Benchmark:
    """The benchmark in a Parquet file, or in the Parquet files under a folder.

    A file belongs to the split that its name, or else its folder's, begins with (`test-00000-of-00002.parquet`,
    `validation/part-0.parquet`). Without `split` the test split is taken if there is one. Files that name no split are
    one split, whichever is asked for. Queries are named `q000`, `q001`, ... in order of appearance; those that differ
    only by blanks are one, as it is first written. Images are decoded when they are looked at.

    Raises `BenchmarkError` for a path without Parquet files, parts that are missing by the files' own numbers, an
    unknown split, missing columns, values of a wrong type, judgments other than 0 and 1, scores that are no finite
    number, empty query texts, an image twice in a query, and images without bytes.
    """
    split, files = _files_of_split(path, split)
    rows: dict[str, dict[str, _Row]] = {}
    spellings: dict[str, dict[str, None]] = {}
    for file in files:
        for number, row in enumerate(_rows(file)):
            words = " ".join(row.query.split())
            spellings.setdefault(words, {})[row.query] = None
            candidates = rows.setdefault(words, {})
            if row.image_id in candidates:
                raise BenchmarkError(
                    f"{file}, row {number}: image {row.image_id} occurs twice in the query {row.query!r}. Fetch the "
                    "file again."
                )
            candidates[row.image_id] = row
    if not rows:
        raise BenchmarkError(f"{path} holds no rows for the split {split!r}. Fetch it again, or name another split.")
    images = ParquetCollection(files, image_column="image", id_column="inat24_image_id")
    faults = images.faults()
    if faults.without_bytes:
        raise BenchmarkError(
            f"{path}: {len(faults.without_bytes):,} images have no bytes, such as {faults.without_bytes[0]}, and paths"
            " are not followed. Store the images in the Parquet files themselves."
        )
    digits = max(3, len(str(len(rows) - 1)))
    species = binomials({row.species for of_query in rows.values() for row in of_query.values()})
    named = {f"q{number:0{digits}}": list(of_query.values()) for number, of_query in enumerate(rows.values())}
    queries = tuple(Query(id=query_id, text=of_query[0].query) for query_id, of_query in named.items())
    meta = {
        query_id: replace(of_query[0].meta, scientific_name=names_species(of_query[0].query, species))
        for query_id, of_query in named.items()
    }
    meta, odd = with_lingo(meta, queries, path if path.is_dir() else path.parent)
    return Benchmark(
        name=name or path.resolve().stem,
        split=split,
        queries=queries,
        qrels={query_id: {row.image_id: row.relevant for row in of_query} for query_id, of_query in named.items()},
        images=images,
        candidate_sets={
            query_id: tuple(Candidate(row.image_id, row.prior) for row in of_query)
            for query_id, of_query in named.items()
        },
        meta=meta,
        oddities=(
            *odd,
            *(
                f"{path}: queries that differ only by blanks are taken as one: {', '.join(map(repr, texts))}"
                for texts in spellings.values()
                if len(texts) > 1
            ),
            *(
                f"{path}: the image id {image_id} stands for different pictures, of which the first is taken for all; "
                "give each its own inat24_image_id"
                for image_id in faults.ambiguous
            ),
        ),
        prior=FILE_PRIOR,
        reported=INQUIRE_RERANK,
    )


def file_names(path: Path, split: str | None = None) -> dict[str, str]:
    """Image id -> `inat24_file_name`, of a split's files. They say the species, so nothing that asks may read them.

    Raises `BenchmarkError` as `load_inquire_rerank` does.
    """
    names: dict[str, str] = {}
    for file in _files_of_split(path, split)[1]:
        table = _read(file, ("inat24_image_id", "inat24_file_name"))
        for image_id, name in zip(*(column.to_pylist() for column in table.columns), strict=True):
            names[str(image_id)] = str(name)
    return names


def named_splits(path: Path) -> frozenset[str]:
    """The splits that the names of these files say, `all` for files that name none. Raises `BenchmarkError`."""
    return frozenset(_by_split(path))


def _files_of_split(path: Path, split: str | None) -> tuple[str, list[Path]]:
    splits = _by_split(path)
    chosen = wanted_split(split, splits)
    if set(splits) == {WHOLE}:
        files = splits[WHOLE]
    else:
        require_split(path, chosen, splits)
        files = splits[chosen]
    _require_all_parts(path, files)
    return chosen, files


def _by_split(path: Path) -> dict[str, list[Path]]:
    if not path.exists():
        raise BenchmarkError(f"{path} does not exist. Give a Parquet file or a folder of them.")
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not files:
        raise BenchmarkError(f"{path} holds no Parquet files. Give a folder that does.")
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of(file, path), []).append(file)
    return splits


def _require_all_parts(path: Path, files: Sequence[Path]) -> None:
    if missing := missing_parts(files):
        more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
        where = f"Give the folder {str(path.parent)!r}." if path.is_file() else "Fetch the missing files."
        raise BenchmarkError(
            f"{path} is only a part of a data set ({', '.join(missing[:5])}{more} missing), and its figures would not "
            "be "
            f"those of the whole. {where}"
        )


def _split_of(file: Path, root: Path) -> str:
    names = [file.name] if file == root else [file.name, *(part.name for part in file.relative_to(root).parents)]
    for name in names:
        if match := _SPLIT_OF_NAME.match(name):
            return canonical(match[1])
    return WHOLE


def _rows(file: Path) -> Iterator[_Row]:
    table = _read(file)
    for number, values in enumerate(zip(*(table.column(column).to_pylist() for column in _KINDS), strict=True)):
        query, relevant, prior, image_id, supercategory, category, iconic_group, species = values
        where = f"{file}, row {number}"
        if not query or not query.strip():
            raise BenchmarkError(f"{where}: the query is empty. Fetch the file again.")
        if relevant not in (0, 1):
            raise BenchmarkError(f"{where}: relevant is {relevant}, not 0 or 1. Fetch the file again.")
        if prior is None or not math.isfinite(prior):
            raise BenchmarkError(f"{where}: clip_score is {prior}, not a finite number. Fetch the file again.")
        if image_id in (None, ""):
            raise BenchmarkError(f"{where}: inat24_image_id is empty. Fetch the file again.")
        meta = QueryMeta(supercategory or "", category or "", iconic_group or "")
        yield _Row(query, str(image_id), int(relevant), float(prior), meta, species or "")


def _read(file: Path, columns: Sequence[str] = tuple(_KINDS)) -> pa.Table:
    """Some columns of a file whose columns are all there and of the right types."""
    try:
        with pq.ParquetFile(file) as parquet:
            _check_schema(file, parquet.schema_arrow)
            return parquet.read(columns=list(columns))
    except (OSError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise BenchmarkError(f"{file} can't be read as Parquet ({reason}). Fetch it again.") from error


def _check_schema(file: Path, schema: pa.Schema) -> None:
    if missing := [column for column in COLUMNS if column not in schema.names]:
        raise BenchmarkError(
            f"{file} lacks {', '.join(missing)}. INQUIRE-Rerank's columns are {', '.join(COLUMNS)}; fetch the file "
            "again."
        )
    for column, kind in {"image": _IMAGE, **_KINDS}.items():
        kind_in_file = schema.field(column).type
        if not any(accepts(_plain(kind_in_file)) for accepts in kind.accepted):
            raise BenchmarkError(
                f"{file}: column {column} holds {kind_in_file}, not {kind.name}. Fetch the file again."
            )


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values: what a dictionary encodes, what lies in an image's `bytes`."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return kind.field("bytes").type
    return kind
