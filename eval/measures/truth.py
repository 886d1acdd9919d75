"""What is known to be true of images: the answer key that claims about them are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fieldscope.agent.types import Predicate
from fieldscope.eval.runs.annotations import Target
from fieldscope.eval.types import Qrels

RELEVANCE = "relevance"
"""The source of what the judgments alone can tell."""


class Truth(Protocol):
    """A source of truth about images."""

    @property
    def source(self) -> str:
        """What the knowledge is read from, in a word or two."""
        ...

    def holds(self, predicate: Predicate, image_id: str) -> bool | None:
        """Whether the image is as the predicate says, with the answer that it expects; None where that is unknown."""
        ...


@dataclass(frozen=True)
class AnswerKey:
    """Judgments and, where there is one, a source of truth about the images. People's marks override both.

    The whole query holds of the relevant images and of no others. Of its parts, relevance says less: all hold of a
    relevant image, and of another at least one fails, but not which. So without a `truth` nothing is known about the
    parts on images that are not relevant.
    """

    judgments: Qrels
    truth: Truth | None = None
    marks: Mapping[Target, bool] = field(default_factory=dict)

    def source(self, kind: str) -> str:
        """What is known about predicates of this kind, but for people's marks, is read from it."""
        return RELEVANCE if self.truth is None or kind == "query" else self.truth.source

    def one_sided(self, kind: str) -> bool:
        """Whether predicates of this kind are known to hold of some images, and to fail of none but marked ones."""
        return self.truth is None and kind != "query"

    def relevant(self, query_id: str) -> frozenset[str]:
        """The relevant images of a query. Those without a judgment are not."""
        judged: Mapping[str, int] = self.judgments.get(query_id, {})
        return frozenset(image_id for image_id, judgment in judged.items() if judgment > 0)

    def holds(self, query_id: str, predicate: Predicate, image_id: str) -> bool | None:
        """Whether the predicate holds of the image; None where that is not known."""
        marked = self.marked(query_id, predicate, image_id)
        if marked is not None:
            return marked
        if self.truth is not None and predicate.kind != "query":
            return self.truth.holds(predicate, image_id)
        relevant = self.judgments.get(query_id, {}).get(image_id, 0) > 0
        return relevant if relevant or predicate.kind == "query" else None

    def marked(self, query_id: str, predicate: Predicate, image_id: str) -> bool | None:
        """Whether a person found that the predicate holds of the image; None where its verdict has no mark."""
        return self.marks.get(Target(query_id, image_id, predicate.id))
