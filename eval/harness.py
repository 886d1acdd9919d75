"""Runs a benchmark under strategies: queries concurrently, finished ones on the disk at once, and never twice."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fieldscope.agent.budget import Account, Budget
from fieldscope.agent.roles import ModelIdentity, roles_by_model
from fieldscope.agent.types import RerankResult
from fieldscope.agent.usage import SCORER, Usage, usage_by_role
from fieldscope.core.errors import ConfigError, ImageError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.types import Candidate, ImageSource, Query
from fieldscope.eval.conclusion import conclude
from fieldscope.eval.measures.scoring import OfficialScores
from fieldscope.eval.model_watch import ModelWatch, images_of, unparsed
from fieldscope.eval.progress import Progress, Silent
from fieldscope.eval.runs.inputs import NAME as INPUTS
from fieldscope.eval.runs.ledger import Ledger
from fieldscope.eval.runs.read import COLLECTION
from fieldscope.eval.runs.runfolder import FingerprintedStrategy, RunFolder, strategy_entry
from fieldscope.eval.types import Benchmark, RunSummary
from fieldscope.retrieval.collection import Collection, FilesCollection

T = TypeVar("T")

QUERIES_AT_ONCE = 4
"""Queries that a process ranks at the same time."""

LARGE = 10_000
"""A list of more image files than this is cut to those that a run shows, once it is finished."""

_FOLDER_NAME = re.compile(r"[A-Za-z0-9][\w.+~=,-]*")


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
    lmms: Mapping[str, ModelIdentity | None] | None = None,
    limit: int | None = None,
    query_concurrency: int = QUERIES_AT_ONCE,
    budget: Budget | None = None,
    calibrations: Mapping[str, str] | None = None,
    scorers: Mapping[str, str] | None = None,
    captions: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    ledger: Ledger | None = None,
    inputs: Mapping[str, Iterable[str]] | None = None,
    live: bool = True,
    official: OfficialScores | None = None,
    images: ImageSource | None = None,
) -> list[RunSummary]:
    """Run the benchmark (its first `limit` queries) under each reranker in turn, and write `out_dir/<strategy>/`.

    The same call continues where an earlier one stopped. Queries with failed calls are asked again, and their answered
    calls come from the response cache; the result with fewer failures stays. `provenance` (JSON-able: fingerprints of
    model and encoder, seeds) goes into the manifest and decides, with benchmark, strategy and prompts, which calls may
    continue in a folder. So does the identity of the LMM that a strategy asks, or of that of each role: `lmms`, by the
    strategies' names. `budget` is what each query may spend, a reranker's account what the whole run may: its
    queries share it as they come, and those read back are charged to it. Their calls and tokens decide what is asked,
    so they belong to the manifest too; a deadline does not, since no two runs would be alike in it. `calibrations` are
    fingerprints of what was fitted for single strategies, by their names, `scorers` those of the scoring models
    that single strategies use, `captions` those of the captions that they search. `ledger`, by default the user's
    own, counts the runs in which a strategy was scored on test. `inputs` are the lines
    (`fieldscope.eval.runs.inputs`) that describe in full what a strategy's run is
    made from. `live` is false where no model stands behind the answers, so that they say nothing about it.
    `official` are the numbers that INQUIRE's own metrics are computed from, where runs are scored so. `images` are the
    benchmark's with the closer looks at them, where rerankers take any.

    Raises `ConfigError` where a folder holds another configuration, with nothing overwritten, and `LMMError` where the
    model stopped answering; whatever else a reranker raises ends the run. What was finished stays on the disk.
    """
    if (limit is not None and limit < 1) or query_concurrency < 1:
        raise ConfigError("the limit and the number of concurrent queries must be at least 1. Raise them.")
    _require_folder_names([reranker.strategy.name for reranker in rerankers])
    queries = benchmark.queries[:limit]
    configurations = {
        (name := reranker.strategy.name): {
            **_configuration(benchmark, reranker, provenance or {}, budget),
            **({"lmm": lmms[name]} if lmms and name in lmms else {}),
            **({"calibration": calibrations[name]} if calibrations and name in calibrations else {}),
            **({"scorer": scorers[name]} if scorers and name in scorers else {}),
            **({"captions": captions[name]} if captions and name in captions else {}),
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
                # Scores of an encoder come with the queries that are run, so a later call may add some.
                (folder.keep if benchmark.priors is None else folder.write)(INPUTS, inputs[name])
            if isinstance(collection := benchmark.images, Collection):
                unfinished = len(collection) > LARGE and any(query.id not in folder.results for query in queries)
                (folder.write if unfinished else folder.keep)(COLLECTION, _located(collection))
        return [
            await _run(
                benchmark,
                queries,
                reranker,
                folder,
                query_concurrency,
                budget,
                progress,
                ledger,
                live,
                (lmms or {}).get(reranker.strategy.name),
                (scorers or {}).get(reranker.strategy.name),
                official,
                images or benchmark.images,
            )
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
    lmm: ModelIdentity | None,
    scorer: str | None,
    official: OfficialScores | None,
    images: ImageSource,
) -> RunSummary:
    began = time.perf_counter()
    strategy = reranker.strategy.name
    read_back = [result for query in queries if (result := folder.results.get(query.id)) and not _failed_calls(result)]
    finished = {result.query_id for result in read_back}
    cost = Usage.of(question for result in read_back for question in result.asked)
    cost = replace(cost, cached=cost.calls)
    if reranker.account is not None:
        scored = Usage.of(score for result in read_back for score in result.scores)
        reranker.account.carry_over(cost.calls, cost.tokens + scored.tokens)
    pending = iter([query for query in queries if query.id not in finished])
    watch = ModelWatch(strategy, folder.results.values(), _models_by_call(reranker, lmm))
    writing = asyncio.Lock()

    async def aside(job: Callable[..., T], *arguments: object) -> T:
        """In a thread, so that calls in flight go on; where none are, a thread would only cost time."""
        return await asyncio.to_thread(job, *arguments) if live else job(*arguments)

    async def work() -> None:
        nonlocal cost
        for query in pending:
            result = await reranker.rerank(query, benchmark.candidates(query.id), budget=budget)
            async with writing:
                hashes = await aside(hashes_of, result, query, images)
                if live:
                    watch.add(result, hashes.keys() | _texts(result))
                before = folder.results.get(query.id)
                if before is None or _failed_calls(result) < _failed_calls(before):
                    await aside(folder.commit, result, hashes, live)
                kept = folder.results[query.id]
            spent = Usage.of(result.asked) if kept is result else _repeated(kept, result)
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
    results = {query.id: folder.results[query.id] for query in queries}
    several = lmm is not None and not isinstance(lmm, str)
    asked = (question for result in results.values() for question in result.asked)
    by_role = usage_by_role(asked, reranker.strategy.roles_by_call) if several else {}
    if scores := [score for result in results.values() for score in result.scores]:
        by_role |= {SCORER: Usage.of(scores)}
    summary = conclude(benchmark, strategy, folder, results, cost, by_role, official)
    if isinstance(benchmark.images, FilesCollection) and len(benchmark.images) > LARGE:
        folder.write(COLLECTION, _located(benchmark.images.only(_shown(benchmark, folder.results.values()))))
    watch.require_answers()
    system = reranker.strategy.fingerprint
    if benchmark.priors is not None:  # runs with the priors that the candidates came with record no encoder
        system = fingerprint([system, folder.encoder])
    times = ledger.score(benchmark.name, benchmark.split, system, folder.run_id, folder.encoder)
    folder.note_scored(times)
    return replace(summary, scored_on_test=times, lmm=lmm, scorer=scorer)


def _located(images: Collection) -> list[str]:
    """The line of `collection.json`."""
    return [json.dumps(images.locator(), ensure_ascii=False)]


def _shown(benchmark: Benchmark, results: Iterable[RerankResult]) -> set[str]:
    """The images that readers of these results look at: ranked, relevant, and reference images."""
    shown: set[str] = set()
    for result in results:
        shown.update(ranked.image_id for ranked in result.ranking)
        shown.update(image_id for image_id, gain in benchmark.qrels.get(result.query_id, {}).items() if gain > 0)
        shown.update([result.reference_image] if result.reference_image is not None else [])
    return shown


def _models_by_call(reranker: Reranker, lmm: ModelIdentity | None) -> dict[str, str]:
    """Which LMM, with its roles, answers which kind of call; empty where one answers all."""
    if lmm is None or isinstance(lmm, str):
        return {}
    roles = {model: " and ".join(having) for model, having in roles_by_model(lmm).items()}
    return {call: roles[lmm[role]] for call, role in reranker.strategy.roles_by_call.items() if role in lmm}


def hashes_of(result: RerankResult, query: Query, images: ImageSource) -> dict[str, str]:
    """Pixel hashes of the images that the model was asked about, without those that can't be read."""
    others = (*result.comparisons, *result.reasons, *result.scores)
    shown = {verdict.shown for verdict in result.verdicts if verdict.state != "not_asked"}
    shown.update(image_id for asked in others if asked.state != "not_asked" for image_id in images_of(asked))
    if query.reference_image is not None and (result.asked or result.scores):
        shown.add(query.reference_image)
    hashes = {}
    for image_id in shown:
        try:
            hashes[image_id] = images.pixel_hash(image_id)
        except ImageError:
            continue
    return hashes


def _texts(result: RerankResult) -> set[str]:
    """The documents without a picture, which can be read without one."""
    return {ranked.image_id for ranked in result.ranking if ranked.modality == "text"}


def _repeated(kept: RerankResult, again: RerankResult) -> Usage:
    """The cost of a query that was asked again without success: that of the result that stays, of which this process
    asked the model for the calls that were not cached."""
    asked = sum(not question.cached for question in again.asked)
    cost = Usage.of(kept.asked)
    return replace(cost, cached=max(cost.calls - asked, 0))


def _failed_calls(result: RerankResult) -> int:
    """How many calls and scored pairs failed and are worth repeating; a result without any is finished, also where a
    budget ended it.

    A text that could not be parsed does not count: its stage asked again or did without, and the same question would
    get the same text. Nor does a joint verdict: what a joint answer leaves open is asked one by one.
    """
    asked = (*result.asked, *result.scores)
    return sum(question.state == "unknown" and not unparsed(question) for question in asked)


def _configuration(
    benchmark: Benchmark, reranker: Reranker, provenance: Mapping[str, Any], budget: Budget | None
) -> dict[str, Any]:
    run_budget = reranker.account.budget if reranker.account else None
    limits = {
        name: {"calls": limit.max_calls, "tokens": limit.max_tokens}
        for name, limit in (("query", budget), ("run", run_budget))
        if limit is not None and (limit.max_calls, limit.max_tokens) != (None, None)
    }
    return {
        **provenance,
        **({"budget": limits} if limits else {}),
        "benchmark": {
            "name": benchmark.name,
            "split": benchmark.split,
            "fingerprint": benchmark.fingerprint,
            **({"choices": dict(benchmark.protocol.choices)} if benchmark.protocol.choices else {}),
        },
        **({"prior": benchmark.prior} if benchmark.prior else {}),
        "strategy": strategy_entry(reranker.strategy),
    }


def _require_folder_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise ConfigError(f"two strategies have the same name ({', '.join(sorted(names))}). Rename one.")
    if bad := [name for name in names if not _FOLDER_NAME.fullmatch(name)]:
        raise ConfigError(f"{bad[0]!r} can't name a run folder. Use only letters, digits and . _ + ~ = , -")
