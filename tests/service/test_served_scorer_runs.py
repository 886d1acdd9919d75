"""Strategies with a scoring model behind a server, end to end: evaluate, search, rerank, replay, refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.fieldnotes.render import render
from tests.retrieval.rerankers import MODEL, Reranker
from tests.service.conftest import CRABS, RELEVANT, SCENES, Run, World


@pytest.fixture
def reranker(world: World) -> Iterator[Reranker]:
    """A server that knows which picture fits which query."""
    ids = {f"image:{fingerprint_pixels(render(scene))}": image_id for image_id, scene in SCENES.items()}

    def score(query: str, document: str) -> float:
        image_id = ids.get(document, f"{int(document[-4:], 16)}" if document.startswith("image:") else "0")
        return (1.0 if image_id in RELEVANT.get(query, ()) else 0.1) + int(image_id) / 1000

    with Reranker(score=score).serving() as served:
        yield served


def evaluate(run: Run, reranker: Reranker, out: Path, *more: str) -> Any:
    strategies = ("--strategy", "clip", "cross-encoder")
    return run("eval", "fieldnotes-rerank", *strategies, *scorer(reranker), "--out", out, "--json", *more)


def scorer(reranker: Reranker) -> tuple[str, ...]:
    """The server knows the pictures by their pixels, so they travel without any loss."""
    return ("--scorer", f"{reranker.url}#{MODEL}", "--image-format", "png")


def rankings(folder: Path) -> list[tuple[str, list[str]]]:
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    results = sorted((json.loads(line) for line in lines), key=lambda result: result["query_id"])
    return [(each["query_id"], [ranked["image_id"] for ranked in each["ranking"]]) for each in results]


def test_a_reranker_is_a_strategy_and_a_rerun_asks_nothing(run: Run, reranker: Reranker, tmp_path: Path) -> None:
    first = evaluate(run, reranker, tmp_path / "runs")
    assert first.exit_code == 0, first.stderr
    clip, crossed = json.loads(first.stdout)["runs"]
    best = {query_id: ids[0] for query_id, ids in rankings(tmp_path / "runs" / "cross-encoder")}
    assert best == {"q000": "2", "q001": "6", "q002": "8", "q003": "10"}
    assert crossed["metrics"]["mAP@50"] == 1.0
    pairs = crossed["by_role"]["scorer"]["calls"]
    assert (pairs, crossed["cost"]["calls"]) == (4 * len(SCENES), 0)
    assert "by_role" not in clip
    manifest = json.loads((tmp_path / "runs" / "cross-encoder" / "manifest.json").read_text(encoding="utf-8"))
    assert json.dumps(manifest).count(f"scorer:{MODEL}#png<=1024#/v1/rerank parts#root=") == 1
    assert "scorer:" not in (tmp_path / "runs" / "clip" / "manifest.json").read_text(encoding="utf-8")
    asked = len(reranker.asked)
    assert asked == 2 + pairs
    evaluate(run, reranker, tmp_path / "runs")
    assert evaluate(run, reranker, tmp_path / "again").exit_code == 0
    assert len(reranker.asked) == asked
    assert rankings(tmp_path / "again" / "cross-encoder") == rankings(tmp_path / "runs" / "cross-encoder")


def test_another_scorer_does_not_continue_a_run(run: Run, reranker: Reranker, tmp_path: Path) -> None:
    assert evaluate(run, reranker, tmp_path / "runs", "--limit", "1").exit_code == 0
    reranker.pages["/version"] = {"version": "9.9.9"}
    other = evaluate(run, reranker, tmp_path / "runs", "--limit", "1")
    assert other.exit_code == 1 and "scorer" in other.stderr


def test_a_run_replays_from_its_folder_and_from_a_file(
    run: Run, reranker: Reranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, file = tmp_path / "runs", tmp_path / "file.fieldscope"
    evaluate(run, reranker, runs)
    asked = len(reranker.asked)
    for line in (("eval", "--replay", runs), ("eval", "fieldnotes-rerank", "--replay", "--strategy", "cross-encoder")):
        named = scorer(reranker) if len(line) > 3 else ()
        out = tmp_path / f"replayed-{len(line)}"
        result = run(*line, *named, "--out", out, "--json")
        assert result.exit_code == 0, result.stderr
        assert rankings(out / "cross-encoder") == rankings(runs / "cross-encoder")
    assert run("cache", "export", runs, "-o", file).exit_code == 0
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(tmp_path / "empty"))
    result = run("eval", "--replay", file, "--out", tmp_path / "elsewhere", "--json")
    assert result.exit_code == 0, result.stderr
    assert rankings(tmp_path / "elsewhere" / "cross-encoder") == rankings(runs / "cross-encoder")
    assert len(reranker.asked) == asked


def test_pairs_without_a_score_replay_as_such(run: Run, reranker: Reranker, tmp_path: Path) -> None:
    owl = f"image:{fingerprint_pixels(render(SCENES['5']))}"
    scored = reranker.score
    reranker.score = lambda query, document: float("nan") if document == owl else scored(query, document)
    result = evaluate(run, reranker, tmp_path / "runs")
    assert result.exit_code == 0, result.stderr
    assert "4 of 48" in result.stderr and "8.3 %" in result.stderr
    assert evaluate(run, reranker, tmp_path / "strict", "--max-unknown", "0.05").exit_code == 1
    replayed = run("eval", "--replay", tmp_path / "runs", "--out", tmp_path / "replayed", "--json")
    assert replayed.exit_code == 0, replayed.stderr
    assert "4 of 48" in replayed.stderr
    assert rankings(tmp_path / "replayed" / "cross-encoder") == rankings(tmp_path / "runs" / "cross-encoder")


def test_a_scorer_that_stops_ends_the_run(run: Run, reranker: Reranker, tmp_path: Path) -> None:
    reranker.reply = lambda number, path, body: (500, {}, {"detail": "out of memory"}) if number >= 2 else None
    result = evaluate(run, reranker, tmp_path / "runs", "--attempts", "1")
    assert result.exit_code == 1
    assert "cross-encoder, scorer" in result.stderr and "out of memory" in result.stderr
    reranker.reply = lambda number, path, body: None
    assert evaluate(run, reranker, tmp_path / "runs").exit_code == 0
    assert json.loads((tmp_path / "runs" / "cross-encoder" / "metrics.json").read_text())["metrics"]["mAP@50"] == 1.0


def test_one_query_is_scored_in_a_search_and_over_images(run: Run, reranker: Reranker, world: World) -> None:
    named = ("--strategy", "cross-encoder", *scorer(reranker), "--json")
    ranked = run("rerank", "--query", CRABS, "--images", world.pictures, *named)
    assert ranked.exit_code == 0, ranked.stderr
    told = json.loads(ranked.stdout)
    assert {entry["image"] for entry in told["ranking"][:2]} == {"000001.png", "000002.png"}
    assert told["models"] == {"clip": "bundled", "lmm": None, "scorer": f"{reranker.url}#{MODEL}"}
    index = world.cache / "index"
    assert run("index", world.pictures, "-o", index).exit_code == 0
    asked = len(reranker.asked)
    found = run("search", "--index", index, "--query", CRABS, "--rerank", *named)
    assert found.exit_code == 0, found.stderr
    assert {entry["image"] for entry in json.loads(found.stdout)["ranking"][:2]} == {"000001.png", "000002.png"}
    assert len(reranker.asked) == asked  # the same pixels, whatever their names
    reranker.reply = lambda number, path, body: (500, {}, {"detail": "out of memory"})
    failed = run("rerank", "--query", "a fox", "--images", world.pictures, *named, "--attempts", "1")
    assert failed.exit_code == 1 and "gave none of 12 scores" in failed.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("eval", "fieldnotes-rerank", "--strategy", "cross-encoder"), "'cross-encoder' needs a scoring model"),
        (("eval", "fieldnotes-rerank", "--strategy", "clip", "--scorer", "http://h#m"), "no stage of 'clip' uses"),
        (("rerank", "--query", CRABS, "--images", ".", "--strategy", "cross-encoder"), "needs a scoring model"),
        (("eval", "--replay", "FILE", "--scorer", "http://h#m"), "leave --lmm, --encoder and --scorer out"),
    ],
)
def test_what_does_not_go_together_is_refused(run: Run, world: World, line: tuple[str, ...], words: str) -> None:
    result = run(*(world.pictures if word == "." else word for word in line))
    assert result.exit_code in (1, 2)
    assert words in result.stderr
