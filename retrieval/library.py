"""A library: an indexed collection, searched by text, image plus change, or dialogue. An interrupted build continues
where it stopped."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError, ImageError, IndexMismatchError
from fieldscope.core.files import replace_file
from fieldscope.core.types import Candidate, ImageSource, Query, Scale, Search
from fieldscope.retrieval.background import sampled, scale_of
from fieldscope.retrieval.captions import Captions, read_captions
from fieldscope.retrieval.collection import Collection
from fieldscope.retrieval.encoder import Encoder, Vectors
from fieldscope.retrieval.encoding import BATCH, Encoding, encoded_batches
from fieldscope.retrieval.index import DEFAULT_INDEX, INDEXES, MAPPED_INDEX, Allowed, Index, StoredIndex
from fieldscope.retrieval.manifest import (
    claimed,
    is_of_wrong_build,
    read_index,
    read_manifest,
    require_encoder,
    write_index,
    writing,
)
from fieldscope.retrieval.opening import reopen_collection
from fieldscope.retrieval.progress import Report
from fieldscope.retrieval.query_vectors import QueryVectors
from fieldscope.retrieval.shards import Encoded, Shards
from fieldscope.retrieval.tile_vectors import TileVectors

_SKIPPED = "skipped.json"


@dataclass(frozen=True)
class BuildReport:
    """How many images are in the index, how many of them were encoded just now, and why the others are not in it."""

    indexed: int
    encoded: int
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class Library:
    """An index, the encoder that made its vectors, where its images are, and their captions, where there are some.

    `ids` are all images in the index, and `index_kind` is the registered name of indexes like it. With
    `keeps_reference` a query's reference image is found like any other, as some benchmarks have it. `folder` is where
    the index lies, if it was read from one. `beside` has the pictures of queries that are not in the collection; they
    are encoded when a query needs them. `whole` is the library that this one was `filtered` from, and `allowed` says
    which of the images in its index are found. `sample` are the images that stand for the collection, where they are
    known: in a large one it takes seconds to find them.
    """

    index: Index
    encoder: Encoder
    locator: Mapping[str, Any]
    captions: Captions | None = None
    ids: Sequence[str] = ()
    index_kind: str = DEFAULT_INDEX
    keeps_reference: bool = False
    folder: Path | None = None
    beside: ImageSource | None = None
    whole: Library | None = None
    allowed: Allowed | None = field(default=None, repr=False, compare=False)
    sample: Sequence[str] | None = None
    _blended: dict[float, Index] = field(default_factory=dict, init=False, repr=False, compare=False)
    _blending: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    @cached_property
    def collection(self) -> Collection:
        """The images. Raises `ConfigError` where the folder that was indexed is gone; searching goes on without it."""
        return reopen_collection(self.locator)

    @cached_property
    def _sample(self) -> Sequence[str]:
        return sampled(self.ids) if self.sample is None else self.sample

    @cached_property
    def _queries(self) -> QueryVectors:
        return QueryVectors(self.encoder)

    def query_vector(self, query: Query, instruction: str | None = None) -> Vectors:
        """A query's own vector, shape (dim,), without descriptions. Raises `ConfigError` where its reference image is
        neither in the index nor `beside` it."""
        return self._queries.of(query, self._image_vector, self._load, instruction)

    def within(self, ids: Sequence[str], *, keeps_reference: bool = False) -> Library:
        """A library of some of the images, in an index of their own; those that this one does not hold are left out."""
        held = set(self.ids)
        own = [image_id for image_id in ids if image_id in held]
        if own == list(self.ids):
            return replace(self, keeps_reference=keeps_reference)
        index = INDEXES.load(self.index_kind)(own, self.index.vectors_of(own))
        return replace(self, index=index, ids=own, keeps_reference=keeps_reference, allowed=None, sample=None)

    def filtered(self, ids: Sequence[str]) -> Library:
        """A library in which only these images are found. How far they stand out is measured against this library's
        background, so that it does not depend on the filter, and any image of it may be a query's reference."""
        whole = self.whole or self
        wanted = set(ids).intersection(self.ids)
        allowed = np.fromiter((image_id in wanted for image_id in whole.ids), np.bool_, len(whole.ids))
        own = [image_id for image_id in whole.ids if image_id in wanted]
        return replace(self, ids=own, whole=whole, allowed=allowed, sample=None)

    def search(self, search: Search, vector: Vectors | None = None) -> list[Candidate]:
        """The images nearest to the query (all, where there are fewer than `search.k`), best first; the prior is the
        similarity, and the standing that against the collection's background.

        A query's reference image is part of its vector (`QueryVectors`), which counts as much as all descriptions
        together, and is not among the candidates unless the library or the search `keeps_reference`; a search of
        `descriptions_only` leaves the query's vector out. `vector` is the query's own
        vector, shape (dim,), where the caller has it; without, a reference image that the index does not hold raises
        `ConfigError`.
        """
        query, descriptions = search.query, search.descriptions
        instruction = search.instruction or query.instruction
        own = self.query_vector(query, instruction) if vector is None else vector
        texts = (Query(id=query.id, text=description) for description in descriptions)
        wanted = [own, *(self._queries.of_text(text, instruction) for text in texts)]
        # No description has seen the reference image, so together they weigh as much as the query.
        share = max(len(descriptions), 1) if query.reference_image is not None else 1
        if search.descriptions_only and descriptions:
            share = 0
        # Inner products are linear: the mean of the similarities is the similarity to the mean.
        weights = [share, *[1] * len(descriptions)]
        mean: Vectors = np.average(np.stack(wanted), axis=0, weights=weights)[np.newaxis].astype(np.float32)
        weight, tiles = search.caption_weight, search.tiles
        left_out = None if self.keeps_reference or search.keeps_reference else query.reference_image
        nearest = self._nearest(mean, search.k + (left_out is not None), weight, tiles)
        priors = {i: score for i, score in nearest if i != left_out}
        priors = dict(list(priors.items())[: search.k])
        if search.prior == "query" and priors:
            similarities = self.similarities(list(priors), own, weight, tiles=tiles)
            priors = dict(sorted(zip(priors, similarities.tolist(), strict=True), key=lambda pair: -pair[1]))
        usual = self.background(own if search.prior == "query" else mean[0], weight, tiles=tiles)
        return [Candidate(i, prior, usual.standing(prior) if usual else None) for i, prior in priors.items()]

    def similarities(
        self, ids: Sequence[str], direction: Vectors, caption_weight: float = 0.0, *, tiles: bool = False
    ) -> Vectors:
        """How similar images are to a query's vector, shape (len(ids),): with `tiles` each is as similar as the most
        similar of it and its tiles. Raises `ConfigError` where the index has no tiles."""
        if tiles and self.folder is None:
            raise ConfigError(
                "published embeddings have no tiles, and the strategy asks for them; leave `retrieve.tiles` out of it"
            )
        stored = TileVectors(self.folder, self.encoder.fingerprint) if self.folder and tiles else None
        if tiles and (stored is None or not stored.any()):
            raise ConfigError("the index has no tiles, and the strategy asks for them; add them with `index --tiles`")
        similar: Vectors = self._weighted(caption_weight).vectors_of(ids) @ direction
        if stored is None:
            return similar
        best: Vectors = np.maximum(similar, stored.best(ids, direction))
        return best

    def background(self, direction: Vectors, caption_weight: float = 0.0, *, tiles: bool = False) -> Scale | None:
        """How similar the collection's sample is to a query's vector, shape (dim,); None where it is too small."""
        if self.whole is not None:
            return self.whole.background(direction, caption_weight, tiles=tiles)
        sample = self._sample
        return scale_of(self.similarities(sample, direction, caption_weight, tiles=tiles)) if sample else None

    def _nearest(self, mean: Vectors, k: int, caption_weight: float, tiles: bool) -> Iterator[tuple[str, float]]:
        """The `k` images nearest to a vector, shape (1, dim), with their similarities, best first."""
        if tiles:
            similar = self.similarities(self.ids, mean[0], caption_weight, tiles=True)
            yield from ((self.ids[at], float(similar[at])) for at in np.argsort(-similar, kind="stable")[:k])
        else:
            index = self._weighted(caption_weight)
            scores, ids = index.search(mean, k) if self.allowed is None else index.search(mean, k, self.allowed)
            yield from zip(ids[0], scores[0].tolist(), strict=True)

    def _image_vector(self, image_id: str) -> Vectors:
        if self.beside is not None and image_id not in self._held:
            vector: Vectors = self.encoder.encode_images([self.beside.load(image_id)])[0]
        else:
            vector = (self.whole or self).index.vectors_of([image_id])[0]
        return vector

    def _load(self, image_id: str) -> PILImage.Image:
        if self.beside is not None and image_id not in self._held:
            return self.beside.load(image_id)
        return self.collection.load(image_id)  # opened only where an image is needed

    @cached_property
    def _held(self) -> frozenset[str]:
        return frozenset((self.whole or self).ids)

    def _weighted(self, caption_weight: float) -> Index:
        """The index in which inner products are weighted similarities to image and caption; made once per weight."""
        if self.captions is None or caption_weight == 0:
            return self.index
        if self.whole is not None and self.allowed is not None:
            return self.whole._weighted(caption_weight)
        with self._blending:
            if caption_weight not in self._blended:
                vectors = self.captions.blend(self.ids, self.index.vectors_of(self.ids), caption_weight)
                self._blended[caption_weight] = INDEXES.load(self.index_kind)(self.ids, vectors)
        return self._blended[caption_weight]


def open_library(folder: Path, encoder: Encoder) -> Library:
    """The library in `folder`, with its captions where it has some.

    Raises `IndexMismatchError` where it is none, damaged, or another encoder's.
    """
    kind = str(read_manifest(folder).attributes.get("index", DEFAULT_INDEX))
    manifest, vectors = read_index(folder, encoder, mapped=kind == MAPPED_INDEX)
    locator = manifest.attributes.get("collection")
    if not isinstance(locator, dict):
        raise IndexMismatchError(f"{str(folder)!r} does not say which images it holds; make it with `fieldscope index`")
    make: Any = INDEXES.load(kind)
    made = make.kept(folder, manifest.ids, vectors) if isinstance(make, StoredIndex) else make(manifest.ids, vectors)
    index: Index = made
    return Library(index, encoder, locator, read_captions(folder, encoder), manifest.ids, kind, folder=folder)


def read_skipped(folder: Path) -> dict[str, str]:
    """The images that the index in `folder` left out, with the reason.

    Empty where that is not recorded there.
    """
    try:
        skipped = json.loads((folder / _SKIPPED).read_bytes()) if (folder / _SKIPPED).is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: str(why) for name, why in skipped.items()} if isinstance(skipped, dict) else {}


def build_index(
    collection: Collection,
    encoder: Encoder,
    folder: Path,
    *,
    encoder_name: str = "",
    index_kind: str = DEFAULT_INDEX,
    batch_size: int = BATCH,
    progress: Report | None = None,
    encoding: Encoding | None = None,
) -> BuildReport:
    """Encode a collection into a library in `folder`, and write what is not in it, with the reason, to `skipped.json`
    there: images that can't be read, or that a server refuses, and files that are none.

    What an earlier build has encoded, finished or killed, is kept as long as the image's stamp is the same; images
    that are gone from the collection leave the index. A build waits for another one in the same folder. An index by
    these weights with the wrong activation is replaced. `encoder_name` is what people call the encoder,
    `index_kind` the registered index that searches the vectors. `encoding` encodes in place of this process: with this
    very encoder.
    Raises `IndexMismatchError` where `folder` holds another encoder's index, `ConfigError` where no image can be read.
    """
    INDEXES.load(index_kind)
    # What an earlier Fieldscope can read stays as it wrote it.
    kind = {} if index_kind == DEFAULT_INDEX else {"index": index_kind}
    with claimed(folder):
        encoding = encoding or (lambda ids, skipped: encoded_batches(collection, encoder, ids, skipped, batch_size))
        return _build(collection, encoder, folder, encoder_name, kind, encoding, progress or (lambda *_: None))


def _build(
    collection: Collection,
    encoder: Encoder,
    folder: Path,
    encoder_name: str,
    kind: Mapping[str, str],
    encoding: Encoding,
    report: Report,
) -> BuildReport:
    shards = Shards(folder, encoder.fingerprint)
    kept = (*_indexed(folder, encoder), *shards.read())
    known = {entry.image_id: entry for entry in kept if entry.vector.shape == (encoder.dim,)}
    ids = collection.ids()
    done: dict[str, Encoded] = {}
    fresh: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for image_id in ids:
        try:
            stamp = collection.stamp(image_id)
        except ImageError as error:
            skipped[image_id] = str(error)
            continue
        if image_id in known and known[image_id].stamp == stamp:
            done[image_id] = known[image_id]
        else:
            fresh[image_id] = stamp
    report(len(done) + len(skipped), len(ids))
    encoded = 0
    for made in encoding(list(fresh), skipped):
        entries = [Encoded(image_id, fresh[image_id], vector) for image_id, vector in made.items()]
        if entries:
            shards.write(entries)
        done |= {entry.image_id: entry for entry in entries}
        encoded += len(entries)
        report(len(done) + len(skipped), len(ids))
    skipped |= collection.skipped()
    with writing(folder):
        replace_file(folder / _SKIPPED, json.dumps(skipped, indent=2, sort_keys=True))
    if not done:
        raise ConfigError(f"none of {len(ids)} images can be read; see {str(folder / _SKIPPED)!r} for the reasons")
    indexed = [done[image_id] for image_id in ids if image_id in done]
    vectors = np.stack([entry.vector for entry in indexed])
    write_index(
        folder,
        [entry.image_id for entry in indexed],
        vectors,
        encoder.fingerprint,
        encoder_name=encoder_name,
        attributes={"collection": collection.locator(), "stamps": [entry.stamp for entry in indexed], **kind},
    )
    shards.clear()
    return BuildReport(len(indexed), encoded, skipped)


def _indexed(folder: Path, encoder: Encoder) -> Iterator[Encoded]:
    """What the index in `folder` holds; nothing where it is missing or damaged."""
    try:
        manifest = read_manifest(folder)
    except IndexMismatchError:
        return
    if is_of_wrong_build(manifest, encoder):
        return  # none of its vectors can be kept
    require_encoder(folder, manifest, encoder)
    try:
        manifest, vectors = read_index(folder, encoder)
    except IndexMismatchError:
        return
    stamps = manifest.attributes.get("stamps")
    if isinstance(stamps, list) and len(stamps) == len(manifest.ids):
        yield from map(Encoded, manifest.ids, stamps, vectors)
