"""Strategies under several encoders: a run for each strategy and encoder, in one folder and one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.service.wiring.benchmarks import FULLRANK, resolve_benchmark
from fieldscope.service.wiring.feedback import saying_once, warn
from fieldscope.service.wiring.inquire import require_embeddings
from fieldscope.service.wiring.priors import load_image_encoder
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.evaluate import EvaluatedRuns, EvaluationPlan, open_evaluation, run_opened
from fieldscope.service.workflows.variants import by_encoder, named_by_encoder

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy


def evaluate_encoders(
    plan: EvaluationPlan, strategies: Sequence[Strategy], settings: Settings, encoders: Sequence[str]
) -> EvaluatedRuns:
    """Run strategies under each of the encoders, or under what the settings say where none is named.

    The encoders are loaded one after the other, once before the first run, so that a wrong name ends the work before
    any image is encoded. Raises what `by_encoder`, `open_evaluation` and `run_opened` raise.
    """
    contests = by_encoder(strategies, settings, encoders)
    evaluations: list[EvaluatedRuns] = []
    tasks: set[str] = set()
    with saying_once():
        if len(contests) > 1:
            _require_encoders(plan, [contest.settings for contest in contests])
        for contest in contests:
            opened = open_evaluation(plan, [contest])
            benchmark = opened.workload.benchmark
            if len(encoders) == 1 and benchmark.priors is not None:
                # Apart from the run with the scores that the candidates came with.
                named = [named_by_encoder(strategy, encoders[0]) for strategy in strategies]
                opened = replace(opened, contests=(replace(opened.contests[0], strategies=named),))
            tasks.add(benchmark.fingerprint)
            if len(tasks) > 1 and benchmark.candidate_sets is not None:
                warn(
                    f"each encoder chose candidates of its own for {benchmark.name}, so its runs are not comparable; "
                    "name a benchmark whose candidates are given, or one of full retrieval"
                )
            evaluations.append(run_opened(opened))
    runs = [run for evaluation in evaluations for run in evaluation.runs]
    flags = tuple(dict.fromkeys(flag for evaluation in evaluations for flag in evaluation.flags))
    return EvaluatedRuns(runs, flags, evaluations[0].out)


def _require_encoders(plan: EvaluationPlan, chosen: Sequence[Settings]) -> None:
    """Raise what the first of the encoders raises that can't be used, before any of them is."""
    kind, argument = resolve_benchmark(plan.benchmark)
    if kind == FULLRANK:
        require_embeddings(Path(argument), chosen)
        return
    for settings in chosen:
        load_image_encoder(settings)
