"""Runs a benchmark under strategies: queries concurrently, finished ones on the disk at once, and never twice."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from agent.types import RerankResult, unknown_flag
from core.errors import ConfigError, ImageError, LMMError
from core.types import Candidate, ImageSource, Query, Run
from eval.progress import Progress, Silent
from eval.runfolder import RunFolder
from eval.scoring import FIRST_STAGE_RECALL, HEADLINE, score
from eval.trec import qrels_lines, run_lines
from eval.types import Benchmark, Cost, RunSummary, asked

PATIENCE = 20
"""So many calls without a verdict end a run, if they are those of several whole queries."""

_FOLDER_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


class Fingerprinted(Protocol):
    """What a manifest says of a prompt."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


class FingerprintedStrategy(Fingerprinted, Protocol):
    """What a manifest says of a strategy."""

    @property
    def prompts(self) -> Sequence[Fingerprinted]: ...


class Reranker(Protocol):
    """An agent with its strategy and models."""

    @property
    def strategy(self) -> FingerprintedStrategy: ...

    async def rerank(self, query: Query, candidates: Sequence[Candidate] | None = None) -> RerankResult:
        """Rank the given candidates, or where none are given those that it finds itself."""
        ...


async def evaluate(
    benchmark: Benchmark,
    rerankers: Sequence[Reranker],
    out_dir: Path,
    *,
    provenance: Mapping[str, Any] | None = None,
    limit: int | None = None,
    query_concurrency: int = 4,
    progress: Progress | None = None,
) -> list[RunSummary]:
    """Run the benchmark (its first `limit` queries) under each reranker in turn, and write `out_dir/<strategy>/`.

    The same call goes on where an earlier one stopped. Queries with unknown verdicts are asked again, since their
    answered calls come from the response cache; the result with fewer unknowns stays. `provenance` (JSON-able:
    fingerprints of model and encoder, seeds) goes into the manifest and decides, with benchmark, strategy and prompts,
    what may go on in a folder.

    Raises `ConfigError` where a folder holds another configuration, with nothing overwritten, and `LMMError` where the
    model answers nothing any more; whatever else a reranker raises ends the run. What was finished stays on the disk.
    """
    if (limit is not None and limit < 1) or query_concurrency < 1:
        raise ConfigError("the limit and the number of queries at once must be at least 1")
    _require_folder_names([reranker.strategy.name for reranker in rerankers])
    queries = benchmark.queries[:limit]
    strategies = [reranker.strategy for reranker in rerankers]
    configurations = [(strategy, _configuration(benchmark, strategy, provenance or {})) for strategy in strategies]
    with ExitStack() as stack:
        folders = [
            stack.enter_context(closing(RunFolder(out_dir / strategy.name, configuration)))
            for strategy, configuration in configurations
        ]
        return [
            await _run(benchmark, queries, reranker, folder, query_concurrency, progress or Silent())
            for reranker, folder in zip(rerankers, folders, strict=True)
        ]


async def _run(
    benchmark: Benchmark,
    queries: Sequence[Query],
    reranker: Reranker,
    folder: RunFolder,
    concurrency: int,
    progress: Progress,
) -> RunSummary:
    began = time.perf_counter()
    strategy = reranker.strategy.name
    read_back = [result for query in queries if (result := folder.results.get(query.id)) and not _unknown(result)]
    finished = {result.query_id for result in read_back}
    cost = sum((replace(spent, cache_hits=spent.calls) for spent in map(_cost, read_back)), Cost())
    pending = iter([query for query in queries if query.id not in finished])
    pulse = _Pulse(strategy, folder.results.values())
    writing = asyncio.Lock()

    async def work() -> None:
        nonlocal cost
        for query in pending:
            result = await reranker.rerank(query, benchmark.candidates(query.id))
            async with writing:
                hashes = await asyncio.to_thread(_hashes, result, benchmark.images)
                pulse.feel(result, hashes)
                before = folder.results.get(query.id)
                if before is None or _unknown(result) < _unknown(before):
                    await asyncio.to_thread(folder.commit, result, hashes)
            spent = _cost(result)
            cost += spent
            progress.advance(spent, _unknown(result))

    progress.begin(strategy, len(queries), len(finished), cost)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    finally:
        progress.end()
    cost += Cost(seconds=time.perf_counter() - began)
    summary = _conclude(benchmark, strategy, folder, {query.id: folder.results[query.id] for query in queries}, cost)
    pulse.require_life()
    return summary


def _common_flags(results: Sequence[RerankResult]) -> tuple[str, ...]:
    """The warnings that hold for every query; how many verdicts are unknown is each query's own, also where equal."""
    flags = [set(result.flags) - {unknown_flag(result.verdicts)} for result in results]
    return tuple(sorted(set.intersection(*flags)))


def _conclude(
    benchmark: Benchmark, strategy: str, folder: RunFolder, results: Mapping[str, RerankResult], cost: Cost
) -> RunSummary:
    """Score the finished run and write what only a whole run has."""
    scores = score(benchmark, results)
    means, groups = scores.means(), scores.by_supercategory()
    shown = (*HEADLINE, FIRST_STAGE_RECALL) if benchmark.candidate_sets is None else HEADLINE
    summary = RunSummary(
        benchmark=benchmark.name,
        split=benchmark.split,
        strategy=strategy,
        metrics={name: means[name] for name in shown},
        by_supercategory={group: {name: found[name] for name in shown} for group, found in groups.items()},
        cost=cost,
        out=folder.path,
        queries=len(results),
        scored=int((scores.positives > 0).sum()),
        unknown=sum(map(_unknown, results.values())),
        flags=_common_flags(list(results.values())),
    )
    rankings = {q: tuple((ranked.image_id, ranked.score) for ranked in result.ranking) for q, result in results.items()}
    folder.write("run.trec", run_lines(Run(strategy, rankings)))
    folder.write("qrels.trec", qrels_lines({query_id: benchmark.judgments(query_id) for query_id in results}))
    table = {
        **{key: value for key, value in asdict(summary).items() if key != "out"},
        "metrics": means,
        "by_supercategory": groups,
        "per_query": scores.per_query(),
    }
    folder.write("metrics.json", [json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False), "\n"])
    return summary


class _Pulse:
    """Notices a model that gives no verdicts, so that a dead server does not cost a run's worth of retries.

    A single query may well get none, since a model may refuse just that one. So it takes several queries in a row, or a
    whole run.
    """

    def __init__(self, strategy: str, before: Iterable[RerankResult]) -> None:
        self._strategy = strategy
        self._alive = any(verdict.state == "answered" for result in before for verdict in result.verdicts)
        self._calls = 0
        self._queries = 0
        self._reason = ""

    def feel(self, result: RerankResult, readable: Container[str]) -> None:
        """Take in a query's verdicts. Unreadable images are no fault of the model, and the cache is not the model."""
        verdicts = [verdict for verdict in asked(result) if verdict.image_id in readable and not verdict.cached]
        if any(verdict.state == "answered" for verdict in verdicts):
            self._alive, self._calls, self._queries = True, 0, 0
        elif verdicts:
            self._calls += len(verdicts)
            self._queries += 1
            self._reason = verdicts[-1].error or "no reason given"
        if self._calls >= PATIENCE and self._queries > 1:
            self._stop()

    def require_life(self) -> None:
        """Raise `LMMError` where the model was asked and never gave a verdict."""
        if self._calls and not self._alive:
            self._stop()

    def _stop(self) -> None:
        raise LMMError(
            f"{self._strategy}: {self._calls} calls in a row gave no verdict ({self._reason}). What was finished is "
            "kept; mend the model or its server and give the same command again"
        )


def _hashes(result: RerankResult, images: ImageSource) -> dict[str, str]:
    """Pixel hashes of the images that the model was asked about, without those that can't be read."""
    hashes = {}
    for image_id in {verdict.image_id for verdict in asked(result)}:
        with suppress(ImageError):
            hashes[image_id] = images.pixel_hash(image_id)
    return hashes


def _cost(result: RerankResult) -> Cost:
    verdicts = asked(result)
    return Cost(
        calls=len(verdicts),
        prompt_tokens=sum(verdict.prompt_tokens for verdict in verdicts),
        completion_tokens=sum(verdict.completion_tokens for verdict in verdicts),
        cache_hits=sum(verdict.cached for verdict in verdicts),
    )


def _unknown(result: RerankResult) -> int:
    return sum(verdict.state == "unknown" for verdict in result.verdicts)


def _configuration(
    benchmark: Benchmark, strategy: FingerprintedStrategy, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        **provenance,
        "benchmark": {"name": benchmark.name, "split": benchmark.split, "fingerprint": benchmark.fingerprint},
        "strategy": {
            "name": strategy.name,
            "fingerprint": strategy.fingerprint,
            "prompts": {prompt.name: prompt.fingerprint for prompt in strategy.prompts},
        },
    }


def _require_folder_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise ConfigError(f"two strategies have the same name ({', '.join(sorted(names))}); rename one")
    if bad := [name for name in names if not _FOLDER_NAME.fullmatch(name)]:
        raise ConfigError(f"{bad[0]!r} can't name a run's folder; use letters, digits and . _ + - only")
