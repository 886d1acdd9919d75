"""How fast answers are replayed and re-scored. In processor time of this process: what else the machine does is not
its fault."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, TokenLogprob, Tokens
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.ordering import Fusion
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.cache.store import MemoryStore
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.harness import Reranker, evaluate
from fieldscope.eval.runs.inputs import input_lines
from fieldscope.eval.runs.read import read_results
from fieldscope.eval.runs.recording import recorded_lines
from fieldscope.eval.runs.replay import RecordedImages, make_recording
from fieldscope.eval.runs.rescore import Rescorer
from fieldscope.eval.types import Benchmark, RunSummary
from fieldscope.service.workflows.collecting import seldom_collecting

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

QUERIES, CANDIDATES = 200, 100
NAME = "yes-no"
"""The dearest strategy for each of its verdicts: every image is a task of its own, for a single question."""

OTHERS = [" yes", " no", "YES", "NO", "True", "False", *(f"word{n}" for n in range(12))]


def answer(request: LMMRequest) -> LMMResponse:
    """Twenty alternatives, as a server gives them."""
    share = int(sha256(f"{request.images[0].sha256}{request.text}".encode()).hexdigest(), 16) % 997 / 1000 + 0.001
    spoken = {"Yes": math.log(0.9 * share), "No": math.log(0.9 * (1 - share))}
    spoken |= {word: -6.0 - n for n, word in enumerate(OTHERS)}
    top = tuple(
        TokenLogprob(token=token, logprob=value) for token, value in sorted(spoken.items(), key=lambda s: -s[1])
    )
    return LMMResponse(text=top[0].token, answer_logprobs=top, usage=Tokens(prompt_tokens=100, completion_tokens=1))


def benchmark() -> Benchmark:
    chance = random.Random(0)
    ids = [str(number) for number in range(2000)]
    queries = tuple(Query(id=f"q{n:03}", text=f"a red animal, number {n}") for n in range(QUERIES))
    given = {q.id: tuple(Candidate(i, chance.random()) for i in chance.sample(ids, CANDIDATES)) for q in queries}
    judged = {query: {c.image_id: int(n % 9 == 0) for n, c in enumerate(found)} for query, found in given.items()}
    images = RecordedImages({image_id: sha256(image_id.encode()).hexdigest() for image_id in ids})
    return Benchmark("synthetic", "validation", queries, judged, images, given)


def timed(work: Callable[[], Awaitable[list[RunSummary]]]) -> tuple[RunSummary, float]:
    with seldom_collecting():
        began = time.process_time()
        (summary,) = asyncio.run(work())  # type: ignore[arg-type]
        return summary, time.process_time() - began


@pytest.mark.timeout(900)
def test_replaying_and_rescoring_keep_pace(tmp_path: Path) -> None:
    bench, store, strategy = benchmark(), MemoryStore(), load_strategy(NAME, prompts="fieldnotes")

    async def run(out: str, rerankers: Sequence[Reranker], **options: Any) -> list[RunSummary]:
        return await evaluate(bench, rerankers, tmp_path / out, **options)

    lmm = CachedLMM(ScriptedLMM(answer), store)
    inputs = {NAME: input_lines(bench, strategy, None)}
    made, asking = timed(
        lambda: run("a", [Agent(Resources(bench.images, lmm), strategy)], provenance={"lmm": "scripted"}, inputs=inputs)
    )
    recording = make_recording(recorded_lines([made.out], store))
    agent = Agent(Resources(recording.benchmark.images, recording.lmm), strategy)
    replayed, replaying = timed(lambda: run("b", [agent], live=False))
    assert (replayed.out / "run.trec").read_bytes() == (made.out / "run.trec").read_bytes()

    fused = strategy.model_copy(update={"fusion": Fusion(method="log_odds", prior_weight=0.4)})

    async def rescore() -> list[RunSummary]:
        results = read_results(made.out)
        images = make_recording(recorded_lines([made.out], None, {made.out: results})).benchmark.images
        return await run("c", [Rescorer(fused, results, Resources(images))], query_concurrency=1, live=False)

    rescored, rescoring = timed(rescore)
    assert made.asked == replayed.asked == rescored.asked
    # Of the time in which a model that costs nothing was asked, within the same process.
    assert replaying <= asking
    assert rescoring <= asking / 3
