"""The agent's records: instructions, predicates, verdicts, comparisons, and a ranking with its reasons."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from operator import is_, not_
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fieldscope.core.documents import Modality
from fieldscope.core.looks import Look, look_id
from fieldscope.core.types import Candidate, Turn

State = Literal["answered", "unknown", "not_asked"]
"""`unknown`: the call failed or its answer could not be read; `not_asked`: a budget or an early stop came first, or no
prompt is for such a query and candidate."""

Operation = Literal["addition", "removal", "modification", "comparison", "retention"]
"""ImageScope's types of atomic instruction (arXiv 2503.10166)."""


_NOT_ASKED_ABOUT = "candidates that were not asked about keep their first-stage position"
# Called for every value that is written: built-in functions, since functions of Python take several times as long.
_is_none = partial(is_, None)
_is_image = "image".__eq__

_LOST = re.compile(r"the stage '(\w+)' was lost \(")
Count = Annotated[int, Field(le=2**53)]
"""A number of tokens, or a rank; no larger than a float can count."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Instruction(_Record):
    """One atomic instruction: what is to be done with which fact. `words` are the request's own words for it."""

    text: str
    words: str = ""
    type: Operation = "addition"


class Synthesis(_Record):
    """What a matching image must show, thought out from the request (ImageScope, arXiv 2503.10166).

    `core` names the core elements, `detailed` adds details, `comprehensive` says all. `fallback` says why the request's
    own words stand in for a model's answer, None where the model answered.
    """

    thought: str
    core: str
    detailed: str
    comprehensive: str
    instructions: tuple[Instruction, ...] = ()
    fallback: str | None = None

    @property
    def descriptions(self) -> tuple[str, ...]:
        """The different descriptions, shortest meaning first."""
        return tuple(dict.fromkeys((self.core, self.detailed, self.comprehensive)))


class Predicate(_Record):
    """A yes/no question with the answer that a match must give (ImageScope's atomic proposition, arXiv 2503.10166).

    `kind` is `query` for the whole query at once, else the attribute asked about; `words` are the query's own words.
    `weight` multiplies what its answer says of a match; a person may have set it.
    """

    id: str
    question: str
    expected: Literal["yes", "no"] = "yes"
    kind: str = "query"
    words: str = ""
    weight: float = Field(default=1.0, ge=0, le=10, exclude_if=lambda weight: weight == 1.0)


class Asked(_Record):
    """What became of one question to the model, and what it cost.

    `error` says why it is unknown or was not asked, `refused` that the server refused the request and would refuse it
    again; `request_key` finds request and response in the response cache. `latency` is in seconds; `cached` says that
    no model was asked for it.
    """

    state: State
    error: str | None = None
    refused: bool = False
    request_key: str | None = None
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    latency: float = 0.0
    cached: bool = False


class Draw(Asked):
    """One of several calls that a verdict was made of. `sample` numbers calls of one kind.

    A `reasoned` one thought first: `thought` is what it said before its answer. `p_yes` is what its log-probabilities
    give; where there are none, `says` is what its words say. Both are None unless answered.
    """

    sample: int = 0
    reasoned: bool = False
    thought: str = ""
    answer: str = ""
    p_yes: float | None = None
    says: Literal["yes", "no"] | None = None


class Verdict(Asked):
    """What the model said about one predicate on one image.

    `p_yes` and `p_expected` lie strictly between 0 and 1 and are None unless answered. `mode` says how P(yes) was read:
    from the log-probabilities of the answer's token (`logprobs`), as the share of plain answers (`samples`), as the
    model stated it (`stated`), or from the score of a scoring model (`scored`), which is an `ImageScore` of its own; it
    is None where nothing was asked, and in runs of earlier versions. `thought` is what
    the model said or thought before its answer, of several thoughts the first one that led to an answer; `reasoned`
    says that it thought because the strategy asked it to. `draws` are the calls where the verdict took more than one,
    or a reasoned one: cost and state of the verdict are theirs together. `look` is the closer look at the image that
    was asked about, None for the picture as it is.

    A `joint` verdict was given together with others in one structured answer; that answer's cost is a `Call` of its
    own.
    """

    predicate: str
    image_id: str
    p_yes: float | None = None
    p_expected: float | None = None
    answer: str = ""
    joint: bool = False
    mode: Literal["logprobs", "samples", "stated", "scored"] | None = None
    reasoned: bool = False
    thought: str = ""
    draws: tuple[Draw, ...] = ()
    look: Look | None = Field(default=None, exclude_if=_is_none)

    @property
    def shown(self) -> str:
        """The id of the image as the model saw it."""
        return look_id(self.image_id, self.look) if self.look else self.image_id

    @property
    def calls(self) -> tuple[Asked, ...]:
        """The questions to the model that it took; none for a joint verdict, and none for one of the scorer's."""
        return () if self.joint or self.mode == "scored" else self.draws or (self,)


class ImageScore(Asked):
    """What the scoring model said of one image: how well it fits the query or, with a `predicate`'s id, that question.

    `value` is on the scorer's own scale, and greater is better; it is None unless answered.
    """

    image_id: str
    value: float | None = None
    predicate: str | None = None


class ProposedLooks(_Record):
    """The closer looks that there are at one image, in the order in which they are taken. `similarity` is that of the
    picture to the texts for which its regions were proposed, None where no region was."""

    image_id: str
    looks: tuple[Look, ...] = ()
    similarity: float | None = None

    @property
    def seems_small(self) -> bool:
        """Whether what is looked for seems small in the picture: its best region is more similar than the whole, or the
        model named a box in it."""
        return self.may_be_small and self.similarity is not None

    @property
    def may_be_small(self) -> bool:
        """The same, or it is not known how similar the whole picture is. False where no region was proposed."""
        if any(look.proposed_by == "model" for look in self.looks):
            return True
        best = max((look.similarity for look in self.looks if look.similarity is not None), default=None)
        return best is not None and (self.similarity is None or best > self.similarity)


class Comparison(Asked):
    """What the model said when it was shown several candidates at once: which is the best.

    `shown` are the image ids in the order in which they were shown (a composed query's reference image comes before
    them and is not among them); `probabilities` are P(best) along `shown`, which sum to 1, or P(yes) of a single one,
    and are empty unless answered. `mode` says how they were read: from log-probabilities, or from one plain choice
    (`samples`).
    """

    shown: tuple[str, ...]
    probabilities: tuple[float, ...] = ()
    answer: str = ""
    mode: Literal["logprobs", "samples"] | None = None


class Reason(Asked):
    """Why an image matches or not, asked in a call of its own after the verdict.

    `says` is the side that the words take, None where they take none; `agrees` compares it with the verdict.
    """

    image_id: str
    text: str = ""
    says: Literal["yes", "no"] | None = None
    agrees: bool | None = None


class Call(Asked):
    """A question that is no predicate's: `stage` is synthesize, caption, decompose, check, refine, joint, ground, or
    document: a text that was to be ranked."""

    stage: str
    text: str = ""


ORDER_ONLY = ("comparisons", "parts", "first_stage")
"""The contributions to a score that change the order and not P(match)."""


class RankedCandidate(_Record):
    """An image at its rank (1 is best), with the score that put it there and what the score is made of.

    `score` is what the ranking is sorted by; no two are equal. `p_match` is the probability of a match where the
    strategy claims one, before comparisons, which change the order only. `standing` is the prior against the
    collection's background, None where there was none, and `prior_rank` its rank before. `rank_low` to `rank_high`
    holds the rank with a probability of 90 %, where it was estimated. `contributions` are log-odds that sum to the
    score: of the `prior`, of the `scorer`, of each predicate by its id, of what closer `looks` changed, of the
    `comparisons`, of the `parts` that hold or (beside a reference image) of the `first_stage`'s order where no image is
    confirmed, and the `base` that all images share (all that were asked about, and all others, where a calibration says
    what prior and scorer alone are worth). In a collection of documents `modality` says what the document is made of,
    and `text` are its words.
    """

    image_id: str
    rank: Count = Field(ge=1)
    score: float
    prior: float
    standing: float | None = Field(default=None, exclude_if=_is_none)
    prior_rank: Count = Field(ge=1)
    p_match: float | None = None
    rank_low: Count | None = None
    rank_high: Count | None = None
    contributions: Mapping[str, float] = Field(default_factory=dict)
    modality: Modality = Field(default="image", exclude_if=_is_image)
    text: str = Field(default="", exclude_if=not_)

    @property
    def candidate(self) -> Candidate:
        """The image as it was before the ranking."""
        return Candidate(self.image_id, self.prior, self.standing)


class NothingMatches(_Record):
    """The decision that no image seems to match: `statistic`, the best P(match) of the `judged` images before
    comparisons, lies below `threshold`.

    `failing` are the ids of the predicates that hold of no image that was asked about them, `nearest` the images of
    which most parts hold, then by prior; images of which none holds are left out. Both are empty where the strategy
    asks about the whole query only.
    """

    statistic: float = Field(ge=0, le=1)
    threshold: float = Field(ge=0, le=1)
    judged: Count = Field(ge=1)
    failing: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()


class TraceEvent(_Record):
    """One thing that happened on the way to a ranking. `at` is seconds since the query began."""

    kind: str
    at: float
    data: dict[str, Any] = Field(default_factory=dict)


class RerankResult(_Record):
    """A ranking and everything that led to it.

    The request is `query_text`, with `reference_image` where that is a change to an image and `dialogue` where rounds
    followed. `scores` are those of the scoring model, where the strategy uses one. `ended` names the stage in which a
    budget ran out, None where the work was finished. `relative` says that P(match) was standardised over these very
    candidates, so that it can't be compared with other lists. `nothing` says that no image seems to match, None where
    that was not decided; the images are then ranked by how many parts hold. `flags` are plain warnings, e.g. that the
    bundled models were used on foreign images.
    """

    query_id: str
    query_text: str
    reference_image: str | None = None
    dialogue: tuple[Turn, ...] = ()
    strategy: str
    ranking: tuple[RankedCandidate, ...]
    synthesis: Synthesis | None = None
    predicates: tuple[Predicate, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    reasons: tuple[Reason, ...] = ()
    calls: tuple[Call, ...] = ()
    scores: tuple[ImageScore, ...] = Field(default=(), exclude_if=not_)
    trace: tuple[TraceEvent, ...] = ()
    ended: str | None = None
    relative: bool = Field(default=False, exclude_if=not_)
    nothing: NothingMatches | None = Field(default=None, exclude_if=_is_none)
    flags: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[Asked, ...]:
        """Every question that cost a call to an LMM, whatever became of it."""
        verified = [call for verdict in self.verdicts for call in verdict.calls]
        questions: tuple[Asked, ...] = (*self.calls, *verified, *self.comparisons, *self.reasons)
        return tuple([question for question in questions if question.state != "not_asked"])


def unknown_flag(asked: Sequence[Asked]) -> str | None:
    """The warning of a result some of whose questions got no answer; None where all that were asked did."""
    states = [question.state for question in asked]
    unknown, total = states.count("unknown"), len(states) - states.count("not_asked")
    return f"{unknown} of {total} calls gave no answer" if unknown else None


def unasked_flag(why: str) -> str:
    """The warning of a result that has candidates about which nothing was asked, for a reason that is no budget's."""
    return f"{_NOT_ASKED_ABOUT}: {why}"


def is_unasked_flag(flag: str) -> bool:
    """Whether a warning is `unasked_flag`'s."""
    return flag.startswith(_NOT_ASKED_ABOUT)


def lost_flag(stage: str, why: str, instead: str) -> str:
    """The warning of a result one of whose stages got no answer that it could use."""
    return f"the stage {stage!r} was lost ({why}); {instead}"


def lost_stage(flag: str) -> str | None:
    """The stage that a warning says was lost; None for any other warning."""
    match = _LOST.match(flag)
    return match[1] if match else None
