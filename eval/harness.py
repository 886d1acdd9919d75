"""Runs a benchmark under strategies: queries concurrently, finished ones on the disk at once, and never twice."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from fieldscope.agent.budget import Account, Budget
from fieldscope.agent.types import Asked, Call, Comparison, Reason, RerankResult, Verdict, lost_stage, unknown_flag
from fieldscope.agent.usage import Usage
from fieldscope.core.errors import ConfigError, ImageError, LMMError
from fieldscope.core.types import Candidate, ImageSource, Query, Run
from fieldscope.eval.measures.scoring import score, shown_metrics
from fieldscope.eval.progress import Progress, Silent
from fieldscope.eval.runs.inputs import NAME as INPUTS
from fieldscope.eval.runs.ledger import Ledger
from fieldscope.eval.runs.runfolder import RunFolder
from fieldscope.eval.runs.trec import qrels_lines, run_lines
from fieldscope.eval.types import Benchmark, RunSummary
from fieldscope.retrieval.collection import Collection

PATIENCE = 20
"""So many calls without an answer end a run, if they are those of several whole queries."""

_FOLDER_NAME = re.compile(r"[A-Za-z0-9][\w.+~=,-]*")


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
    """An agent with its strategy and models. `account` is what all its queries spend from."""

    @property
    def strategy(self) -> FingerprintedStrategy: ...

    @property
    def account(self) -> Account | None: ...

    async def rerank(
        self, query: Query, candidates: Sequence[Candidate] | None = None, *, budget: Budget | None = None
    ) -> RerankResult:
        """Rank the given candidates, or where none are given those that it finds itself, within a budget."""
        ...


async def evaluate(
    benchmark: Benchmark,
    rerankers: Sequence[Reranker],
    out_dir: Path,
    *,
    provenance: Mapping[str, Any] | None = None,
    limit: int | None = None,
    query_concurrency: int = 4,
    budget: Budget | None = None,
    calibrations: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    ledger: Ledger | None = None,
    inputs: Mapping[str, Iterable[str]] | None = None,
    live: bool = True,
) -> list[RunSummary]:
    """Run the benchmark (its first `limit` queries) under each reranker in turn, and write `out_dir/<strategy>/`.

    The same call goes on where an earlier one stopped. Queries with unknown answers are asked again, since their
    answered calls come from the response cache; the result with fewer unknowns stays. `provenance` (JSON-able:
    fingerprints of model and encoder, seeds) goes into the manifest and decides, with benchmark, strategy and prompts,
    what may go on in a folder. `budget` is what each query may spend, a reranker's account what the whole run may: its
    queries share it as they come, and those read back are charged to it. Their calls and tokens decide what is asked,
    so they belong to the manifest too; a deadline does not, since no two runs would be alike in it. `calibrations` are
    fingerprints of what was fitted for single strategies, by their names. `ledger`, by default the user's own, counts
    the runs in which a strategy was scored on test. `inputs` are the lines (`fieldscope.eval.runs.inputs`) that say in
    full what a strategy's run is made from. `live` is false where no model stands behind the answers, which then are no
    sign of its life.

    Raises `ConfigError` where a folder holds another configuration, with nothing overwritten, and `LMMError` where the
    model answers nothing any more; whatever else a reranker raises ends the run. What was finished stays on the disk.
    """
    if (limit is not None and limit < 1) or query_concurrency < 1:
        raise ConfigError("the limit and the number of queries at once must be at least 1")
    _require_folder_names([reranker.strategy.name for reranker in rerankers])
    queries = benchmark.queries[:limit]
    configurations = {
        (name := reranker.strategy.name): {
            **_configuration(benchmark, reranker, provenance or {}, budget),
            **({"calibration": calibrations[name]} if calibrations and name in calibrations else {}),
        }
        for reranker in rerankers
    }
    progress, ledger = progress or Silent(), ledger or Ledger()
    with ExitStack() as stack:
        folders = [
            stack.enter_context(closing(RunFolder(out_dir / name, configuration)))
            for name, configuration in configurations.items()
        ]
        for name, folder in zip(configurations, folders, strict=True):
            if inputs and name in inputs:
                folder.keep(INPUTS, inputs[name])
            if isinstance(benchmark.images, Collection):
                folder.keep("collection.json", [json.dumps(benchmark.images.locator(), ensure_ascii=False)])
        return [
            await _run(benchmark, queries, reranker, folder, query_concurrency, budget, progress, ledger, live)
            for reranker, folder in zip(rerankers, folders, strict=True)
        ]


async def _run(
    benchmark: Benchmark,
    queries: Sequence[Query],
    reranker: Reranker,
    folder: RunFolder,
    concurrency: int,
    budget: Budget | None,
    progress: Progress,
    ledger: Ledger,
    live: bool,
) -> RunSummary:
    began = time.perf_counter()
    strategy = reranker.strategy.name
    read_back = [result for query in queries if (result := folder.results.get(query.id)) and not _open(result)]
    finished = {result.query_id for result in read_back}
    cost = sum((replace(spent, cached=spent.calls) for spent in map(_cost, read_back)), Usage())
    if reranker.account is not None:
        reranker.account.carry_over(cost.calls, cost.tokens)
    pending = iter([query for query in queries if query.id not in finished])
    pulse = _Pulse(strategy, folder.results.values())
    writing = asyncio.Lock()

    async def work() -> None:
        nonlocal cost
        for query in pending:
            result = await reranker.rerank(query, benchmark.candidates(query.id), budget=budget)
            async with writing:
                hashes = await asyncio.to_thread(_hashes, result, query, benchmark.images)
                if live:
                    pulse.feel(result, hashes)
                before = folder.results.get(query.id)
                if before is None or _open(result) < _open(before):
                    await asyncio.to_thread(folder.commit, result, hashes)
                kept = folder.results[query.id]
            spent = _cost(result) if kept is result else _in_vain(kept, result)
            cost += spent
            progress.advance(spent)

    progress.begin(strategy, len(queries), len(finished), cost)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    finally:
        progress.end()
    cost += Usage(wall=time.perf_counter() - began)
    summary = _conclude(benchmark, strategy, folder, {query.id: folder.results[query.id] for query in queries}, cost)
    pulse.require_life()
    times = ledger.score(benchmark.name, benchmark.split, reranker.strategy.fingerprint, folder.run_id)
    folder.note_scored(times)
    return replace(summary, scored_on_test=times)


def _common_flags(results: Sequence[RerankResult]) -> tuple[str, ...]:
    """The warnings that hold for every query, and of stages that were lost on some, on how many and one reason. How
    many answers are unknown is each query's own, also where equal."""
    flags = [set(result.flags) - {unknown_flag(result.asked)} for result in results]
    common = set.intersection(*flags)
    partly: dict[str, list[str]] = {}
    for own in flags:
        for flag in own - common:
            if stage := lost_stage(flag):
                partly.setdefault(stage, []).append(flag)
    some = [f"on {len(told)} of {len(results)} queries {told[0]}" for told in partly.values()]
    return (*sorted(common), *sorted(some))


def _conclude(
    benchmark: Benchmark, strategy: str, folder: RunFolder, results: Mapping[str, RerankResult], cost: Usage
) -> RunSummary:
    """Score the finished run and write what only a whole run has."""
    scores = score(benchmark, results)
    means, groups = scores.means(), scores.by_supercategory()
    shown = shown_metrics(benchmark)
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
        asked=sum(len(result.asked) for result in results.values()),
        unknown=cost.unknown,
        ended=dict(sorted(Counter(result.ended for result in results.values() if result.ended).items())),
        flags=_common_flags(list(results.values())),
        by_round=scores.by_round(),
        breakdowns={
            kind: {group: {name: found[name] for name in shown} for group, found in groups_of.items()}
            for kind, groups_of in scores.breakdowns().items()
        },
    )
    rankings = {q: tuple((ranked.image_id, ranked.score) for ranked in result.ranking) for q, result in results.items()}
    folder.write("run.trec", run_lines(Run(strategy, rankings)))
    folder.write("qrels.trec", qrels_lines({query_id: benchmark.judgments(query_id) for query_id in results}))
    table = {
        **{key: value for key, value in asdict(summary).items() if key not in ("out", "scored_on_test")},
        "metrics": means,
        "by_supercategory": groups,
        "breakdowns": scores.breakdowns(),
        "per_query": scores.per_query(),
        "groups": {
            query_id: dict(benchmark.meta[query_id].groups) for query_id in results if query_id in benchmark.meta
        },
    }
    folder.write("metrics.json", [json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False), "\n"])
    return summary


class _Pulse:
    """Notices a model that gives no answers, so that a dead server does not cost a run's worth of retries.

    A single query may well get none, since a model may refuse just that one. So it takes several queries in a row, or a
    whole run. Where candidates were asked about, only those questions tell: a server that writes texts but gives no
    probabilities is of no use.
    """

    def __init__(self, strategy: str, before: Iterable[RerankResult]) -> None:
        self._strategy = strategy
        self._alive = any(_answered(_telling(result.asked)) for result in before)
        self._judged = False
        self._calls = 0
        self._queries = 0
        self._reason = ""

    def feel(self, result: RerankResult, readable: Container[str]) -> None:
        """Take in a query's answers. Unreadable images are no fault of the model, the cache is not the model, and a
        text that came and can't be read is a sign neither of life nor of death."""
        self._judged |= _answered(filter(_judges, result.asked))
        new = [asked for asked in result.asked if not asked.cached and not _unread(asked)]
        questions = _telling([asked for asked in new if _could_be_asked(asked, readable)])
        if _answered(questions):
            self._alive, self._calls, self._queries = True, 0, 0
        elif questions:
            self._calls += len(questions)
            self._queries += 1
            self._reason = questions[-1].error or "no reason given"
        if self._calls >= PATIENCE and self._queries > 1:
            self._stop()

    def require_life(self) -> None:
        """Raise `LMMError` where the model was asked and never gave an answer, unless candidates were judged by answers
        from the cache: then the run has its result."""
        if self._calls and not self._alive and not self._judged:
            self._stop()

    def _stop(self) -> None:
        raise LMMError(
            f"{self._strategy}: {self._calls} calls in a row gave no answer ({self._reason}). What was finished is "
            "kept; mend the model or its server and give the same command again"
        )


def _telling(questions: Sequence[Asked]) -> Sequence[Asked]:
    """Those about candidates' relevance; all, where there are none of them."""
    return list(filter(_judges, questions)) or questions


def _judges(question: Asked) -> bool:
    """Whether it is about candidates' relevance."""
    return isinstance(question, Verdict | Comparison) or _joint(question)


def _unread(question: Asked) -> bool:
    """Whether a text came, and could not be read."""
    return isinstance(question, Call) and question.state == "unknown" and bool(question.text)


def _joint(question: Asked) -> bool:
    return isinstance(question, Call) and question.stage == "joint"


def _answered(questions: Iterable[Asked]) -> bool:
    return any(question.state == "answered" for question in questions)


def _could_be_asked(question: Asked, readable: Container[str]) -> bool:
    """Whether its images can be read. A call does not name its image, but has no request where that could not be."""
    if isinstance(question, Call):
        return question.request_key is not None
    return all(image_id in readable for image_id in _images(question))


def _images(question: Asked) -> tuple[str, ...]:
    """The candidates that a question was about."""
    if isinstance(question, Verdict | Reason):
        return (question.image_id,)
    return question.shown if isinstance(question, Comparison) else ()


def _hashes(result: RerankResult, query: Query, images: ImageSource) -> dict[str, str]:
    """Pixel hashes of the images that the model was asked about, without those that can't be read."""
    questions = (*result.verdicts, *result.comparisons, *result.reasons)
    shown = {image_id for question in questions if question.state != "not_asked" for image_id in _images(question)}
    if query.reference_image is not None and result.asked:
        shown.add(query.reference_image)
    hashes = {}
    for image_id in shown:
        with suppress(ImageError):
            hashes[image_id] = images.pixel_hash(image_id)
    return hashes


def _cost(result: RerankResult) -> Usage:
    return Usage.of(result.asked)


def _in_vain(kept: RerankResult, again: RerankResult) -> Usage:
    """The cost of a query that was asked again and came out no better: of the result that stays, without what this
    process asked the model for."""
    asked = sum(not question.cached for question in again.asked)
    cost = _cost(kept)
    return replace(cost, cached=max(cost.calls - asked, 0))


def _open(result: RerankResult) -> int:
    """How many answers are still wanted; a result without any is finished, also where a budget ended it.

    What was settled in another way does not count: a text that came and could not be read, since its stage asked once
    more or did without, and the same question would get the same text; and a joint verdict, since what a joint answer
    leaves open is asked one by one.
    """
    return sum(question.state == "unknown" and not _unread(question) for question in result.asked)


def _configuration(
    benchmark: Benchmark, reranker: Reranker, provenance: Mapping[str, Any], budget: Budget | None
) -> dict[str, Any]:
    strategy = reranker.strategy
    run_budget = reranker.account.budget if reranker.account else None
    limits = {
        name: {"calls": limit.max_calls, "tokens": limit.max_tokens}
        for name, limit in (("query", budget), ("run", run_budget))
        if limit is not None and (limit.max_calls, limit.max_tokens) != (None, None)
    }
    return {
        **provenance,
        **({"budget": limits} if limits else {}),
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
        raise ConfigError(f"{bad[0]!r} can't name a run's folder; use letters, digits and . _ + ~ = , - only")
