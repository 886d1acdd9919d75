"""A data set of one's own: queries, a gallery and judgments as TSV, JSON lines or in BEIR's layout.

    queries.jsonl | queries.tsv          id, text, and where there are any: reference, dialogue (JSON lines only)
    gallery.jsonl | gallery.tsv | corpus.jsonl    id, and where it is not images/<id>: file   (without: all in images/)
    qrels/<split>.tsv | qrels.tsv | qrels.jsonl   query-id, corpus-id, score

A TSV has its columns' names in its first line; `query` and `image` name the columns of judgments, too, and BEIR's `_id`
is an id. Judgments are whole numbers: 1 or more is relevant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.reading import load_json
from fieldscope.core.types import Query, Turn
from fieldscope.eval.benchmarks.splits import WHOLE, canonical, require_split, wanted_split
from fieldscope.eval.benchmarks.tables import read_rows
from fieldscope.eval.datasets.choices import chosen
from fieldscope.eval.datasets.dataset import Dataset
from fieldscope.eval.datasets.files import base_folder, fault, find_pictures, first_file, relative_path
from fieldscope.eval.protocol import Protocol
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection, FolderCollection

CHOICES = {"reference": ("removed", "kept")}
_QUERIES = ("queries.jsonl", "queries.tsv")
_GALLERIES = ("gallery.jsonl", "gallery.tsv", "corpus.jsonl")
_SUFFIXES = ("", ".jpg", ".png", ".jpeg", ".webp")

Id = Annotated[str, StringConstraints(min_length=1)]


class _Row(BaseModel):
    """A line; ids may be written as numbers, and other columns are not read."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


class _QueryRow(_Row):
    id: Id = Field(validation_alias=AliasChoices("id", "_id", "query-id", "query_id"))
    text: Annotated[str, StringConstraints(pattern=r"\S")]
    reference: str | None = None
    dialogue: tuple[Turn, ...] = ()


class _ImageRow(_Row):
    id: Id = Field(validation_alias=AliasChoices("id", "_id", "corpus-id", "image"))
    file: str | None = None


class _Judgment(_Row):
    query: Id = Field(validation_alias=AliasChoices("query-id", "query_id", "query"))
    image: Id = Field(validation_alias=AliasChoices("corpus-id", "corpus_id", "image", "image-id", "image_id"))
    score: int = Field(default=1, validation_alias=AliasChoices("score", "judgment", "relevance"))


def load_folder(root: Path, split: str | None, given: Mapping[str, str]) -> Dataset:
    """A split of the folder's queries (test, validation or train, the first that has judgments): those that have any.

    Raises `BenchmarkError` for a folder without its files, and for a line that is wrong, by its number and column.
    """
    choices = chosen("folder", given, CHOICES)
    folder = base_folder(root, (), _QUERIES)
    split, judged_in = _judgments_file(folder, split)
    path = first_file(folder, _QUERIES)
    asked = {}
    for line, own in _rows(path, TypeAdapter(_QueryRow)):
        if own.id in asked:
            raise BenchmarkError(f"{path}, line {line}: id: {own.id!r} occurs twice. Correct the file.")
        asked[own.id] = own
    files = _gallery(folder)
    qrels: dict[str, dict[str, int]] = {}
    for line, row in _rows(judged_in, TypeAdapter(_Judgment)):
        if row.query not in asked:
            raise BenchmarkError(
                f"{judged_in}, line {line}: query-id: {row.query!r} is not in {path.name}. Correct the file."
            )
        if row.image not in files and row.score > 0:
            raise BenchmarkError(
                f"{judged_in}, line {line}: corpus-id: {row.image!r} is not in the gallery. Correct the file."
            )
        qrels.setdefault(row.query, {})[row.image] = row.score
    queries = tuple(
        Query(id=own.id, text=own.text.strip(), reference_image=own.reference or None, dialogue=own.dialogue)
        for own in asked.values()
        if own.id in qrels
    )
    references = dict.fromkeys(query.reference_image for query in queries if query.reference_image is not None)
    wanted = {**dict.fromkeys(references), **files}

    def places(image: str) -> Iterator[str]:
        if file := wanted[image]:
            return iter((file, f"images/{file}"))
        return (f"images/{image}{suffix}" for suffix in _SUFFIXES)

    for image in references:
        relative_path(path, image)
    pictures = find_pictures(folder, wanted, places)
    oddities = pictures.require(folder, references, f"images/{next(iter(files))}")
    images = FilesCollection(pictures.files)
    benchmark = Benchmark(
        name=folder.resolve().name,
        split=split,
        queries=queries,
        qrels=qrels,
        images=images,
        oddities=oddities,
        protocol=Protocol(choices=choices, keeps_reference=choices["reference"] == "kept"),
    )
    return Dataset(benchmark, images, {"": tuple(files)})


def _judgments_file(folder: Path, split: str | None) -> tuple[str, Path]:
    """The split and the file of its judgments."""
    by_split = {canonical(path.stem): path for path in sorted((folder / "qrels").glob("*.tsv"))}
    if by_split:
        wanted = wanted_split(split, by_split)
        wanted = wanted if wanted in by_split or split else next(iter(by_split))
        require_split(folder / "qrels", wanted, by_split)
        return wanted, by_split[wanted]
    return canonical(split) if split else WHOLE, first_file(folder, ("qrels.tsv", "qrels.jsonl"))


def _gallery(folder: Path) -> dict[str, str | None]:
    """Image id -> the file that is named for it, if one is."""
    path = next((folder / name for name in _GALLERIES if (folder / name).is_file()), None)
    if path is None:
        if not (folder / "images").is_dir():
            raise BenchmarkError(
                f"{folder} has no folder images, and none of {', '.join(_GALLERIES)}. Add one of them."
            )
        listed = FolderCollection(folder / "images").ids()
        stems = {name.rpartition(".")[0]: name for name in listed}
        # With one file for each stem, judgments may name either; the id is the stem, as in the other layouts.
        return dict(stems) if len(stems) == len(listed) else {name: name for name in listed}
    files: dict[str, str | None] = {}
    for line, row in _rows(path, TypeAdapter(_ImageRow)):
        if row.id in files:
            raise BenchmarkError(f"{path}, line {line}: id: {row.id!r} occurs twice. Correct the file.")
        files[row.id] = relative_path(path, row.file) if row.file else None
        relative_path(path, row.id)
    if not files:
        raise BenchmarkError(f"{path} lists no image. Add a line for each.")
    return files


def _rows(path: Path, kind: TypeAdapter[Any]) -> Iterator[tuple[int, Any]]:
    """The lines of a table or of JSON lines, by number. Raises `BenchmarkError` with the line and the column."""
    lines = _of_table(path) if path.suffix == ".tsv" else _of_json(path)
    for number, values in lines:
        try:
            yield number, kind.validate_python(values)
        except ValidationError as error:
            raise fault(path, error, f"line {number}", "Correct the file.") from error


def _of_json(path: Path) -> Iterator[tuple[int, Any]]:
    for number, (line,) in read_rows(path, delimiter=None):
        try:
            yield number, load_json(line)
        except ValueError as error:
            raise BenchmarkError(f"{path}, line {number}: it is no JSON ({error}). Correct the file.") from error


def _of_table(path: Path) -> Iterator[tuple[int, Any]]:
    """Lines without quoting, since a TSV's texts have quotes as they are."""
    rows = ((number, line.split("\t")) for number, (line,) in read_rows(path, delimiter=None))
    _, names = next(rows, (1, [""]))
    names = [name.strip().lower() for name in names]
    for number, values in rows:
        if len(values) > len(names):
            raise BenchmarkError(
                f"{path}, line {number}: {len(values)} values under {len(names)} headings. Correct the file."
            )
        yield number, {name: value for name, value in zip(names, values, strict=False) if value}
