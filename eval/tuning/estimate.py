"""What a strategy will ask, before anything is asked: calls and tokens, by stage."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fieldscope.agent.budget import Budget
from fieldscope.agent.calibration import UNCALIBRATED, Calibration
from fieldscope.agent.lmm.choice import LETTERS
from fieldscope.agent.strategies.strategy import Compare, Strategy
from fieldscope.agent.types import Asked, Call, Comparison, Reason, RerankResult
from fieldscope.core.errors import ContextLengthError
from fieldscope.core.types import Query
from fieldscope.prompts.prompt import Prompt
from fieldscope.retrieval.encoder import query_text

TOKENS_PER_IMAGE = 600
CHARACTERS_PER_TOKEN = 4
ANSWER_TOKENS = {"caption": 40, "synthesize": 250, "refine": 250, "decompose": 200, "joint": 200, "explain": 40}
"""Assumed of a model without measurements; other answers are as long as they may be."""

_SHOWN = 60  # characters of a query in a message

Measure = Callable[[str, str, int], float]
"""How many tokens a model reads: of a system message (perhaps empty), of a text, and of so many images before it."""


def rule_of_thumb(system: str, text: str, images: int) -> float:
    """A `Measure` for a model that was never measured."""
    return TOKENS_PER_IMAGE * images + (len(system) + len(text)) / CHARACTERS_PER_TOKEN


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
    """What a run is expected to ask, by stage; where `bound`, at most that much."""

    stages: Stages
    bound: bool

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
    given: bool = True,
    budget: Budget | None = None,
    run_budget: Budget | None = None,
) -> Estimate:
    """What the strategy asks about these queries, whether or not the answers lie in a cache.

    `candidates` run along `queries`: how many are given or, where none are `given`, how many images can be found. A
    strategy that stops early, thinks again or compares where it is uncertain has an upper bound only, in which nothing
    is spared: every query has the most predicates, and every repair is needed. Budgets of calls and tokens are kept.
    What a call reads and writes is the calibration's where it has its stage; else `measure` says what it reads.
    """
    bound = is_bound(strategy)
    total: dict[str, Spending] = {}
    for query, pool in zip(queries, candidates, strict=True):
        stages: dict[str, Spending] = {}
        price = _Price(query, calibration, measure)
        for stage, spending in _stages(query, pool, strategy, price, given, bound):
            stages[stage] = stages.get(stage, Spending()) + spending
        for stage, spending in _within(stages, budget, bound).items():
            total[stage] = total.get(stage, Spending()) + spending
    return Estimate(_within(total, run_budget, bound), bound)


def require_context(strategies: Iterable[Strategy], queries: Sequence[Query], context: int | None) -> None:
    """Raise `ContextLengthError` where a stage's request can't fit into so many tokens, prompt and answer together.

    A prompt is taken to have one token a word and one an image, which is fewer than any model reads, so what is refused
    here would be refused by the server. Where `context` is None nothing is known.
    """
    if context is None:
        return
    for strategy in strategies:
        for query in queries:
            price = _Fewest(query)
            for _ in _stages(query, 1, strategy, price, given=True, bound=True):
                pass
            for stage, read in price.read.items():
                written = _longest_answer(stage, strategy)
                if read + written > context:
                    raise ContextLengthError(
                        f"the model's context has {context:,} tokens, and the stage {stage!r} of {strategy.name} needs "
                        f"more: at least {read:,} for the prompt about {_shortened(query.text)!r}, and up to "
                        f"{written:,} for its answer. Serve the model with a larger context (vLLM: --max-model-len), "
                        "or lower the stage's max_tokens."
                    )


def is_bound(strategy: Strategy) -> bool:
    """Whether what the strategy asks depends on the answers, so that it can be bounded only."""
    verify, compare = strategy.verify, strategy.compare
    return (
        strategy.refine is not None
        or (verify is not None and (verify.stop_below is not None or verify.joint is not None))
        or (compare is not None and (compare.mode != "set" or compare.stop_below > 0))
    )


def profile(results: Iterable[RerankResult]) -> dict[str, float]:
    """Mean tokens a call, by stage: `verify:prompt`, `verify:completion`, ... Calls without a response are left out."""
    spent: dict[str, list[Asked]] = defaultdict(list)
    for result in results:
        for question in result.asked:
            if question.prompt_tokens or question.completion_tokens:
                spent[_stage(question)].append(question)
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


def _stage(question: Asked) -> str:
    if isinstance(question, Call):
        return question.stage
    return "compare" if isinstance(question, Comparison) else "explain" if isinstance(question, Reason) else "verify"


def _stages(
    query: Query, pool: int, strategy: Strategy, price: _Price, given: bool, bound: bool
) -> Iterator[tuple[str, Spending]]:
    """One query's stages in the order of the flow."""
    rounds = strategy.refine.rounds if strategy.refine else 0
    widened = [strategy.refine.widen**n if strategy.refine else 1.0 for n in range(rounds + 1)]
    found = [pool if given else min(pool, math.ceil(strategy.retrieve.top_k * factor)) for factor in widened]
    if synthesize := strategy.synthesize:
        attempts = 1 + synthesize.repairs if bound else 1
        if query.reference_image is not None:
            yield "caption", price.of("caption", synthesize.caption, images=1)
        yield "synthesize", price.of("synthesize", synthesize.prompt) * attempts
        if rounds:
            yield "refine", price.of("refine", synthesize.again) * attempts * rounds
    predicates = 1.0
    if decompose := strategy.decompose:
        attempts = 1 + decompose.repairs if bound else 1
        yield "decompose", price.of("decompose", decompose.prompt) * attempts * (1 + rounds)
        most = float(decompose.max_predicates)
        predicates = most if bound else min(max(price.predicates, 1.0), most)
    if strategy.check and strategy.verify and query.reference_image is not None:
        yield "check", price.of("verify", strategy.verify.prompt, images=1, answer=1) * predicates * (1 + rounds)
    if verify := strategy.verify:
        images = sum(
            min(size, math.ceil((verify.top_k or size) * factor)) for size, factor in zip(found, widened, strict=True)
        )
        if joint := verify.joint:
            yield "joint", price.of("joint", joint.prompt, images=1) * images * (1 + joint.repairs)
        one = price.of("verify", verify.prompt, images=1, answer=verify.max_tokens)
        yield "verify", one * images * (predicates + (verify.whole is not None))
    if compare := strategy.compare:
        composed = query.reference_image is not None
        shown = {"pair": 2, "set": compare.set_size, "walk": 1}[compare.mode]
        named = [] if compare.mode == "walk" else [*["reference"] * composed, *LETTERS[:shown]]
        names = "".join(f"{name}:\n" for name in named)
        prompt = compare.reference if composed else compare.prompt
        one = price.of("compare", prompt, images=shown + composed, answer=1, before=names)
        yield "compare", one * (comparisons(compare, found[-1]) if price.comparing or compare.mode == "walk" else 0)
    if explain := strategy.explain:
        yield "explain", price.of("explain", explain.prompt, images=1) * min(explain.top_k, found[-1])


def comparisons(compare: Compare, candidates: int) -> int:
    """The calls that a stage of comparisons makes where it never stops early: each group in two orders."""
    head = min(compare.top_k, candidates)
    if compare.mode == "walk":
        return min(head, compare.max_calls)
    size = 2 if compare.mode == "pair" else min(compare.set_size, head)
    return 2 * min(compare.max_calls // 2, math.comb(head, size)) if head > 1 else 0


class _Price:
    """What one call of a stage takes for a query: as it was measured, else by rule of thumb."""

    def __init__(self, query: Query, calibration: Calibration, measure: Measure) -> None:
        self._text = query_text(query)
        self._tokens = calibration.tokens
        self._measure = measure
        self.comparing = calibration.comparison_weight > 0
        self.predicates = calibration.predicates_per_word * len(self._text.split())

    def of(self, stage: str, prompt: Prompt, images: int = 0, answer: int | None = None, before: str = "") -> Spending:
        text = prompt.render(**dict.fromkeys(prompt.variables, self._text))
        read = self._measure(prompt.system, before + text, images)
        written = ANSWER_TOKENS[stage] if answer is None else answer
        return Spending(1, self._tokens.get(f"{stage}:prompt", read), self._tokens.get(f"{stage}:completion", written))


class _Fewest(_Price):
    """Remembers the fewest tokens that each stage's prompt can have."""

    def __init__(self, query: Query) -> None:
        super().__init__(query, UNCALIBRATED, lambda system, text, images: len(f"{system} {text}".split()) + images)
        self.comparing = True
        self.read: dict[str, int] = {}

    def of(self, stage: str, prompt: Prompt, images: int = 0, answer: int | None = None, before: str = "") -> Spending:
        spending = super().of(stage, prompt, images, answer, before)
        self.read[stage] = max(self.read.get(stage, 0), int(spending.prompt_tokens))
        return spending


def _longest_answer(stage: str, strategy: Strategy) -> int:
    settings = {
        "caption": strategy.synthesize,
        "synthesize": strategy.synthesize,
        "refine": strategy.synthesize,
        "decompose": strategy.decompose,
        "joint": strategy.verify and strategy.verify.joint,
        "verify": strategy.verify,
        "explain": strategy.explain,
    }.get(stage)
    return settings.max_tokens if settings else 1


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
