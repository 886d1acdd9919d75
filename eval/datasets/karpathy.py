"""Flickr30K and MSCOCO in Karpathy's splits: every caption is a query for its one image.

Files: a CSV as ImageScope (arXiv 2503.10166) uses, Karpathy's own `dataset_*.json`, BLIP's lists, and the text file of
CLIP_benchmark.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, TypeAdapter

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.types import Query
from fieldscope.eval.benchmarks.splits import canonical
from fieldscope.eval.benchmarks.tables import read_rows, read_table
from fieldscope.eval.datasets.choices import chosen
from fieldscope.eval.datasets.dataset import Dataset, file_split
from fieldscope.eval.datasets.files import Entry, base_folder, find_pictures, read_json, relative_path
from fieldscope.eval.protocol import Protocol
from fieldscope.eval.reported import RECALLS
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection

CHOICES = {"captions_per_image": ("all", "5")}


class _Sentence(Entry):
    raw: str


class _Image(Entry):
    filename: str
    split: str
    sentences: tuple[_Sentence, ...]
    filepath: str = ""


class _Images(Entry):
    images: tuple[_Image, ...]


class _Listed(Entry):
    image: str
    caption: Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True)
class _Captioned:
    """An image's file, relative to the image root, and its captions."""

    file: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """A data set's files by layout; `{split}` is the split's name in them."""

    name: str
    folder: str
    csv: str
    original: str
    listed: str
    text: str
    roots: tuple[str, ...]


FLICKR30K = _Source(
    "flickr30k",
    "Flickr30K",
    "test_1k_flickr.csv",
    "dataset_flickr30k.json",
    "flickr30k_{split}.json",
    "flickr30k_{split}_karpathy.txt",
    ("images", "flickr30k-images", "Images", "flickr30k_images"),
)
COCO = _Source(
    "coco",
    "MSCOCO",
    "test_5k_mscoco_2014.csv",
    "dataset_coco.json",
    "coco_karpathy_{split}.json",
    "coco_{split}_karpathy.txt",
    ("images", "val2014", "train2014"),
)


def load_karpathy(source: _Source, root: Path, split: str | None, given: Mapping[str, str]) -> Dataset:
    """A split (test by default) of the data set below `root`.

    Queries are `<file stem>#<n>`, with the caption as it is written; an image's id is its file's name. Raises
    `BenchmarkError` for a folder without its files, and for files of another shape.
    """
    choices = chosen(source.name, given, CHOICES)
    wanted = file_split(split, "test")
    source = replace(source, listed=source.listed.format(split=wanted), text=source.text.format(split=wanted))
    folder = base_folder(root, (source.folder,), (source.csv, source.original, source.listed, source.text))
    captioned = list(_captioned(source, folder, wanted))
    if not captioned:
        raise BenchmarkError(f"{folder} has no images of the split {wanted!r}. Name another with --split.")
    names = [PurePosixPath(image.file).name for image in captioned]
    if twice := sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []:
        raise BenchmarkError(f"{folder} lists the image {twice[0]} twice. Fetch its files again.")
    most = None if choices["captions_per_image"] == "all" else int(choices["captions_per_image"])
    queries, qrels = [], {}
    for name, image in zip(names, captioned, strict=True):
        for number, caption in enumerate(image.captions[:most]):
            if not caption.strip():
                raise BenchmarkError(f"{folder}: caption {number} of {name} is empty. Fetch the data set again.")
            queries.append(Query(id=f"{PurePosixPath(name).stem}#{number}", text=caption.strip()))
            qrels[queries[-1].id] = {name: 1}
    files = dict(zip(names, (image.file for image in captioned), strict=True))

    def places(name: str) -> Iterator[str]:
        yield files[name]
        yield from (f"{root}/{of}" for root in source.roots for of in dict.fromkeys((files[name], name)))

    pictures = find_pictures(folder, names, places)
    oddities = pictures.require(folder, (), f"{source.roots[0]}/{names[0]}")
    images = FilesCollection(pictures.files)
    benchmark = Benchmark(
        name=source.name,
        split=canonical(wanted),
        queries=tuple(queries),
        qrels=qrels,
        images=images,
        oddities=oddities,
        reported=RECALLS,
        protocol=Protocol(choices=choices, metrics=("recall@2", "recall@3", "recall@20", "recall@100")),
    )
    return Dataset(benchmark, images, {"": tuple(names)})


def _captioned(source: _Source, folder: Path, split: str) -> Iterator[_Captioned]:
    """The images of a split with their captions, from the first layout that is there."""
    if (path := folder / source.csv).is_file():
        for line, (name, raw, of) in read_table(path, ("filename", "raw", "split")):
            if of == split:
                yield _Captioned(relative_path(path, name), _literal(path, line, raw))
    elif (path := folder / source.original).is_file():
        for image in read_json(path, TypeAdapter(_Images)).images:
            if image.split == split:
                file = f"{image.filepath}/{image.filename}" if image.filepath else image.filename
                yield _Captioned(relative_path(path, file), tuple(sentence.raw for sentence in image.sentences))
    elif (path := folder / source.listed).is_file():
        for listed in read_json(path, TypeAdapter(tuple[_Listed, ...])):
            yield _Captioned(relative_path(path, listed.image), listed.caption)
    else:
        yield from _of_lines(folder / source.text)


def _literal(path: Path, line: int, raw: str) -> tuple[str, ...]:
    """The captions in a cell, a list as JSON or Python writes it."""
    for read in (json.loads, ast.literal_eval):
        try:
            captions = read(raw)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(captions, list) and captions and all(isinstance(caption, str) for caption in captions):
            return tuple(captions)
    raise BenchmarkError(f"{path}, line {line}: raw is not a list of captions. Fetch the file again.")


def _of_lines(path: Path) -> Iterator[_Captioned]:
    """Lines `<name>.jpg,<caption>` below a header; captions may contain commas."""
    captions: dict[str, list[str]] = {}
    for line, (text,) in list(read_rows(path, delimiter=None))[1:]:
        stem, found, caption = text.partition(".jpg,")
        if not found or not stem:
            raise BenchmarkError(f"{path}, line {line}: it is not `NAME.jpg,CAPTION`. Fetch the file again.")
        captions.setdefault(f"{stem}.jpg", []).append(caption)
    for name, own in captions.items():
        yield _Captioned(relative_path(path, name), tuple(own))
