"""What every rerank endpoint asks for and gets, whichever client's words it speaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fieldscope.agent.usage import Usage

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.types import RerankResult
    from fieldscope.core.types import ImageSource, Turn


@dataclass(frozen=True)
class TextDocument:
    """A document in words, judged by the LMM on its text."""

    text: str


@dataclass(frozen=True)
class ImageDocument:
    """A picture: its id in the call's image source. The same pixels twice are two documents of one id."""

    image_id: str


@dataclass(frozen=True)
class UnjudgedDocument:
    """A document that nothing can be said about: `reason` says why, as in "document 3 has no words and no picture"."""

    reason: str


Document = TextDocument | ImageDocument | UnjudgedDocument


@dataclass(frozen=True)
class Options:
    """Fields beyond a client's own, from the body or from `X-Fieldscope-*` headers.

    `strategy` is a shipped or configured strategy's name, None for the service's default; `budget` what the call may
    spend; `explain` asks for the reasons of the first so many images.
    """

    strategy: str | None = None
    budget: Budget | None = None
    explain: int = 0


@dataclass(frozen=True)
class RerankCall:
    """Documents to rank for a query: words, a picture (`query_image`, an id in `images`), or both. Those that can't be
    judged come last.

    `images` has every picture of the call: uploaded ones by the hash of their pixels, those of registered collections
    as `fieldscope://COLLECTION/ID`.
    """

    query: str
    documents: tuple[Document, ...]
    images: ImageSource
    query_image: str | None = None
    top_n: int | None = None
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Scored:
    """A document at its place: `index` in the call's documents, from 0 (of a search: in the first stage's order), and a
    score strictly between 0 and 1 that falls strictly along the order; `p_match` where the strategy claims a
    probability; the reason, where one was asked for; `image_id` of an image."""

    index: int
    relevance_score: float
    p_match: float | None = None
    reason: str | None = None
    image_id: str | None = None


@dataclass(frozen=True)
class Reranked:
    """The documents, best first, at most `top_n` of them, and what was really used: `model`, `strategy`.

    `trace_id` finds `result` again. `usage` counts every question, those that the cache answered
    among them. `flags` are plain warnings.
    """

    trace_id: str
    order: tuple[Scored, ...]
    model: str
    strategy: str
    usage: Usage
    result: RerankResult
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchCall:
    """What is looked for in a registered collection: words, words that change a reference image, or a caption with the
    rounds of a dialogue.

    `reference` is an id in `images`: a picture of the collection (`fieldscope://COLLECTION/ID`), or one that was
    uploaded. `top_k` is how many the first stage finds (None: as many as the strategy says), `top_n` how many of the
    ranking are given back (None: all). The images of the result go by `fieldscope://COLLECTION/ID`.
    """

    collection: str
    query: str
    images: ImageSource
    reference: str | None = None
    dialogue: tuple[Turn, ...] = ()
    top_k: int | None = None
    top_n: int | None = None
    options: Options = field(default_factory=Options)
