"""A run over documents of any kind: recorded, shown in the viewer, and replayed without documents or a model."""

from __future__ import annotations

import asyncio
import html
import io
import json
from pathlib import Path

import pytest
from PIL import Image as PILImage

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import RerankResult
from fieldscope.cache.archive import Archive
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.harness import evaluate
from fieldscope.eval.runs.inputs import input_lines
from fieldscope.eval.runs.read import read_results
from fieldscope.eval.runs.recording import read_recording, write_recording
from fieldscope.eval.runs.replay import make_recording
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.documents import open_documents
from fieldscope.retrieval.looked_at import with_looks
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.pictures import Pictures
from fieldscope.service.viewer.runs.rebuilt import rebuilt
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.site import Site

WORDS = "A heron with a fish, seen at dawn."
STRATEGY = load_strategy("true-false-fused", prompts="instruct")


@pytest.fixture
def bench(tmp_path: Path) -> Benchmark:
    for name, colour in (("query", "blue"), ("picture", "red"), ("both", "green")):
        PILImage.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    lines = [
        {"id": "query", "image": "query.png"},
        {"id": "picture", "image": "picture.png"},
        {"id": "text", "text": WORDS},
        {"id": "both", "image": "both.png", "text": "Green."},
    ]
    (tmp_path / "documents.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    queries = (Query(id="q0", text="a heron"), Query(id="q1", text="what is it?", reference_image="query"))
    candidates = tuple(Candidate(name, prior) for name, prior in (("picture", 0.3), ("text", 0.2), ("both", 0.1)))
    return Benchmark(
        name="documents",
        split="validation",
        queries=queries,
        qrels={query.id: {"text": 1} for query in queries},
        images=open_documents(tmp_path / "documents.jsonl"),
        candidate_sets=dict.fromkeys(("q0", "q1"), candidates),
    )


@pytest.fixture
def runs(bench: Benchmark, tmp_path: Path) -> Path:
    """A run with its response cache beside it, `cache.sqlite`."""
    store = SqliteStore(tmp_path / "cache.sqlite")
    images = with_looks(bench.images)
    lmm = CachedLMM(ScriptedLMM(lambda request: 0.9 if "heron" in request.text else 0.2), store)

    async def run() -> None:
        agent = Agent(Resources(images, lmm), STRATEGY)
        await evaluate(
            bench,
            [agent],
            tmp_path / "runs",
            provenance={"lmm": lmm.identity, "seed": 0},
            inputs={STRATEGY.name: input_lines(bench, STRATEGY, None)},
            images=images,
        )
        await lmm.aclose()

    asyncio.run(run())
    store.close()
    return tmp_path / "runs"


def results_of(folder: Path) -> dict[str, RerankResult]:
    return dict(read_results(folder / STRATEGY.name))


def test_a_replay_needs_neither_documents_nor_a_model(runs: Path, bench: Benchmark, tmp_path: Path) -> None:
    recorded = results_of(runs)
    store = SqliteStore(tmp_path / "cache.sqlite")
    write_recording(tmp_path / "runs.fsr", [runs], store)
    store.close()
    (tmp_path / "documents.jsonl").unlink()
    recording = make_recording(read_recording(Archive(tmp_path / "runs.fsr")))
    assert recording.lmm is not None

    async def again() -> None:
        resources = Resources(recording.benchmark.images, recording.lmm)
        for query in recording.benchmark.queries:
            agent = Agent(resources, recording.runs[0].strategy)
            result = await agent.rerank(query, recording.benchmark.candidates(query.id))
            assert result.ranking == recorded[query.id].ranking
            assert all(question.cached for question in result.asked)

    asyncio.run(again())
    text = next(each for each in recorded["q0"].ranking if each.image_id == "text")
    assert (text.modality, text.text) == ("text", WORDS)


def test_the_viewer_shows_a_text_by_its_words(runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(tmp_path / "viewer-cache"))
    run_list = RunList(runs, store=tmp_path / "cache.sqlite")
    site, slug = Site(run_list, live=False), addresses.slug(STRATEGY.name)
    page = html.unescape(site.render(site.page(addresses.image_page(slug, "q0", "text"))))
    assert WORDS in page
    assert "Document" in page
    assert WORDS in html.unescape(site.render(site.page(addresses.query_page(slug, "q0"))))
    run = run_list.run(slug)
    assert run is not None
    card = Pictures(run_list).picture("pictures", run.collection_key, addresses.slug("text"))
    assert card.found
    with PILImage.open(io.BytesIO(card.webp)) as image:
        assert len(image.convert("L").getcolors(100_000) or ()) > 2  # words, not an empty card


def test_the_viewer_makes_the_very_requests_again(runs: Path, tmp_path: Path) -> None:
    run_list = RunList(runs, store=tmp_path / "cache.sqlite")
    run = run_list.run(addresses.slug(STRATEGY.name))
    assert run is not None
    for result in results_of(runs).values():
        for verdict in result.verdicts:
            made = rebuilt(run, result, verdict)
            assert made is not None
            assert made[1], (result.query_id, verdict.image_id)
