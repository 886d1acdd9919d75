"""What a strategy will ask, before anything is asked: calls and tokens, by stage."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fieldscope.agent.budget import Budget
from fieldscope.agent.calibration import UNCALIBRATED, Calibration
from fieldscope.agent.roles import Role
from fieldscope.agent.strategies.stage import Calls, Scope
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import Asked, RerankResult
from fieldscope.agent.usage import call_name
from fieldscope.core.errors import ContextLengthError
from fieldscope.core.types import Query
from fieldscope.eval.tuning.picture_tokens import TOKENS_PER_PICTURE
from fieldscope.retrieval.encoder import query_text

CHARACTERS_PER_TOKEN = 4

_SHOWN = 60  # characters of a query in a message

Measure = Callable[[str, str, int], float]
"""How many tokens a model reads: of a system message (perhaps empty), of a text, and of so many images before it."""


def by_picture(tokens: float) -> Measure:
    """A `Measure` for a model that reads so many tokens of a picture, and of a text one for four characters."""

    def measure(system: str, text: str, images: int) -> float:
        return tokens * images + (len(system) + len(text)) / CHARACTERS_PER_TOKEN

    return measure


rule_of_thumb = by_picture(TOKENS_PER_PICTURE)
"""A `Measure` for a model of which nothing is known."""


@dataclass(frozen=True)
class Spending:
    """Calls, and the tokens they read and write. Fractions are expectations."""

    calls: float = 0.0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0

    @property
    def tokens(self) -> float:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Spending) -> Spending:
        return Spending(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def __mul__(self, share: float) -> Spending:
        return Spending(self.calls * share, self.prompt_tokens * share, self.completion_tokens * share)


Stages = Mapping[str, Spending]


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to ask, by stage; where `bound`, at most that much. `pairs` of a text and an image are
    scored by a scoring model."""

    stages: Stages
    bound: bool
    pairs: int = 0

    @property
    def calls(self) -> int:
        return self._whole(sum(spending.calls for spending in self.stages.values()))

    @property
    def prompt_tokens(self) -> int:
        return self._whole(sum(spending.prompt_tokens for spending in self.stages.values()))

    @property
    def completion_tokens(self) -> int:
        return self._whole(sum(spending.completion_tokens for spending in self.stages.values()))

    def _whole(self, value: float) -> int:
        return math.ceil(round(value, 6)) if self.bound else round(value)


def estimate(
    queries: Sequence[Query],
    candidates: Sequence[int],
    strategy: Strategy,
    calibration: Calibration = UNCALIBRATED,
    *,
    measure: Measure = rule_of_thumb,
    measures: Mapping[str, Measure] | None = None,
    given: bool = True,
    budget: Budget | None = None,
    run_budget: Budget | None = None,
) -> Estimate:
    """What the strategy asks about these queries, whether or not the answers lie in a cache.

    `candidates` run along `queries`: how many are given or, where none are `given`, how many images can be found. A
    strategy that stops early, thinks again or compares where it is uncertain has an upper bound only, in which nothing
    is spared: every query has the most predicates, and every repair is needed. Budgets of calls and tokens are kept.
    What a call reads and writes is the calibration's where it has its stage; else the stage's own of the `measures`, or
    `measure`, says what it reads.
    """
    bound = strategy.open_ended
    total: dict[str, Spending] = {}
    pairs = 0.0
    for query, pool in zip(queries, candidates, strict=True):
        stages: dict[str, Spending] = {}
        price = _Price(query, calibration, measure, measures or {})
        scope = _scope(query, pool, strategy, price, given, bound)
        pairs += strategy.score.pairs(scope) if strategy.score else 0
        for stage, spending in _stages(scope, strategy, price):
            stages[stage] = stages.get(stage, Spending()) + spending
        for stage, spending in _within(stages, budget, bound).items():
            total[stage] = total.get(stage, Spending()) + spending
    return Estimate(_within(total, run_budget, bound), bound, math.ceil(round(pairs, 6)))


@dataclass(frozen=True)
class Need:
    """The largest request of a stage of a strategy about a query: `words`, at least one token each, and `images` to
    read, and at most `answer` tokens to write."""

    strategy: str
    stage: str
    role: Role
    query: str
    words: int
    images: int
    answer: int

    def require(self, context: int, picture: float = 1.0) -> None:
        """Raise `ContextLengthError` where it can't fit into so many tokens, with `picture` tokens an image."""
        read = self.words + math.ceil(self.images * picture)
        if read + self.answer > context:
            shown = f", {self.images} images among it," if self.images > 1 and picture > 1 else ""
            raise ContextLengthError(
                f"the model's context has {context:,} tokens, and the stage {self.stage!r} of {self.strategy} needs "
                f"more: at least {read:,} for the prompt{shown} about {_shortened(self.query)!r}, and up to "
                f"{self.answer:,} for its answer. Serve the model with a larger context (vLLM: --max-model-len), "
                "or lower the stage's max_tokens."
            )


def largest_requests(strategies: Iterable[Strategy], queries: Sequence[Query]) -> Iterator[Need]:
    """The largest request of each stage about each query."""
    for strategy in strategies:
        roles = strategy.roles_by_call
        for query in queries:
            price = _Fewest(query)
            for _ in _stages(_scope(query, 1, strategy, price, given=True, bound=True), strategy, price):
                pass
            for stage, (words, images, answer) in price.largest.items():
                yield Need(strategy.name, stage, roles[stage], query.text, words, images, answer)


def require_context(strategies: Iterable[Strategy], queries: Sequence[Query], contexts: Mapping[Role, int]) -> None:
    """Raise `ContextLengthError` where a stage's request can't fit into so many tokens, prompt and answer together.

    A prompt is taken to have one token a word and one an image, which is fewer than any model reads, so what is refused
    here would be refused by the server. `contexts` are those of the roles' models, as far as they are known.
    """
    for need in largest_requests(strategies, queries) if contexts else ():
        if (context := contexts.get(need.role)) is not None:
            need.require(context)


def profile(results: Iterable[RerankResult]) -> dict[str, float]:
    """Mean tokens a call, by stage: `verify:prompt`, `verify:completion`, ... Calls without a response are left out."""
    spent: dict[str, list[Asked]] = defaultdict(list)
    for result in results:
        for question in result.asked:
            if question.prompt_tokens or question.completion_tokens:
                spent[call_name(question)].append(question)
    means: dict[str, float] = {}
    for stage, questions in sorted(spent.items()):
        means[f"{stage}:prompt"] = sum(question.prompt_tokens for question in questions) / len(questions)
        means[f"{stage}:completion"] = sum(question.completion_tokens for question in questions) / len(questions)
    return means


def predicates_per_word(results: Iterable[RerankResult]) -> float:
    """Predicates for each word of the queries that were decomposed; the default where none was."""
    predicates = words = 0
    for result in results:
        made = sum(predicate.kind != "query" for predicate in result.predicates)
        predicates += made
        words += len(result.query_text.split()) if made else 0
    return predicates / words if words else UNCALIBRATED.predicates_per_word


def _scope(query: Query, pool: int, strategy: Strategy, price: _Price, given: bool, bound: bool) -> Scope:
    """What is known of a query before its stages run."""
    refine = strategy.refine
    widened = tuple(refine.widen**n for n in range(refine.rounds + 1)) if refine else (1.0,)
    predicates = 1.0
    if strategy.decompose:
        most = float(strategy.decompose.max_predicates)
        predicates = most if bound else min(max(price.predicates, 1.0), most)
    return Scope(
        composed=query.reference_image is not None,
        images=tuple(pool if given else min(pool, math.ceil(strategy.retrieve.top_k * factor)) for factor in widened),
        widened=widened,
        predicates=predicates,
        comparing=price.comparing,
        bound=bound,
        verify=strategy.verify,
        joint_pays=price.joint_pays,
        scored=strategy.score is not None and strategy.score.predicates,
        turns=len(query.dialogue),
    )


def _stages(scope: Scope, strategy: Strategy, price: _Price) -> Iterator[tuple[str, Spending]]:
    """One query's stages in the order of the flow."""
    for stage in strategy.stages.values():
        for calls in stage.calls(scope):
            yield calls.stage, price.of(calls) * calls.number


class _Price:
    """What one call of a stage takes for a query: as it was measured, else by rule of thumb."""

    def __init__(
        self, query: Query, calibration: Calibration, measure: Measure, measures: Mapping[str, Measure]
    ) -> None:
        self._text = query_text(query)
        self._tokens = calibration.tokens
        self._measure, self._measures = measure, measures
        self.comparing = calibration.comparison_weight > 0
        self.joint_pays = calibration.joint_pays
        self.predicates = calibration.predicates_per_word * len(self._text.split())

    def of(self, calls: Calls) -> Spending:
        text = calls.prompt.render(**dict.fromkeys(calls.prompt.variables, self._text))
        stage = calls.like or calls.stage
        measure = self._measures.get(stage, self._measure)
        before = calls.before + "".join(example.text + example.answer for example in calls.prompt.examples or ())
        read = measure(calls.prompt.system, before + text, _pictures(calls))
        read, written = self._tokens.get(f"{stage}:prompt", read), self._tokens.get(f"{stage}:completion", calls.answer)
        return Spending(1, read, written)


def _pictures(calls: Calls) -> int:
    """How many pictures one of these calls shows, those of its prompt's examples among them."""
    return calls.images + sum(len(example.images) for example in calls.prompt.examples or ())


def _fewest(system: str, text: str, images: int) -> float:
    """A `Measure`: one token a word and one an image, which is fewer than any model reads."""
    return len(f"{system} {text}".split()) + images


class _Fewest(_Price):
    """Remembers of each stage the fewest words and images that its largest prompt can have, and the most that its
    answer can."""

    def __init__(self, query: Query) -> None:
        super().__init__(query, UNCALIBRATED, _fewest, {})
        self.comparing = self.joint_pays = True
        self.largest: dict[str, tuple[int, int, int]] = {}

    def of(self, calls: Calls) -> Spending:
        spending = super().of(calls)
        stage = calls.like or calls.stage
        words, images, _ = self.largest.get(stage, (0, 0, 0))
        shown = _pictures(calls)
        read = int(spending.prompt_tokens) - shown
        self.largest[stage] = max(words, read), max(images, shown), calls.longest
        return spending


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _within(stages: Stages, budget: Budget | None, bound: bool) -> Stages:
    """As much of the stages as a budget pays for: in the order of the flow or, for a bound, the dearest calls first."""
    if budget is None:
        return stages
    calls, tokens = (math.inf if most is None else most for most in (budget.max_calls, budget.max_tokens))
    order = sorted(stages, key=lambda stage: -stages[stage].tokens / (stages[stage].calls or 1)) if bound else stages
    paid: dict[str, Spending] = {}
    for stage in order:
        whole = stages[stage]
        shares = [1.0, calls / whole.calls if whole.calls else 1.0, tokens / whole.tokens if whole.tokens else 1.0]
        paid[stage] = whole * min(shares)
        calls -= paid[stage].calls
        tokens -= paid[stage].tokens
    return {stage: paid[stage] for stage in stages}
