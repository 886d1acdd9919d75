"""Calls to the engine, and its replies, independent of any client's format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from fieldscope.service.server.api.promises import Wanted

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.types import Predicate, RerankResult
    from fieldscope.core.types import ImageSource, Turn
    from fieldscope.service.metadata.filter import Filter
    from fieldscope.service.server.api.servedrun import Setting
    from fieldscope.service.workflows.promise import KeptImages


HowJudged: TypeAlias = Literal["picture", "text", "not judged"]
"""What a model judged of a document: its picture, or its text. One about which no model answered (the budget ended the
questions, calls failed, it can't be read) keeps its first-stage position or ranks last."""


@dataclass(frozen=True)
class TextDocument:
    """A text, judged by the LMM."""

    text: str


@dataclass(frozen=True)
class ImageDocument:
    """An image: its id in the call's image source. The same pixels twice are two documents with one id."""

    image_id: str


@dataclass(frozen=True)
class UnjudgedDocument:
    """A document that can't be judged: `reason` says why, as in "document 3 has no words and no image"."""

    reason: str


Document = TextDocument | ImageDocument | UnjudgedDocument


@dataclass(frozen=True)
class Options:
    """Options beyond a client's own fields, from the body or from `X-Fieldscope-*` headers.

    `strategy` is a shipped or configured strategy's name, None for the service's default; `budget` what the call may
    spend; `explain` how many of the best images get a reason; `instruction` says what a match is, to an encoder that
    reads one, in place of the strategy's own; `wanted` is the precision to promise; `predicates` are asked in place of
    those that the model would derive. Only images whose metadata satisfies `filter` are searched or ranked.
    """

    strategy: str | None = None
    budget: Budget | None = None
    explain: int = 0
    instruction: str | None = None
    wanted: Wanted = field(default_factory=Wanted)
    predicates: tuple[Predicate, ...] = ()
    filter: Filter | None = None


@dataclass(frozen=True)
class Inputs:
    """What a call is about: a query of words, an image (`query_image`, an id in `images`), or both, and perhaps
    documents.

    `images` has every image of the call: uploaded ones by the hash of their pixels, those of registered collections as
    `fieldscope://COLLECTION/ID`.
    """

    query: str
    documents: tuple[Document, ...]
    images: ImageSource
    query_image: str | None = None


@dataclass(frozen=True)
class RerankCall(Inputs):
    """Documents to rank for a query; those that can't be judged come last. `top_n` bounds the reply (None: all).
    `places` has the place in the request of each document that a filter left (None: of all, in their order)."""

    top_n: int | None = None
    options: Options = field(default_factory=Options)
    places: tuple[int, ...] | None = None

    def place(self, index: int) -> int:
        """The place in the request of a document of the call."""
        return index if self.places is None else self.places[index]


@dataclass(frozen=True, kw_only=True)
class SearchCall(Inputs):
    """A query to a registered collection: words, words that change a reference image (`query_image`, which may be of
    the collection or uploaded), or a caption with the rounds of a dialogue.

    `top_k` is how many images the first stage retrieves (None: as many as the strategy says). The result names images
    as `fieldscope://COLLECTION/ID`.
    """

    collection: str
    dialogue: tuple[Turn, ...] = ()
    top_k: int | None = None
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Scored:
    """A document at its place: `index` in the call's documents, from 0, and a score strictly between 0 and 1 that falls
    strictly along the order; `p_match` if the strategy claims a probability; the reason, if one was requested; and
    how it was judged."""

    index: int
    relevance_score: float
    p_match: float | None = None
    reason: str | None = None
    judged: HowJudged = "not judged"


@dataclass(frozen=True)
class Reranked:
    """Everything that led to a ranking, and the name of the model that judged it. The result's `query_id` is the
    trace's id. `order` has a rerank's documents, best first, at most `top_n` of them. `kept` is what a promised
    precision keeps, `setting` everything besides the call that decided the ranking."""

    result: RerankResult
    model: str
    order: tuple[Scored, ...] = ()
    kept: KeptImages | None = None
    setting: Setting | None = None
