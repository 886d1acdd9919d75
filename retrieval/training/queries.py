"""What a retriever learns from: queries with their positives, over a pool of documents of any kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from PIL import Image as PILImage

from fieldscope.core.documents import Modality, has_image, modality_of, text_of
from fieldscope.core.fingerprint import fingerprint
from fieldscope.retrieval.collection import Collection


@dataclass(frozen=True)
class Reading:
    """What a retriever reads of a query or a document: words, the hash of a picture's pixels, and of a query an
    instruction."""

    text: str = ""
    picture: str | None = None
    instruction: str = ""


@dataclass(frozen=True)
class TrainingQuery:
    """A query with the ids of its positives. `task` is the group that it counts in, and `depth` how far down a positive
    is looked for; `picture` is an id of the set's images."""

    id: str
    task: str
    text: str
    picture: str | None
    wanted: Modality
    positives: tuple[str, ...]
    instructions: tuple[str, ...] = ()
    depth: int = 5


class TrainingSet:
    """Queries and the pool that they are searched in. Its images are the pool's documents and the queries' pictures."""

    def __init__(
        self, name: str, queries: tuple[TrainingQuery, ...], pool: tuple[str, ...], images: Collection
    ) -> None:
        self.name = name
        self.queries = queries
        self.pool = pool
        self._images = images
        self._documents: dict[str, Reading] = {}

    @property
    def fingerprint(self) -> str:
        """Of the queries with their positives, and of the pool's ids."""
        return fingerprint({"queries": [asdict(query) for query in self.queries], "pool": list(self.pool)})

    def query(self, query: TrainingQuery, instruction: int = 0) -> Reading:
        """A query under one of its instructions (by number, from 0); none where it has none."""
        said = query.instructions[instruction] if query.instructions else ""
        picture = self._images.pixel_hash(query.picture) if query.picture is not None else None
        return Reading(query.text, picture, said)

    def document(self, document_id: str) -> Reading:
        known = self._documents.get(document_id)
        if known is None:
            picture = self._images.pixel_hash(document_id) if has_image(self._images, document_id) else None
            known = self._documents[document_id] = Reading(text_of(self._images, document_id), picture)
        return known

    def modality(self, document_id: str) -> Modality:
        return modality_of(self._images, document_id)

    def texts(self) -> Iterator[str]:
        """The words of all queries and documents."""
        yield from (query.text for query in self.queries)
        yield from (text_of(self._images, document_id) for document_id in self.pool)

    def readings(self) -> Iterator[Reading]:
        """Every query under each of its instructions, and every document."""
        for query in self.queries:
            for number in range(max(1, len(query.instructions))):
                yield self.query(query, number)
        for document_id in self.pool:
            yield self.document(document_id)

    def pictures(self) -> Iterator[tuple[str, str]]:
        """The hash of each picture, once, and the id that it is loaded by."""
        asked = [query.picture for query in self.queries if query.picture is not None]
        shown = [document_id for document_id in self.pool if has_image(self._images, document_id)]
        yield from {self._images.pixel_hash(image_id): image_id for image_id in [*asked, *shown]}.items()

    def load(self, image_id: str) -> PILImage.Image:
        return self._images.load(image_id)
