"""What FieldNotes-Universal is made of: documents, queries, and splits of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fieldscope.core.documents import Modality, modality
from fieldscope.fieldnotes.scene import Scene
from fieldscope.fieldnotes.universal_tasks import UniversalTask


@dataclass(frozen=True)
class UniversalDocument:
    """A candidate: a scene that is drawn, words, or both. `about` is the scene that it tells of."""

    about: Scene
    picture: Scene | None = None
    text: str = ""

    @property
    def modality(self) -> Modality:
        return modality(self.picture is not None, bool(self.text))


@dataclass(frozen=True)
class UniversalQuery:
    """A query of a task: its words, the scene that its own picture shows, and the ids of the matches in its pool."""

    id: str
    task: UniversalTask
    text: str
    picture: Scene | None
    relevant: frozenset[str]


@dataclass(frozen=True)
class UniversalSplit:
    """Documents by id, the pool of each task by its name, and the queries."""

    name: str
    documents: Mapping[str, UniversalDocument]
    pools: Mapping[str, tuple[str, ...]]
    queries: tuple[UniversalQuery, ...]

    @property
    def scenes(self) -> dict[str, Scene]:
        """Every scene that is drawn, of documents and queries, by the key of the scene."""
        drawn = [
            *(document.picture for document in self.documents.values()),
            *(query.picture for query in self.queries),
        ]
        return {scene.key(): scene for scene in drawn if scene is not None}
