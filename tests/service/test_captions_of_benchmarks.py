"""`fieldscope caption` over the collection of a benchmark, captions from a file, and evaluations that search them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fieldscope.service.wiring.models
from fieldscope.agent.lmm.base import LMM, LMMRequest
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.core.types import ImageSource
from tests.service.conftest import FOX, SCENES, Run, World

CAPTIONED = "name: captioned\nretrieve: {caption_weight: 1.0}\nfusion: {method: prior}\n"
HALF = "name: half\nretrieve: {caption_weight: 0.5}\nfusion: {method: prior}\n"


@pytest.fixture
def strategy(tmp_path: Path) -> Path:
    """A strategy that searches captions alone."""
    path = tmp_path / "captioned.yaml"
    path.write_text(CAPTIONED)
    return path


def written(folder: Path, captions: Any) -> Path:
    path = folder / "image_caption.json"
    path.write_text(captions if isinstance(captions, str) else json.dumps(captions))
    return path


def evaluated(run: Run, strategy: Path, out: Path) -> tuple[dict[str, Any], str]:
    """A run's metrics, and what the command warned of."""
    result = run("eval", "fieldnotes", "--strategy", strategy, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)["runs"][0]["metrics"], result.stderr


def best(out: Path) -> dict[str, str]:
    """The first image of each query, by its text."""
    lines = (out / "captioned" / "results.jsonl").read_text().splitlines()
    return {line["query_text"]: line["ranking"][0]["image_id"] for line in map(json.loads, lines)}


def manifest(folder: Path) -> dict[str, Any]:
    configuration: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["configuration"]
    return configuration


def test_a_strategy_that_wants_captions_says_that_there_are_none(
    run: Run, world: World, strategy: Path, tmp_path: Path
) -> None:
    _, warned = evaluated(run, strategy, tmp_path / "without")
    assert "captioned searches captions of the images, too, but no image has one" in warned
    assert "`fieldscope caption fieldnotes --split test`" in warned
    assert "captions" not in manifest(tmp_path / "without" / "captioned")
    _, warned = evaluated(run, Path("clip"), tmp_path / "clip")
    assert "caption" not in warned


def test_captions_of_a_benchmark_are_made_once_and_searched(
    run: Run, world: World, strategy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[LMMRequest] = []

    def captioner(images: ImageSource) -> LMM:
        def answer(request: LMMRequest) -> str:
            asked.append(request)
            return FOX if request.images[0].image_id == "3" else "a green turtle"

        return ScriptedLMM(answer, identity="captioner")

    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", captioner)
    evaluated(run, strategy, tmp_path / "without")
    made = run("caption", "fieldnotes", "--prompt", "imagescope_caption", "--json")
    assert made.exit_code == 0, made.stderr
    told = json.loads(made.stdout)
    assert told["captioned"] == len(SCENES) == len(asked)
    assert run("caption", "fieldnotes", "--prompt", "imagescope_caption").exit_code == 0
    assert len(asked) == len(SCENES), "the answers are in the cache"
    _, warned = evaluated(run, strategy, tmp_path / "with")
    assert "captions of the images" not in warned
    assert best(tmp_path / "with")[FOX] == "3"
    assert len(manifest(tmp_path / "with" / "captioned")["captions"]) == 64
    refused = run("eval", "fieldnotes", "--strategy", strategy, "--out", tmp_path / "without")
    assert refused.exit_code == 1 and "another configuration (other captions)" in refused.stderr
    _, warned = evaluated(run, Path("clip"), tmp_path / "clip")
    assert "captions" not in manifest(tmp_path / "clip" / "clip"), "it weighs none"


def test_captions_from_imagescopes_file(run: Run, world: World, strategy: Path, tmp_path: Path) -> None:
    """ImageScope names images by their files, CIRCO's with leading zeros."""
    names = {f"{int(image):012d}.jpg": "a green turtle" for image in SCENES} | {"000000000004.jpg": f"  {FOX}\n"}
    made = run("caption", "fieldnotes", "--from", written(tmp_path, names), "--json")
    assert made.exit_code == 0 and json.loads(made.stdout)["captioned"] == 12, made.stderr
    assert world.asked == []
    evaluated(run, strategy, tmp_path / "with")
    assert best(tmp_path / "with")[FOX] == "4"


def test_some_captions_are_counted(run: Run, world: World, strategy: Path, tmp_path: Path) -> None:
    file = written(tmp_path, {"1": "two red crabs", "x/2.png": "a fox", "3.jpg": " ", "99": "an owl"})
    made = run("caption", "fieldnotes", "--from", file)
    assert "1 of 4 captions in" in made.stderr and "are of no image in" in made.stderr and "'99'" in made.stderr
    assert "2 of 12 images" in made.stdout and "image_caption.json has no caption for it" in made.stdout
    _, warned = evaluated(run, strategy, tmp_path / "with")
    assert "10 of 12 images have none" in warned


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "can't be read as JSON"),
        ([1], "is no JSON object of image names and captions"),
        ({"1": 2}, "image_caption.json: 1: the caption is no text"),
        ({"nowhere": "a fox"}, "has captions of 1 images, such as 'nowhere', and none of them is in"),
        ({}, "has captions of 0 images"),
    ],
)
def test_a_file_that_has_no_captions_is_refused(
    run: Run, world: World, tmp_path: Path, content: Any, said: str
) -> None:
    refused = run("caption", "fieldnotes", "--from", written(tmp_path, content))
    assert refused.exit_code == 1 and said in refused.stderr


def test_what_has_no_index_has_no_captions(run: Run, world: World) -> None:
    refused = run("caption", "fieldnotes-rerank")
    assert refused.exit_code == 1 and "fieldnotes-rerank searches no index of its own" in refused.stderr
    refused = run("caption", "nowhere")
    assert refused.exit_code == 1 and "'nowhere' holds no index" in refused.stderr


def test_runs_with_other_captions_are_not_one_recording(run: Run, world: World, strategy: Path, tmp_path: Path) -> None:
    evaluated(run, strategy, tmp_path / "without")
    names = dict.fromkeys(SCENES, "a green turtle")
    assert run("caption", "fieldnotes", "--from", written(tmp_path, names)).exit_code == 0
    half = tmp_path / "half.yaml"
    half.write_text(HALF)
    evaluated(run, half, tmp_path / "with")
    out = tmp_path / "both.tar.gz"
    refused = run("cache", "export", tmp_path / "without" / "captioned", tmp_path / "with" / "half", "-o", out)
    assert refused.exit_code == 1 and "were made with different captions" in refused.stderr
