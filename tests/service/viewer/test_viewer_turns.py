"""Requests of a dialogue that was read turn by turn are made again from the run's folder, to the recorded key."""

from __future__ import annotations

from pathlib import Path

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.eval.harness import evaluate
from fieldscope.eval.runs.inputs import input_lines
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.service.viewer.runs.rebuilt import rebuilt
from fieldscope.service.viewer.runs.run import open_run
from tests.agent.bag_of_words import DIALOGUE, Script, painted_library

SAID = {
    "is it night? yes": ("fox", "fox", "fox night"),
    "Is there Snow? no.": ("fox", "fox", "fox night tree"),
    "at night": ("fox", "fox", "fox night"),
}


async def test_every_request_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    library, strategy = painted_library(tmp_path / "pictures"), load_strategy("imagescope-published")
    change = DIALOGUE.model_copy(update={"id": "c", "text": "at night", "dialogue": (), "reference_image": "fox.png"})
    images = FolderCollection(tmp_path / "pictures")
    bench = Benchmark("mine", "validation", (DIALOGUE, change), {"d": {"fox.png": 1}, "c": {"fox.png": 1}}, images)
    agent = Agent(Resources(images, ScriptedLMM(Script(SAID)), library), strategy)
    lines = {strategy.name: input_lines(bench, strategy, None)}
    models = {strategy.name: "scripted"}
    (summary,) = await evaluate(bench, [agent], tmp_path / "runs", lmms=models, inputs=lines)
    run = open_run("published", "published", summary.out, None, None)
    for query in bench.queries:
        result = run.result(query.id)
        assert len(result.asked) > 5
        for asked in result.asked:
            made = rebuilt(run, result, asked)
            assert made is not None and made[1], asked
