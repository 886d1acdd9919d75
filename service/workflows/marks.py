"""People's marks on a kept search or another run: made, read, used for a new order, and given out as judgments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ConfigError, IndexMismatchError
from fieldscope.core.reading import load_json

if TYPE_CHECKING:
    from fieldscope.agent.types import RerankResult
    from fieldscope.eval.labels.relearn import Relearned
    from fieldscope.eval.measures.agreement import Agreement
    from fieldscope.eval.runs.marks import Mark
    from fieldscope.retrieval.collection import Collection
    from fieldscope.retrieval.encoder import Vectors

MODEL, UNNAMED = "model", "no one named"
"""Who said so, where it is no person, and where a person gave no name."""


@dataclass(frozen=True)
class MarkedQuery:
    """A query of a run with the marks that count, by image."""

    result: RerankResult
    marks: Mapping[str, Mark]


def open_marked(folder: Path, query: str | None = None, by: str | None = None) -> list[MarkedQuery]:
    """The queries of a run with their marks, or one of them by its id or text; those of one person where `by` names
    one. Raises `ConfigError`."""
    from fieldscope.eval.runs.marks import Marks
    from fieldscope.eval.runs.read import read_results
    from fieldscope.service.workflows.trace import read_result

    marks = Marks(folder)
    results = list(read_results(folder).values()) if query is None else [read_result(folder, query)]
    if not results:
        raise ConfigError(f"{folder} has no finished query. Name the folder of a search or run that has some.")
    return [MarkedQuery(result, marks.of(result.query_id, by)) for result in results]


def mark_images(folder: Path, query: str | None, marks: Mapping[str, Mark | None], by: str) -> MarkedQuery:
    """Mark images of a run's query, which may be left out where there is one. Raises `ConfigError` for an image that is
    not in its ranking."""
    from fieldscope.core.validation import unknown_name
    from fieldscope.eval.runs.marks import Marks

    queries = open_marked(folder, query)
    if len(queries) > 1:
        raise ConfigError(f"{folder} has {len(queries)} queries. Name one with --query.")
    (marked,) = queries
    ranked = [image.image_id for image in marked.result.ranking]
    for image in marks:
        if image not in ranked:
            raise ConfigError(unknown_name("image", image, ranked))
    Marks(folder).put(marked.result.query_id, marks, by)
    (now,) = open_marked(folder, query)
    return now


def refit(folder: Path, marked: MarkedQuery, index: Path | None) -> Relearned:
    """The ranking of a query refitted to its marks; `index` has the images' vectors, else the folder that the search
    names. Raises `ConfigError` without marks."""
    from fieldscope.eval.labels.relearn import relearn

    ids = [ranked.image_id for ranked in marked.result.ranking]
    if index is not None:
        from fieldscope.retrieval.manifest import vectors_in

        return relearn(marked.result, marked.marks, vectors_in(index, ids))
    place = _collection_of(folder)
    return relearn(marked.result, marked.marks, index_vectors(Path(place), ids) if place is not None else None)


def index_vectors(index: Path, ids: list[str]) -> Vectors | None:
    """The images' vectors in an index, shape (n, dim); None where the folder holds none, or not all of them."""
    from fieldscope.retrieval.manifest import is_index, vectors_in

    try:
        return vectors_in(index, ids) if is_index(index) else None
    except IndexMismatchError:
        return None


def marks_data(marked: MarkedQuery) -> dict[str, Any]:
    """A query's marks as one JSON-able object."""
    return {"query_id": marked.result.query_id, "query": marked.result.query_text, "marks": dict(marked.marks)}


def refit_data(refitted: Relearned) -> dict[str, Any]:
    """A refitted ranking as one JSON-able object."""
    return {
        "ranking": [
            {"image": image, "p_match": p, "moved": refitted.moved[image]} for image, p in refitted.p_match.items()
        ],
        "changes": list(refitted.changes),
        "weights": {weight.source: weight.by for weight in refitted.weights},
    }


def agreement_of(folder: Path) -> list[Agreement]:
    """How far the model and everyone who marked agree on which images match, every two of them: the model says that an
    image matches where P(match) is above 0.5."""
    from fieldscope.eval.measures.agreement import agreements
    from fieldscope.eval.runs.marks import Marks, judgments_of

    sides: dict[str, dict[tuple[str, str, str], bool]] = {MODEL: {}}
    for marked in open_marked(folder):
        for ranked in marked.result.ranking:
            if ranked.p_match is not None:
                sides[MODEL][marked.result.query_id, ranked.image_id, ""] = ranked.p_match > 0.5
    marks = Marks(folder)
    for person in marks.people():
        sides[person or UNNAMED] = {
            (query_id, image, ""): judgment > 0
            for query_id, of_query in marks.by_query(person).items()
            for image, judgment in judgments_of(of_query).items()
        }
    return agreements(sides)


def write_dataset(folder: Path, out: Path) -> int:
    """Write a run's marks as a data set of one's own (`docs/datasets.md`) with the split `validation`, for
    `fieldscope eval`, `calibrate` and `measure`: its queries, links to the ranked images, and a judgment for each
    accepted (1) or rejected (0) image. Returns the number of judgments. Raises `ConfigError`."""
    from fieldscope.core.files import replace_file
    from fieldscope.eval.runs.marks import judgments_of
    from fieldscope.eval.runs.read import COLLECTION
    from fieldscope.retrieval.opening import reopen_collection

    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty. Choose a new folder.")
    queries = [marked for marked in open_marked(folder) if judgments_of(marked.marks)]
    if not queries:
        raise ConfigError(f"{folder} has no accepted or rejected image yet. Mark some first.")
    try:
        images = reopen_collection(load_json((folder / COLLECTION).read_bytes()))
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{folder} does not say where its images are. Repeat the search.") from error
    named: dict[str, str] = {}
    for marked in queries:
        for ranked in marked.result.ranking:
            named.setdefault(ranked.image_id, _plain(ranked.image_id))
    try:
        for image_id, name in named.items():
            link = out / "images" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(_file(images, image_id).resolve())
        lines = [
            {
                "id": marked.result.query_id,
                "text": marked.result.query_text,
                "reference": _plain(marked.result.reference_image) if marked.result.reference_image else None,
                "dialogue": [turn.model_dump() for turn in marked.result.dialogue],
            }
            for marked in queries
        ]
        replace_file(out / "queries.jsonl", "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
        replace_file(out / "gallery.jsonl", "".join(f"{json.dumps({'id': name})}\n" for name in named.values()))
        judged = [
            f"{marked.result.query_id}\t{named[image]}\t{judgment}\n"
            for marked in queries
            for image, judgment in judgments_of(marked.marks).items()
        ]
        replace_file(out / "qrels" / "validation.tsv", "query-id\tcorpus-id\tscore\n" + "".join(judged))
    except OSError as error:
        raise ConfigError(f"can't write {out}: {error.strerror or error}. Choose another folder.") from error
    return len(judged)


def _plain(image_id: str) -> str:
    """An image's id as a path below a folder: without the prefix of its collection."""
    inner = image_id.partition("://")[2].partition("/")[2] or image_id
    return inner.lstrip("/")


def _file(images: Collection, image_id: str) -> Path:
    """The image's own file. Raises `ConfigError` for an image that lies inside another file."""
    for prefix, part in getattr(images, "parts", {}).items():
        if image_id.startswith(prefix):
            return _file(part, image_id.removeprefix(prefix))
    find = getattr(images, "path", None)
    if find is None:
        raise ConfigError(
            "these images have no files of their own, so no data set can be made of them; mark a search of a folder"
        )
    path: Path = find(image_id)
    return path


def _collection_of(folder: Path) -> str | None:
    from fieldscope.eval.runs.searches import SearchFolder

    try:
        return SearchFolder(folder).record.collection
    except ConfigError:
        return None
