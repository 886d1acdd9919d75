"""CIRCO (arXiv 2303.15247): an image and a change to it, several answers, among the unlabelled images of COCO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import TypeAdapter

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.types import Query
from fieldscope.eval.benchmarks.splits import canonical
from fieldscope.eval.datasets.choices import chosen
from fieldscope.eval.datasets.dataset import Dataset, file_split
from fieldscope.eval.datasets.files import Entry, base_folder, find_pictures, first_file, read_json, relative_path
from fieldscope.eval.protocol import Protocol
from fieldscope.eval.reported import CIRCO
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection

NAME = "circo"
CHOICES = {"reference": ("kept", "removed")}
ASPECTS = (
    "cardinality", "addition", "negation", "direct_addressing", "compare_change", "comparative_statement",
    "statement_with_conjunction", "spatial_relations_background", "viewpoint",
)  # fmt: skip
"""The semantic aspects by which the data set reports its mAP@10."""

_LISTING = "annotations/image_info_unlabeled2017.json"
_ROOTS = ("COCO2017_unlabeled/", "")


class _Request(Entry):
    """An entry; its `shared_concept` says what target and reference have in common, and is never read."""

    id: int
    reference_img_id: int
    relative_caption: str
    target_img_id: int | None = None
    gt_img_ids: tuple[int, ...] = ()
    semantic_aspects: tuple[str, ...] = ()


class _Image(Entry):
    id: int
    file_name: str


class _Listing(Entry):
    images: tuple[_Image, ...]


def load_circo(root: Path, split: str | None, given: Mapping[str, str]) -> Dataset:
    """A split (val by default; the answers of test are the server's) of the data set below `root`. Queries and images
    are named by their numbers.

    Raises `BenchmarkError` for a folder without its files, and for files of another shape.
    """
    choices = chosen(NAME, given, CHOICES)
    wanted = file_split(split, "val")
    names = [f"{place}/{wanted}.json" for place in ("annotations", "captions")]
    folder = base_folder(root, ("CIRCO", "circo"), names)
    path = first_file(folder, names)
    requests = read_json(path, TypeAdapter(tuple[_Request, ...]))
    listing = first_file(folder, [f"{place}{_LISTING}" for place in _ROOTS])
    listed = read_json(listing, TypeAdapter(_Listing)).images
    files = {str(image.id): relative_path(listing, image.file_name) for image in listed}
    for number, request in enumerate(requests, start=1):
        _require_sound(path, number, request, files)

    def places(image: str) -> Iterator[str]:
        return (f"{start}unlabeled2017/{files[image]}" for start in _ROOTS)

    pictures = find_pictures(folder, files, places)
    references = [str(request.reference_img_id) for request in requests]
    oddities = pictures.require(folder, references, f"{_ROOTS[0]}unlabeled2017/{listed[0].file_name}")
    images = FilesCollection(pictures.files)
    judged = [request for request in requests if request.target_img_id is not None]
    protocol = Protocol(
        choices=choices,
        keeps_reference=choices["reference"] == "kept",
        credits={str(request.id): {str(request.target_img_id): 1.0} for request in judged},
        groups={str(request.id): request.semantic_aspects for request in judged},
        group_kind="semantic aspect",
        metrics=("recall@5", "recall@10", "recall@25", "recall@50"),
    )
    benchmark = Benchmark(
        name=NAME,
        split=canonical(wanted),
        queries=tuple(
            Query(id=str(request.id), text=request.relative_caption.strip(), reference_image=reference)
            for request, reference in zip(requests, references, strict=True)
        ),
        qrels={str(request.id): dict.fromkeys(map(str, request.gt_img_ids), 1) for request in requests},
        images=images,
        oddities=oddities,
        reported=CIRCO,
        protocol=protocol,
    )
    return Dataset(benchmark, images, {"": tuple(files)})


def _require_sound(path: Path, number: int, request: _Request, files: Mapping[str, str]) -> None:
    """Raise `BenchmarkError` for images that are not in the gallery, a target that is no answer, and an aspect that
    the data set does not have."""
    where = f"{path}, entry {number}"
    named = [(request.reference_img_id, "reference_img_id"), *((i, "gt_img_ids") for i in request.gt_img_ids)]
    for image, key in named:
        if str(image) not in files:
            raise BenchmarkError(f"{where}: {key}: {image} is no image of {_LISTING}. Fetch both files again.")
    if (request.target_img_id is None) != (not request.gt_img_ids) or (
        request.gt_img_ids and request.target_img_id not in request.gt_img_ids
    ):
        raise BenchmarkError(f"{where}: target_img_id: it is not among gt_img_ids. Fetch the file again.")
    if strange := [aspect for aspect in request.semantic_aspects if aspect not in ASPECTS]:
        raise BenchmarkError(f"{where}: semantic_aspects: unknown aspect {strange[0]!r}. Fetch the file again.")
