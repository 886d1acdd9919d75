"""Runs whose data set is scored in a way of its own: the viewer has the protocol's figures, or says what it has."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.graph import Agent
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.harness import evaluate
from fieldscope.eval.protocol import PLAIN, Protocol
from fieldscope.eval.reported import CIRR, FASHIONIQ, GENERAL, Reported
from fieldscope.eval.runs.inputs import input_lines
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection
from fieldscope.service.viewer.addresses import compare_page, run_page
from fieldscope.service.viewer.runs.run import Run, open_run
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.site import Site


async def made(
    folder: Path,
    rankings: Mapping[str, Sequence[str]],
    qrels: Mapping[str, dict[str, int]],
    protocol: Protocol,
    reported: Reported,
) -> Run:
    """A run of `clip` over given candidates, every query with the reference image `ref`."""
    bench = Benchmark(
        "mine", "validation",
        tuple(Query(id=query, text="a change", reference_image="ref") for query in rankings),
        qrels, FilesCollection({}),
        candidate_sets={q: tuple(Candidate(i, -n) for n, i in enumerate(order)) for q, order in rankings.items()},
        protocol=protocol, reported=reported,
    )  # fmt: skip
    strategy = load_strategy("clip")
    agent = Agent(Resources(images=bench.images), strategy)
    await evaluate(bench, [agent], folder, inputs={"clip": input_lines(bench, strategy, None)})
    return open_run("clip", "clip", folder / "clip", None, None)


def metrics_of(run: Run) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((run.folder / "metrics.json").read_text())["metrics"]
    return told


def shown(folder: Path, address: str) -> str:
    site = Site(RunList(folder), live=False)
    return " ".join(unescape(re.sub(r"<[^>]*>", "", site.render(site.page(address)))).split())


CATEGORIES = {"d0": "dress", "d1": "dress", "d2": "dress", "s0": "shirt"}
LATE = [*"abcdefghij", "t"]
RANKINGS = {"d0": ["t", "x"], "d1": LATE, "d2": LATE, "s0": ["t", "x"]}
GARMENTS = Protocol(
    groups={query: (name,) for query, name in CATEGORIES.items()},
    group_kind="garment", by_group=True, averages={"Avg": ("recall@10", "recall@50")}, keeps_reference=True,
)  # fmt: skip


async def test_means_of_categories_stand_beside_those_of_queries(tmp_path: Path) -> None:
    run = await made(tmp_path, RANKINGS, {query: {"t": 1} for query in RANKINGS}, GARMENTS, FASHIONIQ)
    assert run.own_figures["recall@10"] == metrics_of(run)["recall@10"] == pytest.approx((1 / 3 + 1) / 2)
    assert run.own_figures["Avg"] == pytest.approx((2 / 3 + 1) / 2)
    assert sum(digest.scores["recall@10"] for digest in run.digests.values()) / 4 == 0.5  # every query alike
    page = shown(tmp_path, run_page("clip"))
    assert "As the data set reports itself, in percent: recall@10 66.7, recall@50 100.0, Avg 83.3" in page
    assert "means of the means of each garment; all other figures on this page count every query alike" in page


async def test_a_comparison_says_what_it_does_not_show(tmp_path: Path) -> None:
    for name in ("a", "b"):
        await made(tmp_path / name, RANKINGS, {query: {"t": 1} for query in RANKINGS}, GARMENTS, FASHIONIQ)
    keys = list(RunList(tmp_path).folders())
    assert "mine reports means of the means of each garment" in shown(tmp_path, compare_page(keys))


CIRR_S = Protocol(subsets={"q": ("t", "x0", "m")}, averages={"Avg": ("recall@5", "recall_subset@1")})
NAMES = ("recall@1", "recall@5", "recall@10")


@pytest.mark.parametrize(("kept", "expected"), [(False, 1.0), (True, 0.0)])
async def test_a_reference_in_the_ranking_takes_a_rank_only_where_it_is_kept(
    tmp_path: Path, kept: bool, expected: float
) -> None:
    rankings = {"q": ["ref", *(f"x{n}" for n in range(4)), "t"]}
    protocol = CIRR_S.model_copy(update={"keeps_reference": kept})
    run = await made(tmp_path, rankings, {"q": {"t": 1}}, protocol, CIRR)
    assert run.digests["q"].scores["recall@5"] == metrics_of(run)["recall@5"] == expected
    assert run.own_figures["Avg"] == expected / 2


async def test_soft_targets_count_as_the_protocol_has_them(tmp_path: Path) -> None:
    protocol = CIRR_S.model_copy(update={"credits": {"q": {"t": 1.0, "m": 0.5, "n": -1.0}}})
    run = await made(tmp_path, {"q": ["n", "x", "m", *"abcdef", "t"]}, {"q": {"t": 1}}, protocol, CIRR)
    scores = run.digests["q"].scores
    assert [scores[name] for name in NAMES] == [0.0, 0.5, 1.0] == [metrics_of(run)[name] for name in NAMES]


async def test_other_benchmarks_have_no_figures_of_their_own(tmp_path: Path) -> None:
    run = await made(tmp_path, {"q": ["t"]}, {"q": {"t": 1}}, PLAIN, GENERAL)
    assert run.own_figures == {} and "As the data set reports itself" not in shown(tmp_path, run_page("clip"))
