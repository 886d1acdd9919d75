"""Fitting a strategy to a model on a validation split: the questions, the comparisons, and the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.benchmarks import NAMES
from fieldscope.service.wiring.feedback import progress
from fieldscope.service.wiring.interruption import ANSWERS_KEPT, interruptible
from fieldscope.service.wiring.prompt_pictures import with_examples
from fieldscope.service.wiring.prompts import prompts_for
from fieldscope.service.wiring.roles import open_lmms
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.evaluate import (
    Contest,
    EvaluationPlan,
    load_strategies,
    open_evaluation,
    run_opened,
)

if TYPE_CHECKING:
    from fieldscope.agent.calibration import Calibration
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.eval.tuning.calibrate import Labelled


COMPOSED = "composed"
"""The folder, in that of the run, for the run on queries with a reference image."""


@dataclass(frozen=True)
class _Verified:
    """A benchmark with the results of a strategy's verification, and the fingerprints of the first stage and of the
    scoring model, where there are any."""

    labelled: Labelled
    encoder: str | None
    scorer: str | None


def fit_strategy(
    plan: EvaluationPlan,
    strategy_name: str,
    settings: Settings,
    also: Sequence[EvaluationPlan] = (),
    composed: str | None = None,
) -> Calibration:
    """Run a strategy's verification on a split, with every question asked and every look taken, into the plan's folder;
    compare some images of each head where the strategy compares; and fit. With the plans in `also` the fit is to all of
    their splits together. Queries with a reference image have a threshold of *nothing matches* of their own where
    `composed` names a benchmark of them, of which the plan's split is used.

    Raises `ConfigError`, before anything is opened, for a split that may not decide a setting, and for files that name
    none: they may be a test split.
    """
    from fieldscope.eval.tuning.calibrate import calibrate_composed, require_selection_split, verification

    (strategy,) = load_strategies((strategy_name,), prompts_for(settings))
    questions = verification(strategy)
    of_changes = replace(plan, benchmark=composed, out=plan.out and plan.out / COMPOSED) if composed else None
    for each in filter(None, (plan, *also, of_changes)):
        require_selection_split(each.split or "test")
        require_named_split(each.benchmark, each.split or "test")
    others = [_verified(each, strategy, questions, settings).labelled for each in also]
    own = _verified(plan, strategy, questions, settings)
    fit = interruptible(_compare_and_fit(own, others, strategy, settings), ANSWERS_KEPT)
    if of_changes is None:
        return fit
    changes = _verified(of_changes, strategy, questions, settings).labelled
    return calibrate_composed(fit, changes.benchmark, changes.results)


def _verified(plan: EvaluationPlan, strategy: Strategy, questions: Strategy, settings: Settings) -> _Verified:
    """Ask all `questions` of a strategy on the plan's split."""
    from fieldscope.eval.runs.read import read_manifest, read_results
    from fieldscope.eval.tuning.calibrate import Labelled

    opened = open_evaluation(plan, [Contest(settings, [strategy])])
    contests = tuple(replace(contest, strategies=(questions,)) for contest in opened.contests)
    (run,) = run_opened(replace(opened, contests=contests)).runs
    labelled = Labelled(opened.workload.benchmark, read_results(run.out))
    return _Verified(labelled, opened.workload.encoder, read_manifest(run.out).configuration.get("scorer"))


def require_named_split(name: str, split: str) -> None:
    """Raise `ConfigError` for Parquet files that do not say which split they are: they may be a test split."""
    from fieldscope.eval.benchmarks.inquire_fullrank import is_fullrank
    from fieldscope.eval.benchmarks.inquire_rerank import named_splits
    from fieldscope.eval.benchmarks.splits import WHOLE

    path = Path(name)
    parquet = name not in NAMES and path.exists() and not is_fullrank(path)
    if parquet and named_splits(path) == {WHOLE}:
        raise ConfigError(
            f"the files of {name} do not say which split they are, and settings are never fitted on a test split; put "
            f"{split!r} at the front of their names"
        )


async def _compare_and_fit(
    own: _Verified, also: Sequence[Labelled], strategy: Strategy, settings: Settings
) -> Calibration:
    from fieldscope.agent.calibration import calibration_key
    from fieldscope.agent.resources import Resources
    from fieldscope.eval.measures.pairwise_study import ask_groups, state_of
    from fieldscope.eval.tuning.calibrate import calibrate, draw_groups, heads

    benchmark, results = own.labelled.benchmark, dict(own.labelled.results)
    images = with_examples(benchmark.images, strategy.prompts)
    async with open_lmms(settings, images, strategy.roles()) as lmms:
        if compare := strategy.compare:
            size = compare.set_size if compare.mode == "set" else 2
            resources = Resources(benchmark.images, lmms, None, settings.concurrency)
            best = heads(benchmark, results, strategy.weighs_scores)
            with progress("comparing") as report:
                for done, query in enumerate(benchmark.queries, start=1):
                    groups = draw_groups(best[query.id], size, query.id)
                    state = state_of(query, results[query.id])
                    comparisons = await ask_groups(state, groups, resources, strategy)
                    results[query.id] = results[query.id].model_copy(update={"comparisons": comparisons})
                    report(done, len(benchmark.queries))
        key = calibration_key(lmms.identity(strategy.roles()) or "", strategy, own.encoder, own.scorer)
        return calibrate(benchmark, results, key, also).model_copy(update={"prompt_set": strategy.prompt_set})
