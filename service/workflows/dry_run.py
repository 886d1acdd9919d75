"""What a command would ask and what that would cost, without loading a model. A server measures one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import LMMError
from fieldscope.eval.prices import Price, load_price
from fieldscope.service.wiring.benchmarks import NAMES, open_workload
from fieldscope.service.wiring.bundled import bundled_measure
from fieldscope.service.wiring.calibrations import all_calibrations
from fieldscope.service.wiring.feedback import note
from fieldscope.service.wiring.models import is_lmm_of
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.evaluate import Contest, EvaluationPlan
from fieldscope.service.workflows.token_measure import TokenMeasure, measured_tokens, tokens_by_rule

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.calibration import Calibration
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import Query
    from fieldscope.eval.tuning.estimate import Estimate

_CALIBRATED = "the model's calibration, which has measured each stage"


@dataclass(frozen=True)
class Task:
    """Queries and, for each of them, the number of its candidates or, where none are `given`, of the images that can be
    found."""

    queries: tuple[Query, ...]
    candidates: tuple[int, ...]
    given: bool = True


@dataclass(frozen=True)
class Outlook:
    """One strategy's estimate, with its price where prices are known. `tokens_by` says what the tokens rest on."""

    strategy: str
    estimate: Estimate
    price: Price | None
    tokens_by: str

    @property
    def amount(self) -> float | None:
        """In the price's currency."""
        tokens = (self.estimate.prompt_tokens, self.estimate.completion_tokens)
        return self.price.of(*tokens) if self.price else None


def preview(
    plan: EvaluationPlan, contests: Sequence[Contest], price_file: Path | None = None, probe: bool = True
) -> list[Outlook]:
    """An estimate for each strategy of an evaluation. Raises what `task_of` and `outlooks` raise."""
    task = task_of(plan, contests[0].settings)
    return [
        outlook
        for contest in contests
        for outlook in outlooks(
            task, contest.strategies, contest.settings, price_file, plan.budget, plan.run_budget, probe
        )
    ]


def task_of(plan: EvaluationPlan, settings: Settings) -> Task:
    """The queries of a plan, with the number of candidates of each; images and embeddings are not opened.

    Raises `BenchmarkError`, and `ConfigError` for lists that name no query.
    """
    if plan.benchmark not in NAMES:
        workload = open_workload(plan.benchmark, plan.split, settings, search=False)
        queries = _selected(plan, workload.benchmark.queries)
        sets = (workload.benchmark.candidates(query.id) for query in queries)
        images = len(workload.found)
        return Task(queries, tuple(images if given is None else len(given) for given in sets), not images)
    from fieldscope.fieldnotes.collection import read_split
    from fieldscope.fieldnotes.rerank import TOP

    given = plan.benchmark == "fieldnotes-rerank"
    task = "" if given else plan.benchmark.removeprefix("fieldnotes").removeprefix("-")
    data = read_split(plan.split or "test", task)
    queries = _selected(plan, [query.query for query in data.queries])
    images = min(len(data.scenes), TOP) if given else len(data.scenes)
    return Task(queries, (images,) * len(queries), given)


def _selected(plan: EvaluationPlan, queries: Sequence[Query]) -> tuple[Query, ...]:
    return tuple(plan.selection.of(queries) if plan.selection else queries)[: plan.limit]


def outlooks(
    task: Task,
    strategies: Sequence[Strategy],
    settings: Settings,
    price_file: Path | None = None,
    budget: Budget | None = None,
    run_budget: Budget | None = None,
    probe: bool = True,
) -> list[Outlook]:
    """An estimate for each strategy. Where no calibration has measured the settings' model, its server is asked one
    question about one picture, unless `probe` is false. Raises `ConfigError` where the price file can't be used."""
    from fieldscope.agent.calibration import UNCALIBRATED
    from fieldscope.eval.tuning.estimate import estimate

    price = load_price(price_file, settings.model or "bundled") if price_file else None
    calibrations = [_calibration(strategy, settings) for strategy in strategies]
    fitted = list(zip(strategies, calibrations, strict=True))
    unmeasured = any(strategy.prompts and calibration is None for strategy, calibration in fitted)
    tokens = _token_measure(settings, probe and unmeasured)
    if unmeasured and settings.lmm_url:
        note(f"Tokens are estimated by {tokens.source}. `fieldscope calibrate` measures those of each stage.")
    return [
        Outlook(
            strategy.name,
            estimate(
                task.queries,
                task.candidates,
                strategy,
                calibration or UNCALIBRATED,
                measure=tokens.measure,
                given=task.given,
                budget=budget,
                run_budget=run_budget,
            ),
            price,
            _CALIBRATED if calibration else tokens.source,
        )
        for strategy, calibration in fitted
    ]


def _token_measure(settings: Settings, probe: bool) -> TokenMeasure:
    """What the tokens of calls that no calibration has measured rest on."""
    if settings.lmm_url is None and (counted := bundled_measure()):
        return TokenMeasure(counted, "the bundled model's tokenizer")
    if probe and settings.asks_server:
        try:
            return measured_tokens(settings)
        except LMMError as error:
            note(f"The server did not measure a picture ({error}).")
    return tokens_by_rule(settings)


def payload(outlooks: Sequence[Outlook]) -> dict[str, Any]:
    """The outlooks as one JSON-able object; `amount` is there where prices are known."""
    return {
        "dry_run": True,
        "runs": [
            {
                "strategy": outlook.strategy,
                "tokens_by": outlook.tokens_by,
                "bound": outlook.estimate.bound,
                "calls": outlook.estimate.calls,
                "prompt_tokens": outlook.estimate.prompt_tokens,
                "completion_tokens": outlook.estimate.completion_tokens,
                "stages": {stage: asdict(spending) for stage, spending in outlook.estimate.stages.items()},
                **({"amount": outlook.amount, "currency": outlook.price.currency} if outlook.price else {}),
            }
            for outlook in outlooks
        ],
    }


def _calibration(strategy: Strategy, settings: Settings) -> Calibration | None:
    """A calibration of this model with these prompts, after whatever first stage."""
    from fieldscope.agent.calibration import calibration_key

    key = calibration_key("", strategy, None)
    fitting = (
        fit
        for fit in all_calibrations()
        if fit.key
        and is_lmm_of(fit.key.model, settings)
        and (fit.key.reading == key.reading and key.prompts.items() <= fit.key.prompts.items())
    )
    return next(fitting, None) if key.prompts else None
