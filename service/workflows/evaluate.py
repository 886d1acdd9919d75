"""A benchmark by the name or path that a user gives, and its evaluation."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import BenchmarkError, ConfigError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.service.wiring.benchmarks import Workload
from fieldscope.service.wiring.bundled import FOREIGN, require_known_words
from fieldscope.service.wiring.calibrations import find_calibration
from fieldscope.service.wiring.interruption import interruptible
from fieldscope.service.wiring.models import open_lmm
from fieldscope.service.wiring.own_pictures import all_fieldnotes
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.collecting import seldom_collecting

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.calibration import Calibration
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.eval.types import RunSummary


def load_strategies(names: Sequence[str]) -> list[Strategy]:
    """Strategies by name or file. Raises `ConfigError` where one is unknown, invalid, or two have the same name."""
    from fieldscope.agent.strategies.strategy import load_strategy

    strategies = [load_strategy(name) for name in dict.fromkeys(names)]
    for name, count in Counter(strategy.name for strategy in strategies).items():
        if count > 1:
            raise ConfigError(
                f"{count} strategies have the name {name!r}; give each its own, it names the run's folder"
            )
    return strategies


def flags_of(
    workload: Workload, strategies: Sequence[Strategy], settings: Settings, limit: int | None = None
) -> tuple[str, ...]:
    """The warnings that these runs must carry.

    Raises `VocabularyError` for queries with words that the bundled LMM, where it is asked, has never seen, and
    `BenchmarkError` where images would be shown that are not there.
    """
    asks, benchmark = any(strategy.prompts for strategy in strategies), workload.benchmark
    if asks and not workload.has_images:
        raise BenchmarkError(
            f"{benchmark.name} has embeddings but no images for the LMM to look at; put them beside its tables, as "
            "image_path names them, into images or inat24, or evaluate --strategy clip alone"
        )
    if workload.recording is not None:
        return (FOREIGN,) if asks and any(FOREIGN in run.flags for run in workload.recording.runs) else ()
    if settings.lmm_url or not asks or workload.own:
        return ()
    queries = benchmark.queries[:limit]
    require_known_words((query.text for query in queries), "lmm")
    given = {candidate.image_id: None for query in queries for candidate in benchmark.candidates(query.id) or ()}
    return () if all_fieldnotes(benchmark.images, given or workload.found) else (FOREIGN,)


def evaluate_workload(
    workload: Workload,
    strategies: Sequence[Strategy],
    settings: Settings,
    out: Path,
    limit: int | None = None,
    flags: tuple[str, ...] = (),
    budget: Budget | None = None,
    run_budget: Budget | None = None,
) -> list[RunSummary]:
    """Evaluate the strategies into `out/<strategy>/`, each query within `budget` and all those of a strategy within
    `run_budget`. Raises what `fieldscope.eval.harness.evaluate` raises."""
    replays = workload.recording is not None or settings.cache_mode == "replay"
    calm = seldom_collecting() if replays else nullcontext()
    work = evaluate_async(workload, strategies, settings, out, limit, flags, budget, run_budget)
    with calm:
        return interruptible(work, f"finished queries are kept in {out}, and the same command goes on there")


async def evaluate_async(
    workload: Workload,
    strategies: Sequence[Strategy],
    settings: Settings,
    out: Path,
    limit: int | None,
    flags: tuple[str, ...],
    budget: Budget | None,
    run_budget: Budget | None,
) -> list[RunSummary]:
    from fieldscope.agent.budget import Account
    from fieldscope.agent.graph import Agent
    from fieldscope.agent.resources import Resources
    from fieldscope.eval.harness import evaluate
    from fieldscope.eval.progress import LiveProgress
    from fieldscope.eval.runs.inputs import input_lines

    asking = [strategy for strategy in strategies if strategy.prompts]
    silent = [strategy for strategy in strategies if not strategy.prompts]
    images = workload.benchmark.images
    summaries: dict[str, RunSummary] = {}
    async with AsyncExitStack() as stack:
        lmm = await _open_lmm(workload, settings, stack) if asking else None
        live = stack.enter_context(LiveProgress()) if sys.stderr.isatty() else None
        # Apart, so that the manifest of a run without a model names none, whatever runs beside it.
        for group, model in ((silent, None), (asking, lmm)):
            deps = Resources(images, model, workload.retriever, settings.concurrency, flags=flags if model else ())
            known = {s.name: _calibration(workload, s, model) for s in group}
            fitted = {name: found for name, found in known.items() if found is not None}
            done = await evaluate(
                workload.benchmark,
                [
                    Agent(replace(deps, calibration=fitted.get(s.name)), s, Account(run_budget if model else None))
                    for s in group
                ],
                out,
                provenance={"lmm": model and model.identity, "encoder": workload.encoder, "seed": 0},
                limit=limit,
                budget=budget if model else None,
                calibrations={name: fingerprint(found.model_dump(mode="json")) for name, found in fitted.items()},
                progress=live,
                inputs={s.name: input_lines(workload.benchmark, s, fitted.get(s.name)) for s in group},
                live=workload.recording is None,
            )
            summaries |= {summary.strategy: summary for summary in done}
    return [summaries[strategy.name] for strategy in strategies]


async def _open_lmm(workload: Workload, settings: Settings, stack: AsyncExitStack) -> LMM:
    if workload.recording is None:
        return await stack.enter_async_context(open_lmm(settings, workload.benchmark.images))
    if workload.recording.lmm is None:
        raise ConfigError("no model was asked anything in the recorded runs; name a strategy that asks nothing")
    return workload.recording.lmm


def _calibration(workload: Workload, strategy: Strategy, model: LMM | None) -> Calibration | None:
    def find() -> Calibration | None:
        return find_calibration(model.identity if model else None, strategy, workload.encoder)

    return workload.recording.calibration_of(strategy, find) if workload.recording else find()
