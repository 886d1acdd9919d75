"""The settings of each stage: what it asks, with which prompts, and how many calls that takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from fieldscope.agent.lmm.choice import LETTERS
from fieldscope.agent.roles import Role
from fieldscope.core.types import Prior
from fieldscope.prompts.prompt import Prompt
from fieldscope.prompts.prompt_set import INSTRUCT, PromptSet, load_prompt, open_prompt_set

_FRAME, _ANSWER = 8, 4  # tokens of a joint answer: what stands around the answers, and each of them

_KEYS = frozenset(
    {"api_key", "apikey", "authorization", "x_api_key", "bearer", "token", "access_token", "auth_token", "api_token",
     "password", "secret"}
)  # fmt: skip


@dataclass(frozen=True)
class PromptSource:
    """Where the prompts come from that a strategy file names: paths count from `folder`, names are looked up in
    `prompts`."""

    folder: Path
    prompts: PromptSet


def _load(prompt: Any, info: ValidationInfo) -> Any:
    """A prompt's name or path, as a strategy file gives it."""
    if not isinstance(prompt, str):
        return prompt
    source = info.context or PromptSource(Path(), open_prompt_set(INSTRUCT))
    return load_prompt(source.folder / prompt if prompt.endswith(".md") else prompt, source.prompts)


def _without_keys(extra: dict[str, Any]) -> dict[str, Any]:
    """Whatever a strategy holds is written to every run and to the response cache."""
    for name, value in extra.items():
        if name.lower().replace("-", "_") in _KEYS:
            raise ValueError(f"{name!r} would be written to every run; give the server's key as FIELDSCOPE_API_KEY")
        if isinstance(value, dict):
            _without_keys(value)
    return extra


Mode = Literal["logprobs", "samples", "stated"]
"""How a probability is read: from log-probabilities, as the share of plain answers, or as the model states it."""

_STATED = 32  # tokens that a stated probability fits into
_THOUGHT = 120  # tokens that a thought is expected to have

Share = Annotated[float, Field(ge=0.0, le=1.0)]
PromptRef = Annotated[Prompt, BeforeValidator(_load)]
_QUERY = frozenset({"query"})
ExtraBody = Annotated[dict[str, Any], AfterValidator(_without_keys)]


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class PromptUse:
    """A prompt with the variables that it gets, those that it may have beside them, and the kind of answer that is
    read."""

    prompt: Prompt
    variables: frozenset[str]
    answer: str
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Scope:
    """What is known of a query before its stages run.

    `images` are the candidates of each round, `widened` the factors by which the rounds widen the window, `predicates`
    the questions that are expected; `composed` says that there is a reference image, `comparing` that comparisons pay
    for the model. Where `bound`, everything that can be needed is: every repair, and the most predicates.
    `verify` are the settings of that stage, with which other stages ask, too; `joint_pays` says that asking all
    questions about an image together pays for the model.
    """

    composed: bool
    images: tuple[int, ...]
    widened: tuple[float, ...]
    predicates: float
    comparing: bool
    bound: bool
    verify: Verify | None = None
    joint_pays: bool = False

    @property
    def rounds(self) -> int:
        """How often the query may be thought out, at least 1."""
        return len(self.images)

    def attempts(self, settings: Structured) -> int:
        """How often a structured answer is asked for."""
        return 1 + settings.repairs if self.bound else 1


@dataclass(frozen=True)
class Calls:
    """Calls of one kind that a stage is expected to make for a query.

    `stage` is the name under which the trace counts them, and `like` that under which their tokens are measured.
    `images` are shown in each call, after the text `before`. An answer has about `answer` tokens, and at most
    `longest`.
    """

    stage: str
    prompt: Prompt
    number: float
    images: int
    answer: int
    longest: int
    before: str = ""
    like: str = ""


class Stage(Settings):
    """A stage of a strategy. `needs` names the stage without which it can't run."""

    needs: ClassVar[str | None] = None

    @property
    def open_ended(self) -> bool:
        """Whether the number of calls depends on the answers, so that it can only be bounded."""
        return False

    def prompt_uses(self) -> Iterator[PromptUse]:
        """Every prompt that the stage uses."""
        yield from ()

    def calls(self, scope: Scope) -> Iterator[Calls]:
        """The calls that the stage is expected to make for a query."""
        yield from ()


class AskingStage(Stage):
    """A stage that asks an LMM: the one that has its `role`, by default the role that `default_role` names."""

    default_role: ClassVar[Role]

    role: Role | None = None

    @property
    def asks(self) -> Role:
        """The role whose LMM the stage asks."""
        return self.role or self.default_role

    def roles_by_call(self) -> dict[str, Role]:
        """The role of each kind of call that the stage makes, by the name under which the trace counts it."""
        return {type(self).__name__.lower(): self.asks}


class Retrieve(Settings):
    """First stage, where no candidates are given: how many images to take, how much of a similarity is that to the
    image's caption, where the collection has captions, and what the prior is: the similarity to query and descriptions
    by which an image was found (`fused`), or that to the `query` alone, which is a witness of its own: it does not
    share what the descriptions are wrong about with the predicates."""

    top_k: int = Field(default=100, ge=1)
    caption_weight: float = Field(default=0.0, ge=0.0, le=1.0)
    prior: Prior = "fused"


class Structured(Settings):
    """A question with a structured answer; where it can't be read, `repairs` more attempts that show the error."""

    prompt: PromptRef
    max_tokens: int = Field(default=512, ge=1)
    repairs: int = Field(default=1, ge=0, le=3)
    extra_body: ExtraBody = Field(default_factory=dict)


class Synthesize(Structured, AskingStage):
    """Think out what a match must show. `again` is asked in a later round, `caption` for the reference
    image of a composed request, of the captioner."""

    default_role: ClassVar[Role] = "reasoner"

    again: PromptRef
    caption: PromptRef

    def roles_by_call(self) -> dict[str, Role]:
        return {"caption": "captioner", "synthesize": self.asks, "refine": self.asks}

    def prompt_uses(self) -> Iterator[PromptUse]:
        yield PromptUse(self.prompt, frozenset({"request"}), "synthesis")
        yield PromptUse(self.again, frozenset({"request", "earlier", "wanting"}), "synthesis")
        yield PromptUse(self.caption, frozenset(), "text", _QUERY)

    def about(self, query: str) -> Self:
        """The settings for this query, for a caption's prompt that also names it."""
        return self.model_copy(update={"caption": self.caption.about(query)})

    def calls(self, scope: Scope) -> Iterator[Calls]:
        attempts, longest = scope.attempts(self), self.max_tokens
        if scope.composed:
            yield Calls("caption", self.caption, 1, images=1, answer=40, longest=longest)
        yield Calls("synthesize", self.prompt, attempts, images=0, answer=250, longest=longest)
        if scope.rounds > 1:
            yield Calls("refine", self.again, attempts * (scope.rounds - 1), images=0, answer=250, longest=longest)


class Decompose(Structured, AskingStage):
    """Turn the instructions into predicates, at most `max_predicates`."""

    needs: ClassVar[str | None] = "synthesize"
    default_role: ClassVar[Role] = "reasoner"

    max_predicates: int = Field(default=12, ge=1)

    def prompt_uses(self) -> Iterator[PromptUse]:
        yield PromptUse(self.prompt, frozenset({"instructions"}), "predicates", _QUERY)

    def about(self, query: str) -> Self:
        """The settings for this query, for a prompt that also names it."""
        return self.model_copy(update={"prompt": self.prompt.about(query)})

    def calls(self, scope: Scope) -> Iterator[Calls]:
        number = scope.attempts(self) * scope.rounds
        yield Calls("decompose", self.prompt, number, images=0, answer=200, longest=self.max_tokens)


class Check(AskingStage):
    """Ask the predicates of a composed request about its reference image first: leave out what is untrue of it, and
    think again, within the rounds of `refine`, where it shows everything already. It is asked as `verify` asks."""

    needs: ClassVar[str | None] = "decompose"
    default_role: ClassVar[Role] = "verifier"

    def calls(self, scope: Scope) -> Iterator[Calls]:
        if (verify := scope.verify) and scope.composed:
            number, longest = scope.predicates * scope.rounds, verify.answer_tokens
            calls = number * verify.plain_calls("predicate")
            yield Calls("check", verify.prompt, calls, images=1, answer=1, longest=longest, like="verify")
            if (reason := verify.reason) and reason.prompt:
                number, longest = number * reason.thoughts, reason.max_tokens
                answer = min(_THOUGHT, longest)
                yield Calls("check", reason.prompt, number, images=1, answer=answer, longest=longest, like="reason")


class Joint(Structured):
    """All questions about an image in one structured answer, with P(yes) of each read at its own place in it.

    On a share `sample` of the images the questions are asked one by one too, and together in a shuffled order; where
    the probabilities of the two ways agree to less than `agreement` (1 less their mean difference), all others are
    asked one by one as well. With `look_again` a question that was answered together is asked alone, too, where its
    answer is expected to change P(match) by at least that. `use` says whether questions are `always` asked together, or
    only where a calibration says that it pays. `top_logprobs` are the alternatives for each of the answer's tokens.
    """

    use: Literal["always", "calibrated"] = "always"

    sample: float = Field(default=0.05, ge=0.0, le=1.0)
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

    `top_k` is the window: only that many, best prior first, are asked about (None: all). With `stop_below` questions
    are asked in waves of `wave`, those first that are expected to change an image's P(match) most, until no question
    is expected to change it by that much; without, all are asked. `max_tokens`, `top_logprobs`, `answer_after` and
    `extra_body` go into the request; see `LMMRequest`. `reason` lets the model think first.
    """

    default_role: ClassVar[Role] = "verifier"

    prompt: PromptRef
    whole: PromptRef | None = None
    top_k: int | None = Field(default=None, ge=1)
    stop_below: float | None = Field(default=None, gt=0.0, lt=1.0)
    wave: int = Field(default=64, ge=1)
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

    @property
    def by_predicates(self) -> bool:
        """Whether every predicate is a question of its own."""
        return "question" in self.prompt.variables

    def roles_by_call(self) -> dict[str, Role]:
        return {"verify": self.asks, "joint": self.asks, "reason": self.asks}

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
        yield PromptUse(self.prompt, frozenset({"question" if self.by_predicates else "query"}), answer, _QUERY)
        if self.whole is not None:
            yield PromptUse(self.whole, frozenset({"query"}), answer)
        if self.reason is not None and self.reason.prompt is not None:
            yield PromptUse(self.reason.prompt, frozenset({"question"}), "yes_no", _QUERY)
        if self.reason is not None and self.reason.whole is not None:
            yield PromptUse(self.reason.whole, frozenset({"query"}), "yes_no")
        if self.joint is not None:
            yield PromptUse(self.joint.prompt, frozenset({"questions"}), "answers", _QUERY)

    def about(self, query: str) -> Self:
        """The settings for this query, for prompts about predicates that also name it."""
        if not any("query" in use.prompt.variables for use in self.prompt_uses() if use.prompt is not self.whole):
            return self
        joint = self.joint and self.joint.model_copy(update={"prompt": self.joint.prompt.about(query)})
        reason = self.reason
        if reason is not None and reason.prompt is not None:
            reason = reason.model_copy(update={"prompt": reason.prompt.about(query)})
        return self.model_copy(update={"prompt": self.prompt.about(query), "joint": joint, "reason": reason})

    def calls(self, scope: Scope) -> Iterator[Calls]:
        rounds = zip(scope.images, scope.widened, strict=True)
        images = sum(min(size, math.ceil((self.top_k or size) * factor)) for size, factor in rounds)
        questions: dict[str, float] = {
            "predicate": scope.predicates if self.by_predicates else 0,
            "query": int(self.whole_query is not None),
        }
        if (joint := self.joint) and (joint.use == "always" or scope.joint_pays):
            number, longest = images * (1 + joint.repairs), joint.max_tokens
            answer = min(_FRAME + _ANSWER * math.ceil(sum(questions.values())), longest)
            yield Calls("joint", joint.prompt, number, images=1, answer=answer, longest=longest)
        plain = sum(asked * self.plain_calls(kind) for kind, asked in questions.items())
        answer = self.answer_tokens
        if plain:
            yield Calls("verify", self.prompt, images * plain, images=1, answer=answer, longest=answer)
        for kind, asked in questions.items():
            if self.reason and (prompt := self.reason.prompt_for(kind)):
                longest, thoughts = self.reason.max_tokens, self.reason.thoughts
                answer = min(_THOUGHT, longest)
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


class Refine(Stage):
    """Look at what was found and, in at most `rounds` rounds, think again: where fewer than `fewest` candidates are
    confirmed, where verdicts contradict each other, or where a predicate separates nothing. Each round widens the
    window, or the search, by the factor `widen`."""

    needs: ClassVar[str | None] = "decompose"

    rounds: int = Field(default=1, ge=1, le=5)
    fewest: int = Field(default=1, ge=1)
    widen: float = Field(default=1.5, ge=1.0)

    @property
    def open_ended(self) -> bool:
        return True


class Compare(AskingStage):
    """Candidate against candidate, among the best `top_k`.

    - `pair`: two at a time, in both orders, where the order is most uncertain and matters most;
    - `set`: the best of `set_size`, shown forwards and backwards;
    - `walk`: ImageScope's final evaluation: down the ranking, the whole query about one image at a time with the
      reference image beside it, until the first yes, which goes to the top.

    `reference` is the prompt where the query has a reference image, which is shown first. At most `max_calls` calls;
    pairs whose exchange is expected to change nDCG by less than `stop_below` are left alone. With `top_logprobs` 0 the
    choice is read from the answer's text, for servers without log-probabilities; `max_tokens` are for that text, or
    for the thinking of a model before its answer (None: one token).
    """

    default_role: ClassVar[Role] = "judge"

    mode: Literal["pair", "set", "walk"]
    prompt: PromptRef
    reference: PromptRef
    top_k: int = Field(default=20, ge=2)
    set_size: int = Field(default=4, ge=3, le=4)
    max_calls: int = Field(default=40, ge=1)
    stop_below: float = Field(default=0.0, ge=0.0)
    top_logprobs: int = Field(default=20, ge=0, le=20)
    max_tokens: int | None = Field(default=None, ge=1)
    extra_body: ExtraBody = Field(default_factory=dict)

    @property
    def answer_tokens(self) -> int:
        """The longest answer."""
        return self.max_tokens or 1

    @property
    def reading(self) -> Literal["logprobs", "samples"]:
        """How the choice is read."""
        return "logprobs" if self.top_logprobs else "samples"

    @property
    def open_ended(self) -> bool:
        return self.mode != "set" or self.stop_below > 0

    def prompt_uses(self) -> Iterator[PromptUse]:
        answer = "yes_no" if self.mode == "walk" else "letter"
        yield PromptUse(self.prompt, frozenset({"query"}), answer)
        yield PromptUse(self.reference, frozenset({"query"}), answer)

    def calls(self, scope: Scope) -> Iterator[Calls]:
        shown = {"pair": 2, "set": self.set_size, "walk": 1}[self.mode]
        named = [] if self.mode == "walk" else [*["reference"] * scope.composed, *LETTERS[:shown]]
        prompt = self.reference if scope.composed else self.prompt
        number = self.most_calls(scope.images[-1]) if scope.comparing or self.mode == "walk" else 0
        names = "".join(f"{name}:\n" for name in named)
        yield Calls(
            "compare", prompt, number, images=shown + scope.composed, answer=1, longest=self.answer_tokens,
            before=names,
        )  # fmt: skip

    def most_calls(self, candidates: int) -> int:
        """The calls that are made about so many candidates where no comparison is spared: each group in two orders."""
        head = min(self.top_k, candidates)
        if self.mode == "walk":
            return min(head, self.max_calls)
        size = 2 if self.mode == "pair" else min(self.set_size, head)
        return 2 * min(self.max_calls // 2, math.comb(head, size)) if head > 1 else 0


class Explain(AskingStage):
    """Ask for the reason, after the verdict, about the best `top_k`."""

    default_role: ClassVar[Role] = "judge"

    prompt: PromptRef
    top_k: int = Field(default=3, ge=1)
    max_tokens: int = Field(default=64, ge=1)
    extra_body: ExtraBody = Field(default_factory=dict)

    def prompt_uses(self) -> Iterator[PromptUse]:
        yield PromptUse(self.prompt, frozenset({"query"}), "text")

    def calls(self, scope: Scope) -> Iterator[Calls]:
        number = min(self.top_k, scope.images[-1])
        yield Calls("explain", self.prompt, number, images=1, answer=40, longest=self.max_tokens)


class Fusion(Settings):
    """How a score is made.

    - `prior`: the prior, as it is.
    - `p_yes`: P(yes).
    - `log_odds`: log-odds of P(yes), plus `prior_weight` times the prior, standardised over the query's candidates.
    - `agreement`: how many predicates have the expected answer (ImageScope); the prior breaks ties.
    - `posterior`: the log-odds that every predicate holds, plus the weighted prior, plus comparisons; weights and
      temperatures are the calibration's, `prior_weight` stands in where there is none.
    """

    method: Literal["prior", "p_yes", "log_odds", "agreement", "posterior"]
    prior_weight: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _weight_belongs_to_odds(self) -> Self:
        if (self.prior_weight is not None) != (self.method in ("log_odds", "posterior")):
            raise ValueError(
                "prior_weight goes with the methods log_odds and posterior, and with no other; set or remove it"
            )
        return self
