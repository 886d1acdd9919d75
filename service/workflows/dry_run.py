"""What a command would ask and what it would cost, before any model is loaded or asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.eval.prices import Price, load_price
from fieldscope.service.wiring.benchmarks import NAMES, open_workload
from fieldscope.service.wiring.bundled import bundled_measure
from fieldscope.service.wiring.calibrations import all_calibrations
from fieldscope.service.wiring.feedback import note
from fieldscope.service.wiring.models import is_lmm_of
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.calibration import Calibration
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import Query
    from fieldscope.eval.queries import Selection
    from fieldscope.eval.tuning.estimate import Estimate


@dataclass(frozen=True)
class Task:
    """Queries, and along them how many candidates each is given or, where none are `given`, how many images can be
    found."""

    queries: tuple[Query, ...]
    candidates: tuple[int, ...]
    given: bool = True


@dataclass(frozen=True)
class Outlook:
    """One strategy's estimate, with its price where prices are known."""

    strategy: str
    estimate: Estimate
    price: Price | None

    @property
    def amount(self) -> float | None:
        """In the price's currency."""
        told = self.estimate
        return self.price.of(told.prompt_tokens, told.completion_tokens) if self.price else None


def task_of(name: str, split: str | None, chosen: Selection, limit: int | None, settings: Settings) -> Task:
    """The first `limit` of the chosen queries of a benchmark; pictures and embeddings are not opened.

    Raises `BenchmarkError`, and `ConfigError` for lists that name no query.
    """
    if name not in NAMES:
        workload = open_workload(name, split, settings, search=False)
        queries = chosen.of(workload.benchmark.queries)[:limit]
        sets = (workload.benchmark.candidates(query.id) for query in queries)
        images = len(workload.found)
        return Task(queries, tuple(images if given is None else len(given) for given in sets), not images)
    from fieldscope.fieldnotes.collection import read_split
    from fieldscope.fieldnotes.rerank import TOP

    given = name == "fieldnotes-rerank"
    task = "" if given else name.removeprefix("fieldnotes").removeprefix("-")
    data = read_split(split or "test", task)
    queries = chosen.of([query.query for query in data.queries])[:limit]
    images = min(len(data.scenes), TOP) if given else len(data.scenes)
    return Task(queries, (images,) * len(queries), given)


def outlooks(
    task: Task,
    strategies: Sequence[Strategy],
    settings: Settings,
    price_file: Path | None = None,
    budget: Budget | None = None,
    run_budget: Budget | None = None,
) -> list[Outlook]:
    """An estimate for each strategy. Raises `ConfigError` where the price file can't be used."""
    from fieldscope.agent.calibration import UNCALIBRATED
    from fieldscope.eval.tuning.estimate import estimate, rule_of_thumb

    price = load_price(price_file, settings.model or "bundled") if price_file else None
    measure = None if settings.lmm_url else bundled_measure()
    found = [(strategy, _calibration(strategy, settings)) for strategy in strategies]
    if measure is None and any(strategy.prompts and calibration is None for strategy, calibration in found):
        note("nobody has measured this model, so its tokens are a rule of thumb; `fieldscope calibrate` measures them")
    return [
        Outlook(
            strategy.name,
            estimate(
                task.queries,
                task.candidates,
                strategy,
                calibration or UNCALIBRATED,
                measure=measure or rule_of_thumb,
                given=task.given,
                budget=budget,
                run_budget=run_budget,
            ),
            price,
        )
        for strategy, calibration in found
    ]


def payload(outlooks: Sequence[Outlook]) -> dict[str, Any]:
    """The outlooks as one JSON-able object; `amount` is there where prices are known."""
    return {
        "dry_run": True,
        "runs": [
            {
                "strategy": outlook.strategy,
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
    """What was measured of this model with these prompts. The first stage does not matter to what is asked."""
    from fieldscope.agent.calibration import calibration_key

    prompts = calibration_key("", strategy, None).prompts
    fitting = (
        found
        for found in all_calibrations()
        if found.key and is_lmm_of(found.key.model, settings) and prompts.items() <= found.key.prompts.items()
    )
    return next(fitting, None) if prompts else None
