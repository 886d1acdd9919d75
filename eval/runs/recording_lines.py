"""The lines of a recording, each a kind of record."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, TypeAdapter

from fieldscope.agent.types import ImageScore
from fieldscope.cache.store import Entry
from fieldscope.core.documents import Modality
from fieldscope.eval.runs.inputs import BenchmarkLine, Line, QueryLine, StrategyLine

Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class RunLine(Line):
    """One run: its strategy, what its manifest says that decides the results, the queries that were finished, and the
    warnings that hold for all of them."""

    kind: Literal["run"] = "run"
    strategy: StrategyLine
    configuration: dict[str, Any]
    finished: tuple[str, ...]
    flags: tuple[str, ...] = ()


class ImageLine(Line):
    """An image that the model was asked about: the hash of its pixels, or where it could not be read, why. Of other
    documents that were ranked `modality` says what they are made of, and `text` are their words."""

    kind: Literal["image"] = "image"
    image_id: str
    sha256: Key | None = None
    error: str | None = None
    modality: Modality = Field(default="image", exclude_if=lambda modality: modality == "image")
    text: str | None = None


class SearchLine(Line):
    """A search of the first stage: what it looked for (`fieldscope.agent.nodes.retrieve.search_key`), how many images
    it wanted, and those that it found with their priors, best first; `standings` are theirs, where the collection has a
    background."""

    kind: Literal["search"] = "search"
    key: Key
    k: int = Field(ge=1)
    found: tuple[tuple[str, FiniteFloat], ...]
    standings: tuple[FiniteFloat | None, ...] = Field(default=(), exclude_if=lambda standings: not standings)


class ScoresLine(Line):
    """What a scoring model said of images, and the hash of what it was asked about them
    (`fieldscope.agent.scoring.score_key`)."""

    kind: Literal["scores"] = "scores"
    key: Key
    scores: tuple[ImageScore, ...]


_BoxWithNumber = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


class RegionsLine(Line):
    """Regions that were proposed for closer looks: what was asked of the proposer
    (`fieldscope.agent.nodes.inspect.proposals_key`), and the boxes (left, top, right, bottom, as shares of the
    picture) with their similarities, by image. An image that is not there has none. `named` are boxes that the
    model named itself, each with how many times the pixels it sees of it in a closer look."""

    kind: Literal["regions"] = "regions"
    key: Key
    regions: dict[str, tuple[_BoxWithNumber, ...]]
    named: dict[str, tuple[_BoxWithNumber, ...]] = Field(default_factory=dict, exclude_if=lambda named: not named)


class ResponseLine(Line):
    """A call with its answer, as the response cache keeps it."""

    kind: Literal["response"] = "response"
    key: Key
    request: str
    response: str
    provenance: str

    def entry(self) -> Entry:
        return Entry(self.key, self.request, self.response, self.provenance)


class FailureLine(Line):
    """A call that failed, and why. Without it a replay could not tell a failure from a gap. `response` is the answer
    that came and could not be read, where the run went on from it."""

    kind: Literal["failure"] = "failure"
    key: Key
    error: str
    response: str | None = None


RecordedLine = (
    RunLine | BenchmarkLine | QueryLine | ImageLine | SearchLine | ScoresLine | RegionsLine | ResponseLine | FailureLine
)
LINE: TypeAdapter[RecordedLine] = TypeAdapter(Annotated[RecordedLine, Field(discriminator="kind")])
