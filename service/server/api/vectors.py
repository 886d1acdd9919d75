"""The first stage of a call: the similarity of each image to the query, from cached vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fieldscope.core.errors import ConfigError, ImageError
from fieldscope.core.types import Candidate, HashSource, Query, Scale, Search
from fieldscope.retrieval.lru import ByteLru
from fieldscope.retrieval.query_vectors import QueryVectors
from fieldscope.retrieval.union import UnionCollection
from fieldscope.service.server.api.collections import ServedCollection, find_image
from fieldscope.service.server.api.pictures import UPLOADED, PictureStore

if TYPE_CHECKING:
    from fieldscope.retrieval.collection import Collection
    from fieldscope.retrieval.encoder import Encoder, Vectors

_KEPT_BYTES = 64_000_000
_AT_ONCE = 8  # images in memory


class ResidentImages(UnionCollection, HashSource):
    """Every image that a call can name: those of registered collections, and uploads. Hashes are computed before the
    graph asks for them, so that it needs no thread."""

    def __init__(self, store: PictureStore, collections: Mapping[str, ServedCollection]) -> None:
        parts: dict[str, Collection] = {served.reference(""): served.images for served in collections.values()}
        super().__init__(parts | {UPLOADED: store})
        self._learnt: set[str] = set()

    def replace(self, prefix: str, images: Collection) -> None:
        """Put other images in the place of the collection with this prefix."""
        self.parts[prefix] = images
        self._learnt = {image_id for image_id in self._learnt if not image_id.startswith(prefix)}

    async def learn(self, image_ids: Iterable[str]) -> None:
        """Compute the missing hashes of these images. Raises `ImageError` for one that can't be read."""
        if missing := [image_id for image_id in image_ids if image_id not in self._learnt]:
            await asyncio.to_thread(self._learn, missing)

    def _learn(self, image_ids: Sequence[str]) -> None:
        for image_id in image_ids:
            self.pixel_hash(image_id)
            if not image_id.startswith(UPLOADED):  # whose number has no limit, and whose name is their hash
                self._learnt.add(image_id)


class Vectoriser:
    """Vectors of queries and images under the service's CLIP: those of collections from their index; others are
    computed here and cached. Safe to use from several threads."""

    def __init__(self, encoder: Encoder, images: ResidentImages, collections: Mapping[str, ServedCollection]) -> None:
        self.encoder = encoder
        self._images = images
        self._collections = collections
        self._kept: ByteLru[Vectors] = ByteLru(_KEPT_BYTES)
        self._queries = QueryVectors(encoder)

    def forget(self) -> None:
        """Drop the vectors that are kept: images of a collection may have changed."""
        self._kept = ByteLru(_KEPT_BYTES)

    async def candidates(
        self, query: Query, image_ids: Sequence[str], instruction: str | None = None
    ) -> list[Candidate]:
        """The images with their similarity to the query's vector as the prior. Raises `ImageError`."""
        priors = await self.priors(query, image_ids, instruction)
        usual = await self.background(query, image_ids, instruction)
        return [
            Candidate(image_id, prior, usual.standing(prior) if usual else None)
            for image_id, prior in zip(image_ids, priors, strict=True)
        ]

    async def priors(self, query: Query, image_ids: Sequence[str], instruction: str | None = None) -> list[float]:
        """The similarity of each image to the query's vector. Raises `ImageError`."""
        images = self._known(image_ids) if self._query_known(query, instruction) else None
        if images is None:
            images = await asyncio.to_thread(self._vectors, image_ids)
            vector = await asyncio.to_thread(self.query, query, instruction)
        else:
            vector = self.query(query, instruction)
        return [float(similarity) for similarity in images @ vector]

    async def background(self, query: Query, image_ids: Sequence[str], instruction: str | None = None) -> Scale | None:
        """How similar a sample of the collection of these images is to the query's vector; None for uploads, for images
        of several collections, and where the collection has no index. Raises `ImageError`."""
        matches = [find_image(self._collections, image_id) for image_id in image_ids]
        of_images = {match[0].name: match[0].library for match in matches if match is not None}
        (library,) = of_images.values() if len(of_images) == 1 and None not in matches else (None,)
        if library is None:
            return None
        return library.background(await asyncio.to_thread(self.query, query, instruction))

    async def text_priors(
        self, query: Query, texts: Mapping[str, str], instruction: str | None = None
    ) -> dict[str, float]:
        """The similarity of each text to the vector that `priors` compares images with, by the text's id. Raises
        `ImageError`."""

        def similarities() -> Vectors:
            queries = (Query(id=document, text=" ".join(text.split())) for document, text in texts.items())
            products: Vectors = np.stack([self._queries.of_text(text) for text in queries])
            return products @ self.query(query, instruction)

        values = await asyncio.to_thread(similarities) if texts else ()
        return {document: float(similarity) for document, similarity in zip(texts, values, strict=True)}

    def vector(self, image_id: str) -> Vectors:
        """One image's vector, shape (dim,). Raises `ImageError`."""
        vector: Vectors = self._vectors([image_id])[0]
        return vector

    def known(self, image_ids: Sequence[str]) -> Vectors | None:
        """The images' vectors, shape (n, dim), where none must be computed; else None."""
        return self._known(image_ids)

    def query(self, query: Query, instruction: str | None = None) -> Vectors:
        """A query's vector, shape (dim,), unit length. Raises `ImageError`."""
        return self._queries.of(query, self.vector, self._images.load, instruction)

    def _query_known(self, query: Query, instruction: str | None) -> bool:
        reference = query.reference_image
        if reference is not None and ("image" in self.encoder.uses or self._remembered(reference) is None):
            return False
        return not query.text or self._queries.remembers(query, instruction)

    def _known(self, image_ids: Sequence[str]) -> Vectors | None:
        """All vectors, shape (n, dim), or None if one must be computed."""
        known = [vector for image_id in image_ids if (vector := self._remembered(image_id)) is not None]
        return np.stack(known) if known and len(known) == len(image_ids) else None

    def _remembered(self, image_id: str) -> Vectors | None:
        """An image's vector from memory, which is faster, or from an index; None if it must be computed."""
        vector = self._kept.get(image_id)
        if vector is None and (match := find_image(self._collections, image_id)) is not None:
            collection, inner = match
            if collection.library is not None:
                with suppress(ConfigError):  # it could not be read when the index was built
                    vector = self._keep(image_id, collection.library.index.vectors_of([inner])[0])
        return vector

    def _keep(self, image_id: str, vector: Vectors) -> Vectors:
        self._kept.put(image_id, vector, vector.nbytes)
        return vector

    def _vectors(self, image_ids: Sequence[str]) -> Vectors:
        """Shape (n, dim). Images are read and encoded a few at a time, to save memory."""
        vectors = {image_id: self._remembered(image_id) for image_id in dict.fromkeys(image_ids)}
        missing = [image_id for image_id, vector in vectors.items() if vector is None]
        for start in range(0, len(missing), _AT_ONCE):
            batch = missing[start : start + _AT_ONCE]
            encoded = self.encoder.encode_images([self._images.load(image_id) for image_id in batch])
            for image_id, vector in zip(batch, encoded, strict=True):
                vectors[image_id] = self._keep(image_id, vector.copy())  # a view would keep the whole batch in memory
        return np.stack([vector for image_id in image_ids if (vector := vectors[image_id]) is not None])


class ServedRetriever:
    """A first stage over one collection, with the ids of a call."""

    def __init__(self, collection: ServedCollection, vectors: Vectoriser) -> None:
        self._collection = collection
        self._vectors = vectors

    def search(self, search: Search) -> list[Candidate]:
        """As `Library.search`; a reference image may be any image of the call. The candidates are read here, in the
        searching thread, so that their hashes are known later."""
        library = self._collection.library
        if library is None:
            raise ConfigError(f"collection {self._collection.name!r} has no index. Start the service with --encoder")
        query, vector = search.query, None
        if query.reference_image is not None:
            vector = self._vectors.query(query, search.instruction)
            inner = query.reference_image.removeprefix(self._collection.reference(""))
            search = replace(search, query=query.model_copy(update={"reference_image": inner}))
        candidates = library.search(search, vector)
        for candidate in candidates:
            with suppress(ImageError):  # the question about it reports the error
                self._collection.images.pixel_hash(candidate.image_id)
        return [replace(found, image_id=self._collection.reference(found.image_id)) for found in candidates]
