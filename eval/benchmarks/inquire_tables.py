"""INQUIRE's tables: a split's queries with their groups, and the images that are relevant to them.

They lie in one folder as `inquire_queries_*.csv` and `inquire_annotations.csv`, as INQUIRE publishes them. Species and
places are part of a published path and so of the answer key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.types import Query
from fieldscope.eval.benchmarks.lingo import with_lingo
from fieldscope.eval.benchmarks.species import binomials, names_species
from fieldscope.eval.benchmarks.splits import canonical, require_split, wanted_split
from fieldscope.eval.benchmarks.tables import read_table
from fieldscope.eval.types import QueryMeta
from fieldscope.retrieval.formats import SUFFIXES

ANNOTATIONS = "inquire_annotations.csv"
_QUERIES = "inquire_queries_"
_SUFFIXES = tuple(sorted(SUFFIXES))


@dataclass(frozen=True)
class Positive:
    """A relevant image as the annotations name it."""

    image_id: str
    path: str


@dataclass(frozen=True)
class Tables:
    """A split as the tables in `folder` have it. `positives` are the relevant images by query id, `oddities` sentences
    about what is odd in the files."""

    folder: Path
    split: str
    queries: tuple[Query, ...]
    meta: Mapping[str, QueryMeta]
    positives: Mapping[str, Sequence[Positive]]
    oddities: tuple[str, ...]

    @property
    def relevant(self) -> list[Positive]:
        """The relevant images of all queries, also of other splits."""
        return [positive for of_query in self.positives.values() for positive in of_query]


def read_tables(path: Path, split: str | None) -> Tables:
    """A split; without `split` the test split. Raises `BenchmarkError` for tables of another shape and an unknown
    split."""
    folder = require_tables(path)
    files = {canonical(file.stem.removeprefix(_QUERIES)): file for file in sorted(folder.glob(f"{_QUERIES}*.csv"))}
    split = wanted_split(split, files)
    require_split(folder, split, files)
    queries = _queries(files[split])
    positives = _positives(folder / ANNOTATIONS)
    meta, odd = _meta(queries, positives, folder)
    oddities = (*odd, *_oddities(folder / ANNOTATIONS, positives))
    return Tables(folder, split, tuple(query for query, _ in queries), meta, positives, oddities)


def benchmark_name(path: Path) -> str:
    """What full retrieval over the tables in a folder is called."""
    stem = path.resolve().name
    return stem if "fullrank" in stem else f"{stem}-fullrank"


def require_tables(path: Path) -> Path:
    """As `tables_folder`. Raises `BenchmarkError` where there are none."""
    folder = tables_folder(path)
    if folder is None:
        raise BenchmarkError(
            f"{path} has no {_QUERIES}*.csv beside {ANNOTATIONS}. Fetch both from INQUIRE's repository."
        )
    return folder


def tables_folder(path: Path) -> Path | None:
    """The folder of the tables, which is `path` or `inquire` below it; None where there are none."""
    return next(
        (
            folder
            for folder in (path, path / "inquire")
            if (folder / ANNOTATIONS).is_file() and any(folder.glob(f"{_QUERIES}*.csv"))
        ),
        None,
    )


def spelled(path: str) -> str:
    """A path as the annotations spell it; the published embeddings' leave out the suffix."""
    path = path.strip()
    return path if path.lower().endswith(_SUFFIXES) else f"{path}.jpg"


def stem(path: str) -> str:
    """The name of its file, without the suffix."""
    return path.rpartition("/")[2].rpartition(".")[0]


def _queries(path: Path) -> list[tuple[Query, QueryMeta]]:
    """Queries with their groups, in the file's order."""
    queries: dict[str, tuple[Query, QueryMeta]] = {}
    for line, (query_id, text, supercategory, category, iconic_group) in read_table(
        path, ("query_id", "query_text"), ("supercategory", "category", "iconic_group")
    ):
        key = query_id.strip()
        if not key or not text.strip():
            raise BenchmarkError(f"{str(path)!r}, line {line}: the query has no id or no text. Correct the file.")
        if key in queries:
            raise BenchmarkError(f"{str(path)!r}, line {line}: the query id {key!r} occurs twice. Correct the file.")
        meta = QueryMeta(supercategory.strip(), category.strip(), iconic_group.strip())
        queries[key] = (Query(id=key, text=text), meta)
    return list(queries.values())


def _meta(
    queries: Sequence[tuple[Query, QueryMeta]], positives: Mapping[str, Sequence[Positive]], folder: Path
) -> tuple[dict[str, QueryMeta], tuple[str, ...]]:
    """The queries' groups, with those that their words and the benchmark's own list of lingo add, and sentences about
    what is odd in that list."""
    species = binomials(_species(positive.path) for of_query in positives.values() for positive in of_query)
    named = {query.id: replace(meta, scientific_name=names_species(query.text, species)) for query, meta in queries}
    return with_lingo(named, [query for query, _ in queries], folder)


def _positives(path: Path) -> dict[str, list[Positive]]:
    """Query id -> its relevant images."""
    positives: dict[str, list[Positive]] = {}
    for line, (query_id, image_id, image_path) in read_table(path, ("query_id", "image_id", "image_path")):
        if not image_id.strip() or not image_path.strip():
            raise BenchmarkError(f"{str(path)!r}, line {line}: the image has no id or no path. Correct the file.")
        positives.setdefault(query_id.strip(), []).append(Positive(image_id.strip(), spelled(image_path)))
    return positives


def _oddities(path: Path, positives: Mapping[str, Sequence[Positive]]) -> Iterator[str]:
    paths: dict[str, set[str]] = {}
    for positive in (relevant for of_query in positives.values() for relevant in of_query):
        paths.setdefault(positive.image_id, set()).add(positive.path)
    for image_id, named in paths.items():
        if len(named) > 1:
            yield f"{str(path)!r}: the image id {image_id} stands for several pictures: {', '.join(sorted(named))}"


def _species(path: str) -> str:
    """Genus and species of iNat24's folders, such as `04686_Animalia_..._Mungos_mungo`; empty for other paths."""
    folder = PurePosixPath(path).parent.name.split("_")
    return " ".join(folder[-2:]) if len(folder) > 2 and folder[0].isdecimal() else ""
