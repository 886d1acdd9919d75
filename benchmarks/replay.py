"""How many answers a second are replayed through the graph, and re-scored without it.

    python -m benchmarks.replay [--against REVISION]

Both are measured in processor time of one process, as ratios to asking a model that costs nothing. With --against
another revision of this repository runs the same in turn, and the best rates of both are shown.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import arguments, report
from benchmarks.scripted import answer, made_benchmark
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.ordering import Fusion
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.cache.store import MemoryStore
from fieldscope.eval.harness import Reranker, evaluate
from fieldscope.eval.runs.inputs import input_lines
from fieldscope.eval.runs.read import read_results
from fieldscope.eval.runs.recording import recorded_lines
from fieldscope.eval.runs.replay import make_recording
from fieldscope.eval.runs.rescore import Rescorer
from fieldscope.eval.types import RunSummary
from fieldscope.service.workflows.collecting import seldom_collecting

QUERIES, CANDIDATES = 200, 100
TURNS = 3
"""Of each revision: the best of several is what other work on the machine disturbs least."""

NAME = "yes-no"
"""The dearest strategy for each of its verdicts: every image is a task of its own, for a single question."""


def measure(folder: Path, queries: int = QUERIES, candidates: int = CANDIDATES) -> dict[str, float]:
    """Answers a second of processor time when a model is asked, in a replay, and in a re-scoring. Raises
    `RuntimeError` where the replay ranks otherwise."""
    bench, store, strategy = (
        made_benchmark(queries, candidates),
        MemoryStore(),
        load_strategy(NAME, prompts="fieldnotes"),
    )

    async def run(out: str, rerankers: Sequence[Reranker], **options: Any) -> list[RunSummary]:
        return await evaluate(bench, rerankers, folder / out, **options)

    lmm = CachedLMM(ScriptedLMM(answer), store)
    inputs = {NAME: input_lines(bench, strategy, None)}
    made, asking = _timed(
        lambda: run("a", [Agent(Resources(bench.images, lmm), strategy)], provenance={"lmm": "scripted"}, inputs=inputs)
    )
    recording = make_recording(recorded_lines([made.out], store))
    agent = Agent(Resources(recording.benchmark.images, recording.lmm), strategy)
    replayed, replaying = _timed(lambda: run("b", [agent], live=False))
    fused = strategy.model_copy(update={"fusion": Fusion(method="log_odds", prior_weight=0.4)})

    async def rescore() -> list[RunSummary]:
        results = read_results(made.out)
        images = make_recording(recorded_lines([made.out], None, {made.out: results})).benchmark.images
        return await run("c", [Rescorer(fused, results, Resources(images))], query_concurrency=1, live=False)

    rescored, rescoring = _timed(rescore)
    if (replayed.out / "run.trec").read_bytes() != (made.out / "run.trec").read_bytes():
        raise RuntimeError("the replay ranks otherwise than the run")
    if not made.asked == replayed.asked == rescored.asked:
        raise RuntimeError("the three runs do not have the same answers")
    answers = queries * candidates
    return {"asked": answers / asking, "replayed": answers / replaying, "rescored": answers / rescoring}


def main() -> None:
    """Measure, and compare with another revision."""
    parser = arguments(__doc__)
    parser.add_argument("--against", metavar="REVISION", help="a revision of this repository, such as a tag")
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--bare", action="store_true", help="print the rates as JSON and nothing else")
    chosen = parser.parse_args()
    if chosen.bare:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder), chosen.queries)))
        return
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        trees = {"now": here}
        if chosen.against:
            trees[chosen.against] = Path(folder) / "tree"
            _checkout(chosen.against, trees[chosen.against])
        turns = [{name: _elsewhere(tree, here, chosen.queries) for name, tree in trees.items()} for _ in range(TURNS)]
        rates = {name: {of: max(turn[name][of] for turn in turns) for of in turns[0][name]} for name in trees}
        if chosen.against:
            subprocess.run(["git", "worktree", "remove", "--force", str(trees[chosen.against])], check=True)
    if chosen.against:
        before = rates[chosen.against]
        rates["times_faster"] = {name: rate / before[name] for name, rate in rates["now"].items()}
    compared = "answers a second of processor time: asked of a model that costs nothing, replayed, and re-scored"
    report("replay", compared, rates, chosen.json)


def _timed(work: Callable[[], Coroutine[Any, Any, list[RunSummary]]]) -> tuple[RunSummary, float]:
    with seldom_collecting():
        began = time.process_time()
        (summary,) = asyncio.run(work())
        return summary, time.process_time() - began


def _checkout(revision: str, tree: Path) -> None:
    subprocess.run(["git", "worktree", "add", "--detach", "--quiet", str(tree), revision], check=True)


def _elsewhere(tree: Path, here: Path, queries: int) -> dict[str, float]:
    """The rates of the sources in `tree`, measured by this script in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "fieldscope"  # links, which come before the installed sources
        package.mkdir()
        for path in (*(path for path in tree.iterdir() if path.is_dir()), *(tree / "fieldscope").glob("*.py")):
            (package / path.name).symlink_to(path)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, str(here)])}
        command = [sys.executable, "-m", "benchmarks.replay", "--bare", "--queries", str(queries)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
    rates: dict[str, float] = json.loads(done.stdout)
    return rates


if __name__ == "__main__":
    main()
