"""A library: an indexed collection, searched by text, image plus change, or dialogue. Building one can be stopped and
taken up at any time."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError, ImageError, IndexMismatchError
from fieldscope.core.files import replace_file
from fieldscope.core.types import Candidate, Prior, Query
from fieldscope.retrieval.captions import Captions, read_captions
from fieldscope.retrieval.collection import Collection
from fieldscope.retrieval.encoder import Encoder, Vectors
from fieldscope.retrieval.index import ExactIndex, Index
from fieldscope.retrieval.lru import ByteLru
from fieldscope.retrieval.manifest import (
    claimed,
    is_of_wrong_build,
    read_index,
    read_manifest,
    require_encoder,
    writing,
)
from fieldscope.retrieval.opening import reopen_collection
from fieldscope.retrieval.progress import Report
from fieldscope.retrieval.shards import Encoded, Shards

_SKIPPED = "skipped.json"
_BATCH_BYTES = 256_000_000
_TEXT_BYTES = 4_000_000
_READERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class BuildReport:
    """How many images are in the index, how many of them were encoded just now, and why the others are not in it."""

    indexed: int
    encoded: int
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class Library:
    """An index, the encoder that it belongs to, where its images are, and their captions, where there are some."""

    index: Index
    encoder: Encoder
    locator: Mapping[str, Any]
    captions: Captions | None = None
    _fused: dict[float, Index] = field(default_factory=dict, init=False, repr=False, compare=False)
    _fusing: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _texts: ByteLru[Vectors] = field(
        default_factory=lambda: ByteLru(_TEXT_BYTES), init=False, repr=False, compare=False
    )

    @cached_property
    def collection(self) -> Collection:
        """The images. Raises `ConfigError` where the folder that was indexed is gone; searching goes on without it."""
        return reopen_collection(self.locator)

    def search(
        self,
        query: Query,
        k: int,
        descriptions: Sequence[str] = (),
        caption_weight: float = 0.0,
        prior: Prior = "fused",
        reference: Vectors | None = None,
    ) -> list[Candidate]:
        """The `k` images nearest to the query (all, where there are fewer), best first; the prior is the similarity.

        With `descriptions` it is the mean of the similarities to the query and to each of them. `caption_weight` (0 to
        1) of it is the similarity to an image's caption, where it has one (ImageScope, arXiv 2503.10166, takes 0.15). A
        query's reference image counts as half of the query (the normalised sum of its vector and the text's), which
        counts as much as all descriptions together, and is not among the candidates. Where `prior` is `query` the
        images are those, and their priors are their similarities to the query alone, best first. `reference` is the
        reference image's vector, shape (dim,), where the index does not hold it; without, that raises `ConfigError`.
        """
        texts = (Query(id=query.id, text=description) for description in descriptions)
        wanted = [self._encode(query, reference), *map(self._encode_text, texts)]
        # No description has seen the reference image, so that what they are wrong about they may share.
        own = max(len(descriptions), 1) if query.reference_image is not None else 1
        # Inner products are linear: the mean of the similarities is the similarity to the mean.
        weights = [own, *[1] * len(descriptions)]
        mean: Vectors = np.average(np.stack(wanted), axis=0, weights=weights)[np.newaxis].astype(np.float32)
        index = self._weighted(caption_weight)
        scores, ids = index.search(mean, k + (query.reference_image is not None))
        nearest = zip(ids[0], scores[0], strict=True)
        found = [Candidate(i, float(score)) for i, score in nearest if i != query.reference_image][:k]
        if prior == "query":
            found = [Candidate(c.image_id, float(index.vector(c.image_id) @ wanted[0])) for c in found]
            found.sort(key=lambda candidate: -candidate.prior)
        return found

    def _encode(self, query: Query, reference: Vectors | None) -> Vectors:
        if query.reference_image is None:
            return self._encode_text(query)
        text = self._encode_text(query.model_copy(update={"reference_image": None}))
        image = self.index.vector(query.reference_image) if reference is None else reference
        both = image + text
        unit: Vectors = both / np.linalg.norm(both)
        return unit

    def _encode_text(self, query: Query) -> Vectors:
        """The vector of a query's words, which a later round asks for again."""
        key = (query.text, query.dialogue)
        vector = self._texts.get(key)
        if vector is None:
            vector = self.encoder.encode_query(query)
            self._texts.put(key, vector, vector.nbytes + len(query.text))
        return vector

    def _weighted(self, caption_weight: float) -> Index:
        """The index in which inner products are similarities to image and caption, weighted; made once."""
        if self.captions is None or caption_weight == 0:
            return self.index
        with self._fusing:
            if caption_weight not in self._fused:
                from fieldscope.retrieval.faiss_index import FaissIndex

                vectors = self.captions.blend(self.index.ids, self.index.vectors, caption_weight)
                self._fused[caption_weight] = FaissIndex(self.index.ids, vectors, self.index.encoder_fingerprint)
        return self._fused[caption_weight]


def open_library(folder: Path, encoder: Encoder) -> Library:
    """The library in `folder`, with its captions where it has some.

    Raises `IndexMismatchError` where it is none, damaged, or another encoder's.
    """
    from fieldscope.retrieval.faiss_index import FaissIndex  # FAISS is needed to search, not to build

    manifest, vectors = read_index(folder, encoder)
    locator = manifest.attributes.get("collection")
    if not isinstance(locator, dict):
        raise IndexMismatchError(f"{str(folder)!r} does not say which images it holds; make it with `fieldscope index`")
    index = FaissIndex(manifest.ids, vectors, manifest.encoder_fingerprint)
    return Library(index, encoder, locator, read_captions(folder, encoder))


def read_skipped(folder: Path) -> dict[str, str]:
    """What the index in `folder` does not hold of the images that it was made from, with the reason.

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
    batch_size: int = 64,
    progress: Report | None = None,
) -> BuildReport:
    """Encode a collection into a library in `folder`, and write what is not in it, with the reason, to `skipped.json`
    there: images that can't be read, and files that are none.

    What an earlier build has encoded, finished or killed, is kept as long as the image's stamp is the same; images
    that are gone from the collection leave the index. A build waits for another one in the same folder. An index by
    these weights with the wrong activation is replaced. `encoder_name` is what people call the encoder.
    Raises `IndexMismatchError` where `folder` holds another encoder's index, `ConfigError` where no image can be read.
    """
    with claimed(folder):
        return _build(collection, encoder, folder, encoder_name, batch_size, progress or (lambda done, total: None))


def _build(
    collection: Collection, encoder: Encoder, folder: Path, encoder_name: str, batch_size: int, report: Report
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
    for batch in _batches(collection, list(fresh), batch_size, skipped):
        vectors = encoder.encode_images([image for _, image in batch])
        entries = [
            Encoded(image_id, fresh[image_id], vector) for (image_id, _), vector in zip(batch, vectors, strict=True)
        ]
        shards.write(entries)
        done |= {entry.image_id: entry for entry in entries}
        encoded += len(entries)
        report(len(done) + len(skipped), len(ids))
    skipped |= collection.skipped()
    with writing(folder):
        replace_file(folder / _SKIPPED, json.dumps(skipped, indent=2, sort_keys=True))
    if not done:
        raise ConfigError(f"none of {len(ids)} images can be read; {str(folder / _SKIPPED)!r} says why")
    indexed = [done[image_id] for image_id in ids if image_id in done]
    vectors = np.stack([entry.vector for entry in indexed])
    ExactIndex([entry.image_id for entry in indexed], vectors, encoder.fingerprint).save(
        folder,
        encoder_name=encoder_name,
        attributes={"collection": collection.locator(), "stamps": [entry.stamp for entry in indexed]},
    )
    shards.clear()
    return BuildReport(len(indexed), encoded, skipped)


def _indexed(folder: Path, encoder: Encoder) -> Iterator[Encoded]:
    """What the index in `folder` holds already; nothing where there is none, or one that is damaged."""
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


def _batches(
    collection: Collection, ids: Sequence[str], batch_size: int, skipped: dict[str, str]
) -> Iterator[list[tuple[str, PILImage.Image]]]:
    """The images, `batch_size` at a time or fewer where they are large; those that can't be read go to `skipped`."""

    def attempt(image_id: str) -> PILImage.Image | ImageError:
        try:
            return collection.load(image_id)
        except ImageError as error:
            return error

    batch: list[tuple[str, PILImage.Image]] = []
    waiting = iter(ids)
    with ThreadPoolExecutor(_READERS) as pool:
        while group := list(islice(waiting, min(_READERS, batch_size - len(batch)))):
            for image_id, image in zip(group, pool.map(attempt, group), strict=True):
                if isinstance(image, ImageError):
                    skipped[image_id] = str(image)
                else:
                    batch.append((image_id, image))
            if len(batch) >= batch_size or sum(3 * i.width * i.height for _, i in batch) >= _BATCH_BYTES:
                yield batch
                batch = []
    if batch:
        yield batch
