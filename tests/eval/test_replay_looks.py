"""A run with closer looks replays from its folder and cache alone: no model, no pictures, no proposer."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.inspection import Grounding
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.core.errors import CacheError, CacheMissError
from fieldscope.core.types import Candidate
from fieldscope.eval.harness import evaluate
from fieldscope.eval.runs.inputs import input_lines
from fieldscope.eval.runs.read import read_results
from fieldscope.eval.runs.recording import recorded_lines
from fieldscope.eval.runs.recording_lines import (
    RegionsLine,
)
from fieldscope.eval.runs.replay import make_recording
from fieldscope.eval.types import Benchmark
from fieldscope.prompts.prompt_set import load_prompt
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.looked_at import LookedAt
from tests.agent.large_frames import CANDIDATES, QUERY, SUBJECTS, Reddest, paint_frames, short_sighted, strategy_with

BOX = '{"bbox_2d": [800, 150, 920, 310]}'


@pytest.mark.parametrize("ground", [None, Grounding(prompt=load_prompt("ground"))], ids=["tiles", "boxes"])
async def test_a_run_with_looks_replays_from_its_recording(tmp_path: Path, ground: Grounding | None) -> None:
    collection = FolderCollection(paint_frames(tmp_path))
    images, strategy = LookedAt(collection), strategy_with(enhance=True, ground=ground)
    relevant = {f"{n}.png": int(n in SUBJECTS) for n in range(12)}
    given = tuple(Candidate(each.image_id, each.prior) for each in CANDIDATES)
    bench = Benchmark("frames", "validation", (QUERY,), {"q": relevant}, collection, {"q": given})
    with_store = SqliteStore(tmp_path / "cache.sqlite")
    judge = short_sighted(images)
    lmm = CachedLMM(ScriptedLMM(lambda asked: BOX if "bbox_2d" in asked.text else judge(asked)), with_store)
    agent = Agent(Resources(images, lmm, regions=Reddest(images)), strategy)
    lines = {strategy.name: input_lines(bench, strategy, None)}
    options = {"lmms": {strategy.name: lmm.identity}, "inputs": lines}
    await evaluate(bench, [agent], tmp_path / "runs", images=images, **options)
    before = read_results(tmp_path / "runs" / strategy.name)["q"]
    looks = [verdict.look for verdict in before.verdicts if verdict.look is not None]
    assert looks and any(look.proposed_by == "model" for look in looks) == (ground is not None)

    recorded = list(recorded_lines([tmp_path / "runs"], with_store))
    recording = make_recording(recorded)
    resources = Resources(recording.benchmark.images, recording.lmm, regions=recording.regions)
    again = await Agent(resources, strategy).rerank(QUERY, recording.benchmark.candidates("q"))
    assert again.ranking == before.ranking
    assert [call.text for call in again.calls] == [call.text for call in before.calls]
    assert [v.model_copy(update={"cached": True}) for v in before.verdicts] == list(again.verdicts)
    # Another strategy wants other regions, which were never proposed.
    with pytest.raises(CacheMissError, match="no regions of images were proposed"):
        await Agent(resources, strategy_with(regions=1)).rerank(QUERY, recording.benchmark.candidates("q"))
    altered = [
        line.model_copy(update={"regions": {"3.png": ((0.5, 0.5, 0.1, 2.0, 0.0),)}})
        if isinstance(line, RegionsLine)
        else line
        for line in recorded
    ]
    with pytest.raises(CacheError, match="was altered"):
        make_recording(altered)
    with_store.close()
