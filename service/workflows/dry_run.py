"""What a command would ask and what that would cost, without loading a model. A server measures one picture."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fieldscope.core.errors import ConfigError, LMMError
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
    from fieldscope.agent.roles import Role
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import Query
    from fieldscope.eval.tuning.estimate import Estimate

Named = TypeVar("Named")
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
    """One strategy's estimate, with the `prices` of its stages' models, in one `currency`, where they are known.
    `models` are the names of the models by stage, where there are several. `tokens_by` says what the tokens rest on."""

    strategy: str
    estimate: Estimate
    currency: str | None
    prices: Mapping[str, Price]
    models: Mapping[str, str]
    tokens_by: str

    @property
    def amount(self) -> float | None:
        """In the currency; None where no prices are known."""
        if self.currency is None:
            return None
        stages = self.estimate.stages.items()
        return sum(self.prices[name].of(stage.prompt_tokens, stage.completion_tokens) for name, stage in stages)


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
        workload = open_workload(plan.benchmark, plan.split, settings, search=False, choices=plan.choices)
        queries = _selected(plan, workload.benchmark.queries)
        sets = (workload.benchmark.candidates(query.id) for query in queries)
        images = len(workload.found)
        return Task(queries, tuple(images if given is None else len(given) for given in sets), not images)
    from fieldscope.fieldnotes.collection import read_split
    from fieldscope.fieldnotes.rerank import TOP

    given = plan.benchmark in ("fieldnotes-rerank", "fieldnotes-unmatched", "fieldnotes-wild")
    task = plan.benchmark.removeprefix("fieldnotes-rerank").removeprefix("fieldnotes").removeprefix("-")
    task = task.removesuffix("-fullrank")
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
    from fieldscope.agent.roles import ROLES
    from fieldscope.eval.tuning.estimate import estimate

    names = settings.names(ROLES)
    asked = {role for strategy in strategies for role in strategy.roles(_composed(task))}
    priced = {names[role] for role in asked or ROLES} if price_file else set()
    prices = {name: load_price(price_file, name) for name in sorted(priced) if price_file}
    currencies = {price.currency for price in prices.values()}
    if len(currencies) > 1:
        raise ConfigError(f"{price_file}: the models' prices are in several currencies; give them in one")
    calibrations = [_calibration(strategy, settings) for strategy in strategies]
    fitted = list(zip(strategies, calibrations, strict=True))
    unmeasured = any(strategy.prompts and calibration is None for strategy, calibration in fitted)
    measures = _token_measures(settings, asked, probe and unmeasured)
    sources = dict.fromkeys(measure.source for measure in measures.values())
    source = "; ".join(sources) or "no model, since none is asked"
    if unmeasured and any(settings.of(role).lmm_url for role in asked):
        note(f"Tokens are estimated by {source}. `fieldscope calibrate` measures those of each stage.")
    return [
        Outlook(
            strategy.name,
            estimate(
                task.queries,
                task.candidates,
                strategy,
                calibration or UNCALIBRATED,
                measures={stage: each.measure for stage, each in _by_stage(strategy, measures).items()},
                given=task.given,
                budget=budget,
                run_budget=run_budget,
            ),
            next(iter(currencies), None),
            {stage: prices[name] for stage, name in _by_stage(strategy, names).items() if name in prices},
            _by_stage(strategy, names) if len({names[role] for role in asked}) > 1 else {},
            _CALIBRATED if calibration else source,
        )
        for strategy, calibration in fitted
    ]


def _token_measures(settings: Settings, roles: Collection[Role], probe: bool) -> dict[Role, TokenMeasure]:
    """What the tokens of calls that no calibration has measured rest on, by the role that is asked."""
    measures: dict[Role, TokenMeasure] = {}
    for chosen, having in settings.by_model(roles).items():
        shown = any(role != "reasoner" for role in having)  # which reads no images
        measures |= dict.fromkeys(having, _token_measure(chosen, probe and shown))
    return measures


def _token_measure(settings: Settings, probe: bool) -> TokenMeasure:
    if settings.lmm_url is None and (counted := bundled_measure()):
        return TokenMeasure(counted, "the bundled model's tokenizer")
    if probe and settings.asks_server:
        try:
            return measured_tokens(settings)
        except LMMError as error:
            note(f"The server did not measure a picture ({error}).")
    return tokens_by_rule(settings)


def _composed(task: Task) -> bool:
    return any(query.reference_image is not None for query in task.queries)


def _by_stage(strategy: Strategy, names: Mapping[Role, Named]) -> dict[str, Named]:
    """What is known of the role that each stage asks, such as the name of its model."""
    return {stage: names[role] for stage, role in strategy.roles_by_call.items() if role in names}


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
                **({"pairs": outlook.estimate.pairs} if outlook.estimate.pairs else {}),
                "stages": {
                    stage: asdict(spending) | ({"model": outlook.models[stage]} if outlook.models else {})
                    for stage, spending in outlook.estimate.stages.items()
                },
                **({"amount": outlook.amount, "currency": outlook.currency} if outlook.currency else {}),
            }
            for outlook in outlooks
        ],
    }


def _calibration(strategy: Strategy, settings: Settings) -> Calibration | None:
    """A calibration of this verifier with these prompts, after whatever first stage."""
    from fieldscope.agent.calibration import calibration_key

    verifier = settings.of(strategy.verify.asks) if strategy.verify else settings
    key = calibration_key("", strategy, None)
    fitting = (
        fit
        for fit in all_calibrations()
        if fit.key
        and is_lmm_of(fit.key.model, verifier)
        and (fit.key.reading == key.reading and key.prompts.items() <= fit.key.prompts.items())
    )
    return next(fitting, None) if key.prompts else None
