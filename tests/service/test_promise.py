"""A promised precision, from a labelled run to what a ranking keeps; and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import fieldscope
from tests.service.conftest import CRABS, Run, World

STRATEGY = ("--strategy", "yes-no-fused")
PROMISE = ("--precision", 0.5, "--confidence", 0.6)
"""What four labelled queries carry."""


@pytest.fixture
def labelled(run: Run, world: World, tmp_path: Path) -> Path:
    """A finished run over the four labelled queries."""
    out = tmp_path / "runs"
    evaluated = run("eval", "fieldnotes", "--split", "validation", *STRATEGY, "--out", out)
    assert evaluated.exit_code == 0, evaluated.output
    return out / "yes-no-fused"


@pytest.fixture
def search(run: Run, world: World, tmp_path: Path) -> tuple[object, ...]:
    index = tmp_path / "index"
    assert run("index", world.pictures, "-o", index).exit_code == 0
    return ("search", "--index", index, "--query", CRABS, "--rerank", *STRATEGY)


def test_a_ranking_says_what_it_keeps_and_what_is_promised(
    run: Run, labelled: Path, search: tuple[object, ...], tmp_path: Path
) -> None:
    kept, table = tmp_path / "kept", tmp_path / "found.csv"
    people = run(*search, *PROMISE, "--precision-from", labelled, "--copy-to", kept, "--csv", table)
    assert people.exit_code == 0, people.output
    said = " ".join(people.output.split())
    assert "Kept 2 of 12 images. Images with P(match) of" in said
    assert "With a confidence of 0.6, at least 0.5 of the kept images match, on average over queries like" in said
    assert sorted(path.name for path in kept.iterdir()) == ["000001.png", "000002.png"]
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert sorted(row["image"] for row in rows if row["kept"] == "True") == ["000001.png", "000002.png"]

    data = json.loads(run(*search, *PROMISE, "--precision-from", labelled, "--json").output)
    cutoff = data["cutoff"]
    assert (cutoff["precision"], cutoff["confidence"], cutoff["queries"], cutoff["kept"]) == (0.5, 0.6, 4, 2)
    assert cutoff["promise"] in said
    assert [entry["kept"] for entry in data["ranking"]] == [True] * 2 + [False] * 10
    assert all((entry["p_match"] >= cutoff["threshold"]) == entry["kept"] for entry in data["ranking"])


def test_without_a_promise_nothing_is_different(run: Run, search: tuple[object, ...]) -> None:
    data = json.loads(run(*search, "--json").output)
    assert "cutoff" not in data and "kept" not in data["ranking"][0]


def test_own_images_and_the_python_api(run: Run, labelled: Path, world: World) -> None:
    own = run("rerank", "--query", CRABS, "--images", world.pictures, *STRATEGY, *PROMISE, "--precision-from", labelled)
    assert own.exit_code == 0, own.output
    assert "Kept 2 of 12 images." in own.output
    with fieldscope.Reranker("yes-no-fused", precision_from=labelled) as reranker:
        ranking = reranker.rerank(CRABS, world.pictures, precision=0.5, confidence=0.6)
        assert ranking.kept is not None
        assert [image.image_id for image in ranking if image.kept] == list(ranking.kept.images)
        assert reranker.rerank(CRABS, world.pictures)[0].kept is None
    with pytest.raises(fieldscope.ConfigError, match="precision_from"):
        fieldscope.rerank(CRABS, world.pictures, "yes-no-fused", precision=0.5)


def test_what_can_not_be_promised(run: Run, labelled: Path, search: tuple[object, ...], world: World) -> None:
    before = len(world.asked)
    source = ("--precision-from", labelled)
    for options, message in (
        ((*PROMISE,), "a promised precision needs a labelled run. Evaluate this strategy"),
        (("--precision", 0.9, *source), "29 are needed even where every kept image matches"),
        (("--confidence", 0.9, *source), "Add --precision"),
        ((*PROMISE, "--strategy", "yes-no", *source), "the strategy 'yes-no-fused'"),
        ((*PROMISE, "--precision-from", labelled.parent), "holds no finished run"),
    ):
        refused = run(*search, *options)
        assert refused.exit_code == 1, refused.output
        assert message in " ".join(refused.output.split())
    assert run(*search, *PROMISE, *source, "--min-p", 0.5, "--copy-to", "kept").exit_code == 2
    assert len(world.asked) == before


def test_a_promise_is_for_the_models_that_were_labelled(
    run: Run, labelled: Path, search: tuple[object, ...], world: World
) -> None:
    manifest = labelled / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace('"truthful"', '"another"'), encoding="utf-8")
    before = len(world.asked)
    refused = run(*search, *PROMISE, "--precision-from", labelled)
    assert refused.exit_code == 1
    assert "(fieldnotes, validation) used another LMM. It promises nothing" in refused.output
    assert len(world.asked) == before


def test_a_test_split_decides_nothing(run: Run, search: tuple[object, ...], tmp_path: Path) -> None:
    run("eval", "fieldnotes", *STRATEGY, "--out", tmp_path / "runs")
    refused = run(*search, *PROMISE, "--precision-from", tmp_path / "runs" / "yes-no-fused")
    assert refused.exit_code == 1
    assert "may not be fitted on the split 'test'" in refused.output
