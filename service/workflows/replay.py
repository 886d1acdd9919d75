"""Replays: recorded runs instead of a benchmark's files, a first stage, images and a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.benchmarks import Workload
from fieldscope.service.wiring.feedback import note
from fieldscope.service.wiring.prompts import chosen_prompts, prompts_for, recorded_prompts
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.evaluate import (
    RUNS,
    Contest,
    EvaluatedRuns,
    EvaluationPlan,
    OpenEvaluation,
    check_evaluation,
    load_strategies,
    run_opened,
)

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.eval.runs.replay import Recording


def open_recording(source: Path, settings: Settings) -> Recording:
    """A file of `fieldscope cache export`, or a run's folder or output folder with its answers in the response cache.

    Raises `CacheError` and `ConfigError` for what is none.
    """
    from fieldscope.cache.archive import Archive
    from fieldscope.cache.sqlite import SqliteStore
    from fieldscope.cache.store import MemoryStore
    from fieldscope.eval.runs.recording import read_recording, recorded_lines
    from fieldscope.eval.runs.replay import make_recording

    if source.is_dir():
        path = settings.store_path
        with closing(SqliteStore(path) if path.exists() else MemoryStore()) as store:
            return make_recording(recorded_lines([source], store))
    if not source.exists():
        raise ConfigError(f"{source} does not exist; give a file of `fieldscope cache export`, or a run's folder")
    return make_recording(read_recording(Archive(source)))


def replay_runs(
    plan: EvaluationPlan, recording: Recording, strategies: Sequence[Strategy], settings: Settings
) -> EvaluatedRuns:
    """Run strategies on a recorded benchmark, with the recorded answers; `plan` comes from `recorded_plan`. Raises what
    `open_replay` and `run_opened` raise."""
    return run_opened(open_replay(plan, recording, [Contest(settings, strategies)]))


def open_replay(plan: EvaluationPlan, recording: Recording, contests: Sequence[Contest]) -> OpenEvaluation:
    """The recorded benchmark, with the recording in the place of its files, first stage, images and models. `plan`
    comes from `recorded_plan`. Raises `ConfigError` for contests between several models."""
    if any(contest.settings.lmm_url or contest.settings.roles for contest in contests):
        raise ConfigError("the recording has one model's answers; leave 'model' out of the grid")
    workload = Workload(recording.benchmark, recording.searches, recording.encoder, recording=recording)
    return check_evaluation(plan, workload, contests, [{}] * len(contests))


def recorded_plan(plan: EvaluationPlan, recording: Recording) -> EvaluationPlan:
    """The plan for a replay: the recorded benchmark; the recorded number of queries and the recorded budgets, unless
    the plan has its own; and a folder apart from the runs that are repeated.

    Raises `ConfigError` for a recording without a finished query.
    """
    from fieldscope.agent.budget import Budget

    benchmark, budget, run_budget = recording.benchmark, plan.budget, plan.run_budget
    if all(limit in (None, Budget()) for limit in (budget, run_budget)):
        budget, run_budget = recording.budget_of("query"), recording.budget_of("run")
    name = f"{benchmark.name}-{benchmark.split}{plan.selection.suffix if plan.selection else ''}"
    safe = re.sub(r"[^\w.+-]+", "-", name).lstrip(".-") or "benchmark"  # a recorded name is no path
    return EvaluationPlan(
        benchmark=benchmark.name,
        split=benchmark.split,
        selection=plan.selection,
        limit=plan.limit or recorded_limit(recording),
        out=plan.out or RUNS / "replayed" / safe,
        budget=budget,
        run_budget=run_budget,
        seed=recording.seed,
    )


def chosen_strategies(
    recording: Recording | None, names: Sequence[str], otherwise: Sequence[str], settings: Settings
) -> list[Strategy]:
    """Strategies by name or file. In a recording a run's name is that run's strategy, and no name is all of them;
    elsewhere it is `otherwise`. Prompts are worded as the settings say, in a recording as its runs were by default.

    Raises `ConfigError` where one is unknown, or two have the same name.
    """
    if recording is None:
        return load_strategies(names or otherwise, prompts_for(settings))
    runs = [run.strategy for run in recording.runs if _is_worded(run.strategy, settings.prompts)]
    recorded = {strategy.name: strategy for strategy in runs}
    if not names:
        if not recorded:
            raise ConfigError(f"no recorded run has the prompt set {settings.prompts}; leave --prompts out")
        if len(recorded) < len(runs):
            raise ConfigError("Two recorded runs have strategies of the same name. Export them separately.")
        return list(recorded.values())
    prompts = prompts_for(settings) if settings.prompts else recorded_prompts(recording)
    loaded = iter(load_strategies([name for name in names if name not in recorded], prompts))
    chosen = [recorded[name] if name in recorded else next(loaded) for name in dict.fromkeys(names)]
    if len({strategy.name for strategy in chosen}) < len(chosen):
        raise ConfigError(
            "a strategy has the same name as a recorded one, and it names the run's folder; give it another name"
        )
    return chosen


def _is_worded(strategy: Strategy, prompts: str | None) -> bool:
    """Whether a recorded strategy has the wording that the user names, if any."""
    return prompts is None or not strategy.prompts or strategy.prompt_set == chosen_prompts(prompts, bundled=False).name


def recorded_limit(recording: Recording) -> int | None:
    """How many queries a replay goes through, None for all; says so where those are not all."""
    queries, every = recording.queries, len(recording.benchmark.queries)
    if not queries:
        raise ConfigError("the recorded runs have no finished query; finish them and export them again")
    if queries < every:
        note(f"The recording has the first {queries:,} of {every:,} queries.")
    return queries if queries < every else None
