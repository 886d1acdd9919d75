"""The settings of the stages that ask about single images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from fieldscope.agent.roles import Role
from fieldscope.agent.strategies.stage import (
    QUERY,
    THOUGHT_TOKENS,
    AskingStage,
    Calls,
    ExtraBody,
    PromptRef,
    PromptUse,
    Scope,
    Settings,
    Share,
    Structured,
)
from fieldscope.prompts.prompt import Prompt

_FRAME, _ANSWER = 8, 4  # tokens of a joint answer: what stands around the answers, and each of them

Pair = Literal[
    "text -> image",
    "text -> text",
    "text -> image,text",
    "image -> text",
    "image -> image",
    "image -> image,text",
    "image,text -> text",
    "image,text -> image",
    "image,text -> image,text",
]
"""What a query is, and what a candidate: the eight types of M-BEIR's tasks, and the one that it has no task of."""

DOCUMENT = frozenset({"query", "text"})
"""What a prompt about a query and a document may say: the words of either."""

Mode = Literal["logprobs", "samples", "stated"]
"""How a probability is read: from log-probabilities, as the share of plain answers, or as the model states it."""


_STATED = 32  # tokens that a stated probability fits into


class Check(AskingStage):
    """Ask the predicates of a composed request about its reference image first: leave out what is untrue of it, and
    think again, within the rounds of `refine`, where it shows everything already. It is asked as `verify` asks."""

    needs: ClassVar[str | None] = "decompose"
    default_role: ClassVar[Role] = "verifier"

    def calls(self, scope: Scope) -> Iterator[Calls]:
        if isinstance(verify := scope.verify, Verify) and scope.composed:
            number, longest = scope.predicates * scope.rounds, verify.answer_tokens
            calls = number * verify.plain_calls("predicate")
            yield Calls("check", verify.prompt, calls, images=1, answer=1, longest=longest, like="verify")
            if (reason := verify.reason) and reason.prompt:
                number, longest = number * reason.thoughts, reason.max_tokens
                answer = min(THOUGHT_TOKENS, longest)
                yield Calls("check", reason.prompt, number, images=1, answer=answer, longest=longest, like="reason")


class Joint(Structured):
    """All questions about an image in one structured answer, with P(yes) of each read at its own place in it.

    On a share `sample` of the images the questions are asked one by one too, and together in a shuffled order; where
    the probabilities of the two ways agree to less than `agreement` (1 less their mean difference), all others are
    asked one by one as well. With `sample_first` so many images of the sample are asked about first, and the rest of it
    only where these agree too little. With `look_again` a question that was answered together is asked alone, too,
    where its answer is expected to change P(match) by at least that. `use` says whether questions are `always` asked
    together, or only where a calibration says that it pays. `top_logprobs` are the alternatives for each of the
    answer's tokens.
    """

    use: Literal["always", "calibrated"] = "always"

    sample: float = Field(default=0.05, ge=0.0, le=1.0)
    sample_first: int | None = Field(default=None, ge=1)
    agreement: float = Field(default=0.9, ge=0.0, le=1.0)
    look_again: float | None = Field(default=None, gt=0.0, lt=1.0)
    top_logprobs: int = Field(default=5, ge=2, le=20)


class ReasonFirst(Settings):
    """Let the model say what it sees before it answers, and read the answer behind that.

    `whole`, a prompt that takes a `query`, does so for the whole query, `prompt`, which takes a `question`, for the
    predicates; at least one of them. With `within` the question is asked plainly first, and thought about only where
    that P(yes) lies between the two. After a thought the answer is nearly certain, so the mean of several `thoughts`
    tells more; more than one are drawn at random. `max_tokens` are for thought and answer together.
    """

    prompt: PromptRef | None = None
    whole: PromptRef | None = None
    within: tuple[Share, Share] | None = None
    thoughts: int = Field(default=1, ge=1, le=64)
    max_tokens: int = Field(default=512, ge=2)
    extra_body: ExtraBody = Field(default_factory=dict)

    def prompt_for(self, kind: str) -> Prompt | None:
        """The prompt for a predicate of this kind; None where it is not thought about."""
        return self.whole if kind == "query" else self.prompt

    def is_uncertain(self, p_yes: float | None) -> bool:
        """Whether a first answer, None where it can't be read, leaves the question open."""
        low, high = self.within or (0.0, 1.0)
        return p_yes is None or low <= p_yes <= high

    @model_validator(mode="after")
    def _has_a_question(self) -> Self:
        if self.prompt is None and self.whole is None:
            raise ValueError("`reason` has no prompt; set `whole` for the whole query, or `prompt` for the predicates")
        if self.within is not None and self.within[0] >= self.within[1]:
            raise ValueError("the first bound in `within` is not below the second one; change the bounds")
        return self


class Verify(AskingStage):
    """Ask yes/no questions about each image: the whole query where the prompt takes a `query`, every predicate where it
    takes a `question`. With `whole`, a prompt that takes a `query`, the whole query is asked beside the predicates: a
    second opinion, which is wrong about other images than they are.

    P(yes) is read from the log-probabilities of the answer's token. With `samples` it is the smoothed share of so many
    short answers, drawn at random; where the prompts' `answer` is `probability` the model states it. Both need no
    log-probabilities.

    `documents` are the prompts about the whole query by what query and candidate are: they may say the candidate's
    `text`, too, and which pictures they show. A text about a picture has the `prompt` where it has none here; other
    pairs without one are not asked about, and neither are those whose prompt the model can't answer.

    `top_k` is the window: only that many, best prior first, are asked about (None: all). With `stop_below` questions
    are asked in waves of `wave`, those first that are expected to change an image's P(match) most, until no question
    is expected to change it by that much; without, all are asked. Of a budget a wave takes at most the `wave_share` of
    the calls that are left, so that its answers decide what the others are spent on. `max_tokens`, `top_logprobs`,
    `answer_after` and `extra_body` go into the request; see `LMMRequest`. `reason` lets the model think first.
    """

    default_role: ClassVar[Role] = "verifier"

    prompt: PromptRef
    whole: PromptRef | None = None
    documents: Mapping[Pair, PromptRef] | None = None
    top_k: int | None = Field(default=None, ge=1)
    stop_below: float | None = Field(default=None, gt=0.0, lt=1.0)
    wave: int = Field(default=64, ge=1)
    wave_share: float | None = Field(default=None, gt=0.0, le=1.0)
    joint: Joint | None = None
    samples: int | None = Field(default=None, ge=1, le=64)
    reason: ReasonFirst | None = None
    max_tokens: int = Field(default=1, ge=1)
    top_logprobs: int = Field(default=20, ge=1, le=20)
    answer_after: str | None = None
    extra_body: ExtraBody = Field(default_factory=dict)

    @property
    def mode(self) -> Mode:
        """How P(yes) is read from an answer."""
        if self.prompt.answer == "probability":
            return "stated"
        return "samples" if self.samples else "logprobs"

    @property
    def reading(self) -> str:
        """What else than the prompts decides the scale of P(yes), in words; empty for one answer's
        log-probabilities."""
        parts = {"logprobs": [], "samples": [f"{self.samples} samples"], "stated": ["stated"]}[self.mode]
        if reason := self.reason:
            where = " and ".join(kind for kind in ("whole", "prompt") if getattr(reason, kind))
            parts.append(f"{reason.thoughts} thoughts about {where}")
            parts += ["where P(yes) is {} to {}".format(*reason.within)] if reason.within else []
        return ", ".join(parts)

    def plain_calls(self, kind: str) -> int:
        """How many calls a question of this kind takes before any thought."""
        always = self.reason is not None and self.reason.within is None and self.reason.prompt_for(kind) is not None
        return 0 if always else self.samples or 1

    def thoughts(self, kind: str) -> int:
        """How many thoughts a question of this kind may take."""
        return self.reason.thoughts if self.reason is not None and self.reason.prompt_for(kind) else 0

    def most_calls(self, kind: str) -> int:
        """How many calls a question of this kind takes at most."""
        return self.plain_calls(kind) + self.thoughts(kind)

    def prompt_about(self, pair: Pair) -> Prompt | None:
        """The prompt about a query and a candidate of these kinds; None where there is none."""
        own = self.prompt if pair == "text -> image" else None
        return (self.documents or {}).get(pair, own)

    @property
    def by_predicates(self) -> bool:
        """Whether every predicate is a question of its own."""
        return "question" in self.prompt.variables

    def roles_by_call(self) -> dict[str, Role]:
        return dict.fromkeys(("verify", "joint", "reason", "inspect", "ground"), self.asks)

    @property
    def answer_tokens(self) -> int:
        """The longest plain answer. One token holds no stated probability."""
        return _STATED if self.mode == "stated" and self.max_tokens == 1 else self.max_tokens

    @property
    def whole_query(self) -> Prompt | None:
        """The prompt that asks about the whole query at once, where one does."""
        return self.whole if self.by_predicates else self.prompt

    @property
    def open_ended(self) -> bool:
        thinks_again = self.reason is not None and self.reason.within is not None
        return self.stop_below is not None or self.joint is not None or thinks_again

    def prompt_uses(self) -> Iterator[PromptUse]:
        answer = "probability" if self.mode == "stated" else "yes_no"
        yield PromptUse(self.prompt, frozenset({"question" if self.by_predicates else "query"}), answer, QUERY)
        if self.whole is not None:
            yield PromptUse(self.whole, frozenset({"query"}), answer)
        for prompt in (self.documents or {}).values():
            yield PromptUse(prompt, frozenset(), answer, DOCUMENT)
        if self.reason is not None and self.reason.prompt is not None:
            yield PromptUse(self.reason.prompt, frozenset({"question"}), "yes_no", QUERY)
        if self.reason is not None and self.reason.whole is not None:
            yield PromptUse(self.reason.whole, frozenset({"query"}), "yes_no")
        if self.joint is not None:
            yield PromptUse(self.joint.prompt, frozenset({"questions"}), "answers", QUERY)

    def about(self, query: str) -> Self:
        """The settings for this query, for prompts about predicates that also name it."""
        if not any("query" in use.prompt.variables for use in self.prompt_uses() if use.prompt is not self.whole):
            return self
        joint = self.joint and self.joint.model_copy(update={"prompt": self.joint.prompt.about(query)})
        reason = self.reason
        if reason is not None and reason.prompt is not None:
            reason = reason.model_copy(update={"prompt": reason.prompt.about(query)})
        return self.model_copy(update={"prompt": self.prompt.about(query), "joint": joint, "reason": reason})

    def asked_images(self, scope: Scope) -> int:
        """How many images are asked about, over all rounds."""
        rounds = zip(scope.images, scope.widened, strict=True)
        return sum(min(size, math.ceil((self.top_k or size) * factor)) for size, factor in rounds)

    def calls(self, scope: Scope) -> Iterator[Calls]:
        images = self.asked_images(scope)
        questions: dict[str, float] = {
            "predicate": scope.predicates if self.by_predicates and not scope.scored else 0,
            "query": int(self.whole_query is not None),
        }
        if (joint := self.joint) and (joint.use == "always" or scope.joint_pays):
            number, longest = images * (1 + joint.repairs), joint.max_tokens
            answer = min(_FRAME + _ANSWER * math.ceil(sum(questions.values())), longest)
            yield Calls("joint", joint.prompt, number, images=1, answer=answer, longest=longest)
        plain = sum(asked * self.plain_calls(kind) for kind, asked in questions.items())
        answer = self.answer_tokens
        if plain:
            shown = max([1, *(_pictures(prompt, scope.composed) for prompt in (self.documents or {}).values())])
            yield Calls("verify", self.prompt, images * plain, images=shown, answer=answer, longest=answer)
        for kind, asked in questions.items():
            if self.reason and (prompt := self.reason.prompt_for(kind)):
                longest, thoughts = self.reason.max_tokens, self.reason.thoughts
                answer = min(THOUGHT_TOKENS, longest)
                yield Calls("reason", prompt, images * asked * thoughts, images=1, answer=answer, longest=longest)

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if self.whole is not None and not self.by_predicates:
            raise ValueError(
                "`whole` needs a prompt that takes 'question', but this prompt takes 'query'; leave `whole` out"
            )
        if self.joint is not None and not self.by_predicates:
            raise ValueError(
                "`joint` asks all predicates of an image at once, but this prompt takes 'query'; use a prompt that "
                "takes 'question', or leave `joint` out"
            )
        if self.documents is not None and (self.by_predicates or self.reason is not None):
            raise ValueError(
                "`documents` are prompts about the whole query, without `reason`; leave them out, or use a `prompt` "
                "that takes 'query', without `reason`"
            )
        if self.mode == "stated" and (self.samples or self.reason):
            raise ValueError(
                "a prompt whose answer is 'probability' goes without `samples` and `reason`; leave them out, or use a "
                "prompt whose answer is 'yes_no'"
            )
        if self.reason is not None and self.reason.prompt is not None and not self.by_predicates:
            raise ValueError(
                "`reason.prompt` is for predicates, but this strategy asks the whole query; give `reason.whole`"
            )
        if self.reason is not None and self.reason.whole is not None and self.whole_query is None:
            raise ValueError("`reason.whole` needs `whole`, a prompt that asks the whole query; add it")
        if self.reason is not None and self.joint is not None:
            raise ValueError("`reason` and `joint` exclude each other; leave one of them out")
        return self


def _pictures(prompt: Prompt, composed: bool) -> int:
    """How many pictures a prompt about a query and a document shows; a query has one only where it is composed."""
    return sum(composed or place != "query" for place in prompt.shows or ())
