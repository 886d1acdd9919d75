"""What a model thought before its answer is shown wherever a verdict is explained, as text and nothing else."""

from __future__ import annotations

import asyncio
import html
import re
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, TokenLogprob, Tokens
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import Verdict
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.harness import evaluate
from fieldscope.eval.runs.inputs import input_lines
from fieldscope.eval.runs.read import read_results
from fieldscope.eval.runs.recording import recorded_lines
from fieldscope.eval.runs.replay import make_recording
from fieldscope.eval.runs.rescore import Rescorer
from fieldscope.eval.types import Benchmark
from fieldscope.service.cli.main import cli
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.runs.rebuilt import rebuilt
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.site import Site
from tests.agent.oracle import paint

SCRIPT = "<script>alert('thought')</script>"
IMAGES = ("00.png", "01.png", "02.png")
QUERY = Query(id="q1", text="two red crabs on a beach")

WAYS = {
    "reasoned": {"verify.reason.thoughts": 3, "verify.reason.within": [0.3, 0.7]},
    "samples": {"verify.samples": 3, "verify.reason": {"whole": "reason_yes_no", "thoughts": 2}},
    "stated": {"verify.prompt": "state_yes_no", "verify.reason": None},
}


def thinking(request: LMMRequest) -> LMMResponse:
    """Unsure at first; after a thought sure of the first image."""
    (image,) = request.images
    yes = image.image_id == IMAGES[0]
    used = Tokens(prompt_tokens=9, completion_tokens=3)
    if request.json_schema is not None:
        return LMMResponse(text=f'{{"probability": {0.75 if yes else 0.25}}}', usage=used)
    reasons = request.max_tokens > 1
    logprobs = {"Yes": -0.05, "No": -3.0} if yes else {"No": -0.05, "Yes": -3.0}
    return LMMResponse(
        text="Yes." if yes else "No.",
        thought=f"Draw {request.sample} of {image.image_id}: {SCRIPT} & two crabs" if reasons else "",
        answer_logprobs=tuple(TokenLogprob(token=t, logprob=v if reasons else -0.7) for t, v in logprobs.items())
        if request.top_logprobs
        else (),
        usage=used,
    )


def strategy(way: str) -> Strategy:
    return load_strategy("reasoned", WAYS[way]).model_copy(update={"name": way})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run for each way, and its response cache beside them."""
    folder = tmp_path_factory.mktemp("thoughts")
    (folder / "images").mkdir()
    images = paint(folder / "images")
    candidates = tuple(Candidate(name, 0.1 * n) for n, name in enumerate(IMAGES))
    benchmark = Benchmark(
        name="thoughts", split="test", queries=(QUERY,), qrels={QUERY.id: {IMAGES[0]: 1}}, images=images,
        candidate_sets={QUERY.id: candidates},
    )  # fmt: skip
    with closing(SqliteStore(folder / "responses.sqlite")) as store:
        lmm = CachedLMM(ScriptedLMM(thinking), store)
        agents = [Agent(Resources(images=images, lmm=lmm), strategy(way)) for way in WAYS]
        lines = {agent.strategy.name: input_lines(benchmark, agent.strategy, None) for agent in agents}
        asyncio.run(evaluate(benchmark, agents, folder / "runs", inputs=lines, provenance={"lmm": "scripted"}))
    return folder


def verdicts(runs: Path, way: str) -> dict[str, Verdict]:
    return {v.image_id: v for v in read_results(runs / "runs" / way)[QUERY.id].verdicts}


def page_of(runs: Path, way: str, image_id: str) -> str:
    site = Site(RunList(runs / "runs", store=runs / "responses.sqlite"), live=False)
    return site.render(site.page(addresses.image_page(addresses.slug(way), QUERY.id, image_id)))


@pytest.mark.parametrize("way", ["reasoned", "samples"])
def test_thoughts_are_kept_and_shown_on_the_image_page(runs: Path, way: str) -> None:
    verdict = verdicts(runs, way)[IMAGES[0]]
    thought = f"Draw 0 of {IMAGES[0]}: {SCRIPT} & two crabs"
    assert verdict.reasoned and verdict.thought == thought
    page = page_of(runs, way, IMAGES[0])
    assert SCRIPT not in page
    said = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    for draw in verdict.draws:
        if draw.reasoned:
            assert draw.thought in said and draw.request_key is not None and draw.request_key in said
    assert "reasoned first" in said and "Thought before the answer" in said
    assert ("share of" in said) == (way == "samples")


def test_a_stated_probability_says_so(runs: Path) -> None:
    assert "stated probability" in page_of(runs, "stated", IMAGES[1])
    assert verdicts(runs, "stated")[IMAGES[0]].p_yes == 0.75


@pytest.mark.parametrize("way", WAYS)
def test_every_call_can_be_rebuilt(runs: Path, way: str) -> None:
    run = RunList(runs / "runs", store=None).run(addresses.slug(way))
    assert run is not None
    result = run.result(QUERY.id)
    assert len(result.asked) == {"reasoned": 12, "samples": 6, "stated": 3}[way]
    for asked in result.asked:
        again = rebuilt(run, result, asked)
        assert again is not None and again[1], asked


@pytest.mark.parametrize("options", [(), ("--why", IMAGES[0])])
def test_the_terminal_shows_thoughts(runs: Path, options: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli, ["trace", str(runs / "runs" / "reasoned"), QUERY.id, *options])
    assert shown.exit_code == 0, shown.output
    said = " ".join(shown.output.split())
    assert all(f"Draw {n} of {IMAGES[0]}" in said for n in range(3)), shown.output
    assert "the mean of 3 answers after a thought" in said


@pytest.mark.parametrize("way", WAYS)
def test_a_replay_and_a_rescoring_give_the_same_verdicts(runs: Path, way: str, tmp_path: Path) -> None:
    folder = runs / "runs" / way
    with closing(SqliteStore(runs / "responses.sqlite")) as store:
        recording = make_recording(recorded_lines([folder], store))

        def stored(key: str) -> str | None:
            entry = store.get(key)
            return entry and entry.response

        resources = Resources(recording.benchmark.images, recording.lmm)
        replayed = Agent(resources, strategy(way))
        rescored = Rescorer(strategy(way), read_results(folder), resources, stored)
        for n, reranker in enumerate((replayed, rescored)):
            out = tmp_path / str(n)
            asyncio.run(evaluate(recording.benchmark, [reranker], out, live=False))
            again = {v.image_id: v for v in read_results(out / way)[QUERY.id].verdicts}
            for image_id, verdict in verdicts(runs, way).items():
                assert again[image_id].p_yes == verdict.p_yes and again[image_id].thought == verdict.thought
                assert [d.request_key for d in again[image_id].draws] == [d.request_key for d in verdict.draws]
