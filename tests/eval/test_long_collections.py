"""`collection.json` of a run over a long list of image files: what the run shows, once it is finished."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image as PILImage

import fieldscope.eval.harness
from fieldscope.agent.graph import Agent
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.harness import evaluate
from fieldscope.eval.runs.read import COLLECTION
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection
from fieldscope.retrieval.opening import reopen_collection

RANKED = ("1", "2", "3")


@pytest.fixture
def bench(tmp_path: Path) -> Benchmark:
    """Two queries over 50 images: three are ranked, a fourth is the answer, and a fifth the reference image."""
    files = {}
    for number in range(50):
        files[str(number)] = tmp_path / f"{number}.png"
        PILImage.new("RGB", (4, 4), (number, 0, 0)).save(files[str(number)])
    queries = (Query(id="a", text="a", reference_image="9"), Query(id="b", text="b"))
    candidates = tuple(Candidate(image, 1.0 / int(image)) for image in RANKED)
    return Benchmark(
        name="long",
        split="test",
        queries=queries,
        qrels={"a": {"8": 1, "7": 0}, "b": {"1": 1}},
        images=FilesCollection(files),
        candidate_sets={"a": candidates, "b": candidates},
    )


async def listed(bench: Benchmark, out: Path, limit: int | None = None) -> list[str]:
    agent = Agent(Resources(images=bench.images), load_strategy("clip"))
    (summary,) = await evaluate(bench, [agent], out, limit=limit)
    collection = reopen_collection(json.loads((summary.out / COLLECTION).read_text()))
    assert collection.load("1").size == (4, 4)
    return list(collection.ids())


async def test_a_short_list_is_kept_whole(bench: Benchmark, tmp_path: Path) -> None:
    assert len(await listed(bench, tmp_path / "runs")) == 50


async def test_a_long_list_is_cut_to_what_the_run_shows(
    bench: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fieldscope.eval.harness, "LARGE", 49)
    assert await listed(bench, tmp_path / "runs", 1) == ["1", "2", "3", "8", "9"]
    more = replace(bench, qrels={**bench.qrels, "b": {"12": 1}})
    assert await listed(more, tmp_path / "more") == [*RANKED, "8", "9", "12"]
