"""`fieldscope label`: a file is begun from a ranking, labelled here or elsewhere, and says what it is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fieldscope.service.cli.main import cli
from tests.service.conftest import Run


@pytest.fixture
def ranking(tmp_path: Path) -> Path:
    """Of 20 images above the line, and of 30 below."""
    images = [{"image": f"{n}.png", "p_match": 0.95 if n < 20 else 0.1, "path": f"/p/{n}.png"} for n in range(50)]
    path = tmp_path / "ranking.json"
    path.write_text(json.dumps({"query": "a crab", "ranking": images}), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_labels_that_are_filled_in_elsewhere(run: Run, ranking: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    begun = run("label", path, "--ranking", ranking, "--sample", 20, "--no-prompt")
    assert begun.exit_code == 0
    assert "none of the 20 images has a label yet" in begun.output
    first, *drawn = lines(path)
    assert (first["query"], first["line"], len(first["images"]), len(drawn)) == ("a crab", 0.5, 50, 20)
    for line in drawn:
        line["label"] = "yes" if line["side"] == "above" else "no"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (first, *drawn)), encoding="utf-8")
    done = run("label", path)
    assert "10 of 10 images of the random sample match; the precision lies between 0.692 and 1.000" in done.output
    assert "0 to 9 of the 30 images match with a confidence of 0.95 (exact)" in done.output
    data = json.loads(run("label", path, "--json", "--confidence", 0.9).output)
    assert data["above"]["exact"]["low"] == pytest.approx(0.05 ** (1 / 10))
    assert (data["below"]["matches"], data["unlabelled"]) == ([0, 7], [])


def test_labels_that_are_given_here_are_kept_one_by_one(ranking: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    asked = CliRunner().invoke(cli, ["label", str(path), "--ranking", str(ranking), "--sample", "4"], input="y\nn\nq\n")
    assert asked.exit_code == 0
    assert "/p/" in asked.output
    assert [line["label"] for line in lines(path)[1:]] == ["yes", "no", None, None]
    ended = CliRunner().invoke(cli, ["label", str(path)], input="u\n")
    assert ended.exit_code == 0
    assert [line["label"] for line in lines(path)[1:]] == ["yes", "no", "unsure", None]
    assert "1 drawn images have no label yet" in ended.output


def test_what_to_look_at_next_goes_into_the_same_file(run: Run, ranking: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    run("label", path, "--ranking", ranking, "--sample", 4, "--next", 6, "--no-prompt")
    first, *drawn = lines(path)
    assert [line["how"] for line in drawn] == ["random"] * 4 + ["next"] * 6
    assert all(0 < line["probability"] < 1 for line in drawn)
    for line in drawn:
        line["label"] = line["side"] == "above"
    own = {"image": next(i["image"] for i in first["images"] if i["image"] not in {d["image"] for d in drawn})}
    rows = [first, *drawn, own | {"label": "no"}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    said = run("label", path).output
    assert "2 of 2 images of the random sample match" in said
    assert "each weighted by the probability with which it was drawn (approximate)" in said
    assert "1 labels are left out, because their images were not drawn at random" in said
    assert run("label", path, "--sample", 2).exit_code == 1


def test_a_file_is_begun_once(run: Run, ranking: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    missing = run("label", path, "--no-prompt")
    assert missing.exit_code == 1 and "Check the path, or start the file with --ranking" in missing.output
    run("label", path, "--ranking", ranking, "--no-prompt")
    again = run("label", path, "--ranking", ranking)
    assert again.exit_code == 1 and "its labels would be lost" in again.output
    moved = run("label", path, "--line", 0.7)
    assert moved.exit_code == 1 and "together with --ranking" in moved.output
