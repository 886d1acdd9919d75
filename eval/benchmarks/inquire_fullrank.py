"""INQUIRE-Fullrank (Vendrow et al. 2024, arXiv 2411.02537): queries over a whole collection of embedded images.

A folder with `inquire_queries_*.csv` and `inquire_annotations.csv`, as INQUIRE publishes them; in it or beside it lie
the embeddings (`fieldscope.eval.benchmarks.embeddings`) and, for strategies that look, the images. Species and places
are part of a published path and so of the answer key: where paths name the images, an id is the file's name alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from PIL import Image as PILImage

from fieldscope.core.errors import BenchmarkError, BrokenImageError, ImageError
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.benchmarks.embedding_folders import find_embeddings
from fieldscope.eval.benchmarks.embeddings import ID_COLUMNS, PATH_COLUMNS, Embeddings, open_embeddings
from fieldscope.eval.benchmarks.inquire_top_k import RankedImages
from fieldscope.eval.benchmarks.species import binomials, names_species
from fieldscope.eval.benchmarks.splits import canonical, require_split, wanted_split
from fieldscope.eval.benchmarks.tables import read_table
from fieldscope.eval.reported import INQUIRE_FULLRANK
from fieldscope.eval.types import Benchmark, QueryMeta
from fieldscope.retrieval.collection import DecodingCollection, FolderCollection
from fieldscope.retrieval.formats import SUFFIXES
from fieldscope.retrieval.images import DEFAULT_LIMITS, open_image

ANNOTATIONS = "inquire_annotations.csv"
_QUERIES = "inquire_queries_"
_SUFFIXES = tuple(sorted(SUFFIXES))
_ROOTS = ("", "images", "inat24")
_PROBED = 50  # relevant images, and others, that are looked for under a folder before it is no image root


@dataclass(frozen=True)
class Fullrank:
    """A split of INQUIRE-Fullrank, and the vectors to search: `ids` are the images' ids, along the embeddings.

    `missing` counts relevant images without an embedding; they count as missed. `has_images` says whether an image
    root was found.
    """

    benchmark: Benchmark
    embeddings: Embeddings
    ids: Sequence[str]
    missing: int
    has_images: bool


@dataclass(frozen=True)
class _Positive:
    """A relevant image as the annotations name it."""

    image_id: str
    path: str


def is_fullrank(path: Path) -> bool:
    """Whether `path`, or `inquire` below it, is a folder of INQUIRE-Fullrank's tables."""
    return _tables(path) is not None


def load_inquire_fullrank(
    path: Path,
    split: str | None = None,
    encoder: str | None = None,
    name: str | None = None,
    *,
    embeddings: Path | None = None,
) -> Fullrank:
    """A split of INQUIRE-Fullrank; without `split` the test split. `encoder` is the name of the one that will encode
    the queries, by which the embeddings of several models are distinguished; `embeddings` is a folder of vectors, or of
    such folders, in place of those that lie in or beside the tables.

    Raises `BenchmarkError` for tables of another shape, an unknown split, missing or unreadable embeddings, and
    embeddings that hold none of the relevant images.
    """
    folder = _require_tables(path)
    files = {canonical(file.stem.removeprefix(_QUERIES)): file for file in sorted(folder.glob(f"{_QUERIES}*.csv"))}
    split = wanted_split(split, files)
    require_split(folder, split, files)
    queries = _queries(files[split])
    positives = _positives(folder / ANNOTATIONS)
    places = _places(folder)
    vectors = open_embeddings(find_embeddings(places, encoder, embeddings))
    ids, paths, by_path = _named(vectors, positives)
    qrels = {
        query.id: {_called(positive, by_path): 1 for positive in positives.get(query.id, ())} for query, _ in queries
    }
    known = frozenset(ids)
    species = binomials(_species(positive.path) for of_query in positives.values() for positive in of_query)
    relevant = (positive.path for of_query in positives.values() for positive in of_query)
    images = _Images(_root(places, [*islice(relevant, _PROBED), *islice(paths.values(), _PROBED)]), paths)
    stem = path.resolve().name
    benchmark = Benchmark(
        name=name or (stem if "fullrank" in stem else f"{stem}-fullrank"),
        split=split,
        queries=tuple(query for query, _ in queries),
        qrels=qrels,
        images=images,
        meta={query.id: replace(meta, scientific_name=names_species(query.text, species)) for query, meta in queries},
        oddities=tuple(_oddities(folder / ANNOTATIONS, positives)),
        reported=INQUIRE_FULLRANK,
    )
    missing = sum(image not in known for judged in qrels.values() for image in judged)
    return Fullrank(benchmark, vectors, ids, missing, images.root is not None)


def embeddings_folder(path: Path, encoder: str | None, embeddings: Path | None = None) -> Path:
    """The folder of vectors that `load_inquire_fullrank` would open. Raises `BenchmarkError` where there is none."""
    return find_embeddings(_places(_require_tables(path)), encoder, embeddings)


class _Images(DecodingCollection):
    """Images by id under a root, which no path leaves."""

    def __init__(self, root: FolderCollection | None, paths: Mapping[str, str]) -> None:
        super().__init__(DEFAULT_LIMITS)
        self.root = root
        self._paths = paths

    def _open(self, image_id: str) -> PILImage.Image:
        path = self._paths.get(image_id)
        if self.root is None or path is None:
            raise BrokenImageError(f"{image_id!r} has no file. Put iNat24's images beside the tables, as inat24/train")
        return open_image(self.root.path(path), self.limits, name=image_id)


def _places(tables: Path) -> tuple[Path, Path]:
    """Where embeddings and images are looked for: in the folder of the tables, and beside it."""
    return tables, tables.resolve().parent


def _require_tables(path: Path) -> Path:
    folder = _tables(path)
    if folder is None:
        raise BenchmarkError(
            f"{path} has no {_QUERIES}*.csv beside {ANNOTATIONS}. Fetch both from INQUIRE's repository."
        )
    return folder


def _tables(path: Path) -> Path | None:
    return next(
        (
            folder
            for folder in (path, path / "inquire")
            if (folder / ANNOTATIONS).is_file() and any(folder.glob(f"{_QUERIES}*.csv"))
        ),
        None,
    )


def load_ranked_lists(
    path: Path, split: str | None, lists: Mapping[str, RankedImages], name: str | None = None
) -> tuple[Benchmark, dict[str, tuple[Candidate, ...]], dict[str, str]]:
    """A split of INQUIRE-Fullrank without embeddings, whose images are those of published lists by query text; the
    candidates of each query, best first; and the images' paths by their ids, which are the files' names.

    Raises `BenchmarkError` for tables of another shape, an unknown split, queries without a list, and lists that hold
    none of the relevant images.
    """
    folder = _tables(path)
    if folder is None:
        raise BenchmarkError(
            f"{path} has no {_QUERIES}*.csv beside {ANNOTATIONS}. Fetch both from INQUIRE's repository."
        )
    files = {canonical(file.stem.removeprefix(_QUERIES)): file for file in sorted(folder.glob(f"{_QUERIES}*.csv"))}
    split = wanted_split(split, files)
    require_split(folder, split, files)
    queries = _queries(files[split])
    if without := [query.text for query, _ in queries if query.text not in lists]:
        raise BenchmarkError(
            f"{len(without):,} of {len(queries):,} queries have no list of images, such as {without[0]!r}. Name the "
            f"lists that were made for the split {split!r}."
        )
    own = {query.id: lists[query.text] for query, _ in queries}
    paths = {_stem(_file(image)): _file(image) for listed in own.values() for image in listed.paths}
    if len(paths) < len({_file(image) for listed in own.values() for image in listed.paths}):
        raise BenchmarkError("two images of these lists have files of the same name. Fetch the lists again.")
    positives = _positives(folder / ANNOTATIONS)
    relevant = [positive.path for of_query in positives.values() for positive in of_query]
    if not set(relevant).intersection(paths.values()):
        raise BenchmarkError(
            f"none of the relevant images is in these lists. Name lists whose images are called as in {ANNOTATIONS}."
        )
    species = binomials(map(_species, relevant))
    places = (folder, folder.resolve().parent)
    stem = path.resolve().name
    benchmark = Benchmark(
        name=name or (stem if "fullrank" in stem else f"{stem}-fullrank"),
        split=split,
        queries=tuple(query for query, _ in queries),
        qrels={query.id: {_stem(positive.path): 1 for positive in positives.get(query.id, ())} for query, _ in queries},
        images=_Images(_root(places, list(islice(paths.values(), _PROBED))), paths),
        meta={query.id: replace(meta, scientific_name=names_species(query.text, species)) for query, meta in queries},
        oddities=tuple(_oddities(folder / ANNOTATIONS, positives)),
        reported=INQUIRE_FULLRANK,
    )
    candidates = {
        query: tuple(
            Candidate(_stem(_file(image)), score) for image, score in zip(listed.paths, listed.scores, strict=True)
        )
        for query, listed in own.items()
    }
    return benchmark, candidates, paths


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


def _positives(path: Path) -> dict[str, list[_Positive]]:
    """Query id -> its relevant images."""
    positives: dict[str, list[_Positive]] = {}
    for line, (query_id, image_id, image_path) in read_table(path, ("query_id", "image_id", "image_path")):
        if not image_id.strip() or not image_path.strip():
            raise BenchmarkError(f"{str(path)!r}, line {line}: the image has no id or no path. Correct the file.")
        positives.setdefault(query_id.strip(), []).append(_Positive(image_id.strip(), _file(image_path)))
    return positives


def _oddities(path: Path, positives: Mapping[str, Sequence[_Positive]]) -> Iterator[str]:
    paths: dict[str, set[str]] = {}
    for positive in (relevant for of_query in positives.values() for relevant in of_query):
        paths.setdefault(positive.image_id, set()).add(positive.path)
    for image_id, named in paths.items():
        if len(named) > 1:
            yield f"{str(path)!r}: the image id {image_id} stands for several pictures: {', '.join(sorted(named))}"


def _called(positive: _Positive, by_path: bool) -> str:
    """A relevant image's id among the embedded ones."""
    return _stem(positive.path) if by_path else positive.image_id


def _named(
    embeddings: Embeddings, positives: Mapping[str, Sequence[_Positive]]
) -> tuple[Sequence[str], dict[str, str], bool]:
    """The embedded images' ids in order, the path of each (where it is known), and whether ids come from paths.

    The first column that names relevant images decides: ids as the annotations have them, else paths.
    """
    every = [positive for of_query in positives.values() for positive in of_query]
    annotated_ids, annotated_paths = {positive.image_id for positive in every}, {positive.path for positive in every}
    columns = embeddings.columns
    paths = next(
        (
            files
            for column in (*PATH_COLUMNS, "")
            if column in columns
            and not annotated_paths.isdisjoint(files := [_file(path or "") for path in columns[column]])
        ),
        None,
    )
    ids = next((columns[c] for c in (*ID_COLUMNS, "") if not annotated_ids.isdisjoint(columns.get(c, ()))), None)
    if ids is None and paths is None:
        raise BenchmarkError(
            f"none of the {len(annotated_ids):,} relevant images is among the {len(embeddings):,} in "
            f"{str(embeddings.folder)!r}. Name its images by image_id or image_path as {ANNOTATIONS} does"
        )
    chosen = ids if ids is not None else [_stem(path) for path in paths or ()]
    if len(set(chosen)) < len(chosen):
        raise BenchmarkError(
            f"{str(embeddings.folder)!r} names two images alike. Give each an image_id of its own in ids.csv."
        )
    known = dict(zip(chosen, paths, strict=True)) if paths else {positive.image_id: positive.path for positive in every}
    return chosen, known, ids is None


def _file(path: str) -> str:
    """A path as the annotations spell it; the published embeddings' leave out the suffix."""
    path = path.strip()
    return path if path.lower().endswith(_SUFFIXES) else f"{path}.jpg"


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


def _species(path: str) -> str:
    """Genus and species of iNat24's folders, such as `04686_Animalia_..._Mungos_mungo`; empty for other paths."""
    folder = PurePosixPath(path).parent.name.split("_")
    return " ".join(folder[-2:]) if len(folder) > 2 and folder[0].isdecimal() else ""


def _root(places: Sequence[Path], paths: Sequence[str]) -> FolderCollection | None:
    """The folder, in or beside the tables, under which some of the paths are files; None where there is none.

    What lies beside the tables is searched only in folders made for images.
    """
    folder, beside = places
    roots = [folder / below for below in _ROOTS] + [beside / below for below in _ROOTS if below]
    for root in roots:
        if root.is_dir():
            images = FolderCollection(root)
            if any(_is_there(images, path) for path in paths):
                return images
    return None


def _is_there(images: FolderCollection, path: str) -> bool:
    try:
        images.path(path)
    except ImageError:
        return False
    return True
