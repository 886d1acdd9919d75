"""A benchmark by the name or path that a user gives, and its evaluation."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import BenchmarkError, ConfigError
from core.fingerprint import fingerprint
from service.calibrations import find_calibration
from service.console import keeping
from service.own_pictures import all_fieldnotes
from service.settings import Settings
from service.wiring import FOREIGN, open_lmm, require_known_words

if TYPE_CHECKING:
    from agent.budget import Budget
    from agent.deps import Retriever
    from agent.lmm.base import LMM
    from agent.strategies.strategy import Strategy
    from eval.types import Benchmark, RunSummary

NAMES = ("fieldnotes", "fieldnotes-rerank", "fieldnotes-composed", "fieldnotes-dialogue")


@dataclass(frozen=True)
class Workload:
    """A benchmark and, for full retrieval, what finds its candidates.

    `encoder` is the fingerprint of the first stage's CLIP where this process ran it; `own` says whether the pictures
    are FieldNotes' by construction.
    """

    benchmark: Benchmark
    retriever: Retriever | None = None
    encoder: str | None = None
    own: bool = False


def open_workload(name: str, split: str | None, settings: Settings) -> Workload:
    """One of `NAMES` (all but `fieldnotes-rerank` are full retrieval), or the path of Parquet files in INQUIRE-Rerank's
    shape.

    Without `split` the test split is taken. Raises `BenchmarkError` where there is no such benchmark or split.
    """
    from service.fieldnotes_data import rerank_benchmark, retrieval_benchmark

    if name == "fieldnotes-rerank":
        benchmark, encoder = rerank_benchmark(split or "test", settings)
        return Workload(benchmark, None, encoder.fingerprint, own=True)
    if name in NAMES:
        task = name.removeprefix("fieldnotes").removeprefix("-")
        benchmark, library = retrieval_benchmark(split or "test", settings, task)
        return Workload(benchmark, library, library.encoder.fingerprint, own=True)
    if not Path(name).exists():
        from core.validation import unknown_name

        raise BenchmarkError(
            f"{unknown_name('benchmark', name, NAMES)}; or give the path of Parquet files in INQUIRE-Rerank's shape"
        )
    from eval.benchmarks.inquire_rerank import load_inquire_rerank

    return Workload(load_inquire_rerank(Path(name), split))


def load_strategies(names: Sequence[str]) -> list[Strategy]:
    """Strategies by name or file. Raises `ConfigError` where one is unknown, invalid, or two have the same name."""
    from agent.strategies.strategy import load_strategy

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

    Raises `VocabularyError` for queries with words that the bundled LMM, where it is asked, has never seen.
    """
    if settings.lmm_url or not any(strategy.prompts for strategy in strategies) or workload.own:
        return ()
    benchmark = workload.benchmark
    queries = benchmark.queries[:limit]
    require_known_words((query.text for query in queries), "lmm")
    ids = {candidate.image_id: None for query in queries for candidate in benchmark.candidates(query.id) or ()}
    return () if all_fieldnotes(benchmark.images, ids) else (FOREIGN,)


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
    `run_budget`. Raises what `eval.harness.evaluate` raises."""
    with keeping(f"finished queries are kept in {out}, and the same command goes on there"):
        return asyncio.run(_evaluate(workload, strategies, settings, out, limit, flags, budget, run_budget))


async def _evaluate(
    workload: Workload,
    strategies: Sequence[Strategy],
    settings: Settings,
    out: Path,
    limit: int | None,
    flags: tuple[str, ...],
    budget: Budget | None,
    run_budget: Budget | None,
) -> list[RunSummary]:
    from agent.budget import Account
    from agent.deps import Deps
    from agent.graph import Agent
    from eval.harness import evaluate
    from eval.progress import LiveProgress

    asking = [strategy for strategy in strategies if strategy.prompts]
    silent = [strategy for strategy in strategies if not strategy.prompts]
    images = workload.benchmark.images
    summaries: dict[str, RunSummary] = {}
    async with AsyncExitStack() as stack:
        lmm: LMM | None = await stack.enter_async_context(open_lmm(settings, images)) if asking else None
        live = stack.enter_context(LiveProgress()) if sys.stderr.isatty() else None
        # Apart, so that the manifest of a run without a model names none, whatever runs beside it.
        for group, model in ((silent, None), (asking, lmm)):
            deps = Deps(images, model, workload.retriever, settings.concurrency, flags=flags if model else ())
            known = {s.name: find_calibration(model.identity if model else None, s, workload.encoder) for s in group}
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
            )
            summaries |= {summary.strategy: summary for summary in done}
    return [summaries[strategy.name] for strategy in strategies]
