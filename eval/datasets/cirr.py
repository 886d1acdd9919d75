"""CIRR (arXiv 2108.04024): an image and a change to it, in a gallery of real scenes and in small ones of its likes."""

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
from fieldscope.eval.datasets.files import Entry, base_folder, find_pictures, read_json, relative_path
from fieldscope.eval.protocol import Protocol
from fieldscope.eval.reported import CIRR
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection

NAME = "cirr"
CHOICES = {"reference": ("removed", "kept"), "target": ("hard", "soft"), "gallery": ("split", "subset")}
EMPTY_CAPTION = "the same image"
"""What ImageScope puts in the place of the one caption that is empty."""

_ROOTS = ("img_raw/", "", "images/")


class _ImageSet(Entry):
    members: Annotated[tuple[str, ...], Field(min_length=2)]


class _Pair(Entry):
    pairid: int
    reference: str
    caption: str
    img_set: _ImageSet
    target_hard: str | None = None
    target_soft: dict[str, float] = Field(default_factory=dict)


def load_cirr(root: Path, split: str | None, given: Mapping[str, str]) -> Dataset:
    """A split (val by default; the targets of test1 are the server's) of the data set below `root`. Queries are named
    by their `pairid`.

    Raises `BenchmarkError` for a folder without its files, and for files of another shape.
    """
    choices = chosen(NAME, given, CHOICES)
    wanted = file_split(split, "val")
    wanted = "test1" if wanted == "test" else wanted
    captions, listing = f"captions/cap.rc2.{wanted}.json", f"image_splits/split.rc2.{wanted}.json"
    folder = base_folder(root, ("CIRR", "cirr", "cirr_dataset"), (captions,))
    pairs = read_json(folder / captions, TypeAdapter(tuple[_Pair, ...]))
    paths = read_json(folder / listing, TypeAdapter(dict[str, str]))
    files = {image: relative_path(folder / listing, path) for image, path in paths.items()}
    for number, pair in enumerate(pairs, start=1):
        _require_known(folder / captions, number, pair, files)
    queries = tuple(
        Query(id=str(pair.pairid), text=pair.caption.strip() or EMPTY_CAPTION, reference_image=pair.reference)
        for pair in pairs
    )
    empty = [str(pair.pairid) for pair in pairs if not pair.caption.strip()]

    def places(image: str) -> Iterator[str]:
        return (f"{start}{files[image]}" for start in _ROOTS)

    pictures = find_pictures(folder, files, places)
    oddities = pictures.require(folder, (pair.reference for pair in pairs), f"img_raw/{next(iter(files.values()))}")
    images = FilesCollection(pictures.files)
    benchmark = Benchmark(
        name=NAME,
        split=canonical(wanted),
        queries=queries,
        qrels={str(pair.pairid): {} if pair.target_hard is None else {pair.target_hard: 1} for pair in pairs},
        images=images,
        oddities=(*oddities, *(f"pair {pair} has no caption; {EMPTY_CAPTION!r} stands in for it" for pair in empty)),
        reported=CIRR,
        protocol=_protocol(pairs, choices),
    )
    if choices["gallery"] == "split":
        return Dataset(benchmark, images, {"": tuple(files)})
    # As ImageScope's `--subset`: each query's pipeline sees its small gallery alone, without the reference image.
    small = benchmark.protocol.subsets
    return Dataset(benchmark, images, small, {query.id: query.id for query in queries})


def _protocol(pairs: tuple[_Pair, ...], choices: Mapping[str, str]) -> Protocol:
    soft = choices["target"] == "soft"
    return Protocol(
        choices=choices,
        keeps_reference=choices["reference"] == "kept",
        credits={
            str(pair.pairid): dict(pair.target_soft) if soft and pair.target_soft else {pair.target_hard: 1.0}
            for pair in pairs
            if pair.target_hard is not None
        },
        subsets={
            str(pair.pairid): tuple(image for image in pair.img_set.members if image != pair.reference)
            for pair in pairs
        },
        averages={"Avg": ("recall@5", "recall_subset@1")},
        metrics=("recall_subset@1", "recall_subset@2", "recall_subset@3"),
    )


def _require_known(path: Path, number: int, pair: _Pair, files: Mapping[str, str]) -> None:
    """Raise `BenchmarkError` for an image that the split does not list."""
    named = [(pair.reference, "reference"), *((image, "img_set.members") for image in pair.img_set.members)]
    if pair.target_hard is not None:
        named.append((pair.target_hard, "target_hard"))
    for image, key in named:
        if image not in files:
            raise BenchmarkError(
                f"{path}, entry {number}: {key}: {image!r} is not in the image split. Fetch both files again."
            )
