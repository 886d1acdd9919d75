"""FashionIQ (arXiv 1905.12794): a garment and a change to it, in three categories, each scored in its own gallery."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.types import Query
from fieldscope.eval.benchmarks.splits import canonical
from fieldscope.eval.datasets.choices import chosen
from fieldscope.eval.datasets.dataset import Dataset, file_split
from fieldscope.eval.datasets.files import Entry, base_folder, find_pictures, read_json
from fieldscope.eval.protocol import Protocol
from fieldscope.eval.reported import FASHIONIQ
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection

CATEGORIES = ("dress", "shirt", "toptee")
CHOICES = {
    "reference": ("kept", "removed"),
    "category": ("all", *CATEGORIES),
    "gallery": ("split", "val-split", "union"),
    "join": ("and", "reversed", "and-token"),
}
_SUFFIXES = (".jpg", ".png", ".jpeg")


class _Pair(Entry):
    candidate: str
    target: str | None = None
    captions: Annotated[tuple[str, ...], Field(min_length=1)]


def load_fashioniq(root: Path, split: str | None, given: Mapping[str, str]) -> Dataset:
    """A split (val by default, the one that is scored) of the data set below `root`. Queries are `<category>-<row>`.

    Raises `BenchmarkError` for a folder without its files, and for files of another shape.
    """
    choices = chosen("fashioniq", given, CHOICES)
    wanted = file_split(split, "val")
    categories = CATEGORIES if choices["category"] == "all" else (choices["category"],)
    folder = base_folder(root, ("FashionIQ", "fashionIQ"), [f"captions/cap.{categories[0]}.{wanted}.json"])
    queries, qrels, groups, galleries = [], {}, {}, {}
    for category in categories:
        path = folder / "captions" / f"cap.{category}.{wanted}.json"
        pairs = read_json(path, TypeAdapter(tuple[_Pair, ...]))
        listed = read_json(folder / "image_splits" / f"split.{category}.{wanted}.json", TypeAdapter(tuple[str, ...]))
        known = set(listed)
        for row, pair in enumerate(pairs):
            for image, key in ((pair.candidate, "candidate"), (pair.target, "target")):
                if image is not None and image not in known:
                    raise BenchmarkError(
                        f"{path}, entry {row + 1}: {key}: {image!r} is not in the gallery of {category}. Fetch the "
                        "files again."
                    )
            query = Query(
                id=f"{category}-{row}", text=_joined(pair.captions, choices["join"]), reference_image=pair.candidate
            )
            queries.append(query)
            qrels[query.id] = {} if pair.target is None else {pair.target: 1}
            groups[query.id] = (category,)
        shown = {image for pair in pairs for image in (pair.candidate, pair.target) if image is not None}
        galleries[category] = tuple(i for i in listed if i in shown) if choices["gallery"] == "val-split" else listed
    if choices["gallery"] == "union":
        galleries = dict.fromkeys(galleries, tuple(dict.fromkeys(i for ids in galleries.values() for i in ids)))
    ids = [image for gallery in galleries.values() for image in gallery]
    pictures = find_pictures(folder, ids, _places)
    oddities = pictures.require(folder, (query.reference_image for query in queries), f"images/{ids[0]}.jpg or .png")
    images = FilesCollection(pictures.files)
    protocol = Protocol(
        choices=choices,
        keeps_reference=choices["reference"] == "kept",
        groups=groups,
        group_kind="garment",
        by_group=True,
        averages={"Avg": ("recall@10", "recall@50")},
        metrics=("recall@1", "recall@5"),
    )
    benchmark = Benchmark(
        name="fashioniq",
        split=canonical(wanted),
        queries=tuple(queries),
        qrels=qrels,
        images=images,
        oddities=oddities,
        reported=FASHIONIQ,
        protocol=protocol,
    )
    return Dataset(benchmark, images, galleries, {query_id: group for query_id, (group,) in groups.items()})


def _joined(captions: tuple[str, ...], join: str) -> str:
    """The captions as one: as ImageScope joins them (`and`), the other way around (`reversed`), or in lower case with
    the starter code's token between them (`and-token`). One that is empty is left out."""
    own = [plain for caption in captions if (plain := caption.strip(" .?"))]
    if join == "and-token":
        return " <and> ".join(own).lower()
    return " and ".join(reversed(own) if join == "reversed" else own)


def _places(image: str) -> Iterator[str]:
    return (f"{folder}{image}{suffix}" for folder in ("images/", "image_data/") for suffix in _SUFFIXES)
