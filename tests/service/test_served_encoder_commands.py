"""`--encoder URL#MODEL` on the command line, in the service and in Python: indexes, composed queries, instructions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fieldscope
from fieldscope.retrieval.manifest import read_manifest
from fieldscope.service.wiring.instructions import UNREAD
from tests.retrieval.embedders import MODEL, Embedder, of_pixels, of_words, opened
from tests.service.conftest import FOX, Run, World

RED, GREEN, BLUE = "red.png", "green.png", "blue.png"
INSTRUCTION = "Prefer what is blue, blue, blue."
pytestmark = pytest.mark.usefixtures("world")


@pytest.fixture
def embedder() -> Iterator[Embedder]:
    with Embedder().serving() as serving:
        yield serving


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Three pictures, and one that is a line of pixels."""
    folder = tmp_path / "colours"
    folder.mkdir()
    for name, colour in ((RED, "#e00000"), (GREEN, "#00e000"), (BLUE, "#0000e0")):
        Image.new("RGB", (20, 20), colour).save(folder / name)
    return folder


def encoder(embedder: Embedder) -> str:
    return f"{embedder.url}#{MODEL}"


@pytest.fixture
def index(run: Run, embedder: Embedder, colours: Path, tmp_path: Path) -> Path:
    result = run("index", colours, "-o", tmp_path / "index", "--encoder", encoder(embedder))
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "" and "3 images are searchable" in result.stdout
    return tmp_path / "index"


def found(run: Run, index: Path, embedder: Embedder, *options: object) -> dict[str, float]:
    """The priors of a search by image, best first."""
    result = run("search", "--index", index, "--encoder", encoder(embedder), *options, "--json")
    assert result.exit_code == 0, result.stderr
    return {entry["image"]: entry["prior"] for entry in json.loads(result.stdout)["ranking"]}


def similarity(query: np.ndarray, image: np.ndarray) -> Any:
    return pytest.approx(float(query @ image / np.linalg.norm(query) / np.linalg.norm(image)), abs=1e-5)


def test_an_index_is_searched_by_words(run: Run, index: Path, embedder: Embedder, colours: Path) -> None:
    priors = found(run, index, embedder, "--query", "something green")
    assert next(iter(priors)) == GREEN
    with Image.open(colours / RED) as red:
        assert priors[RED] == similarity(of_words("something green"), of_pixels(red))
    manifest = read_manifest(index)
    assert (manifest.dim, manifest.encoder_name) == (8, encoder(embedder))


def test_an_index_is_the_model_s_wherever_it_is_served(run: Run, index: Path, colours: Path) -> None:
    with Embedder().serving() as elsewhere:
        assert next(iter(found(run, index, elsewhere, "--query", "red"))) == RED
        assert run("index", colours, "-o", index, "--encoder", encoder(elsewhere)).exit_code == 0
        encoded = [body for body in elsewhere.asked if body["messages"][-1]["content"][0]["type"] == "image_url"]
    assert encoded == []
    entry = {"id": MODEL, "root": "/models/other"}
    with Embedder(pages={"/v1/models": {"data": [entry]}}).serving() as other:
        result = run("search", "--index", index, "--encoder", encoder(other), "--query", "red")
    assert result.exit_code == 1 and "use that encoder" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_composed_query_shows_the_model_both(run: Run, index: Path, embedder: Embedder, colours: Path) -> None:
    priors = found(run, index, embedder, "--query", "more green", "--reference", BLUE)
    assert list(priors) == [GREEN, RED]
    with Image.open(colours / BLUE) as blue, Image.open(colours / GREEN) as green:
        assert priors[GREEN] == similarity(of_words("more green") + of_pixels(blue), of_pixels(green))
    kinds = [part["type"] for part in embedder.asked[-1]["messages"][-1]["content"]]
    assert kinds == ["image_url", "text"]


def test_an_instruction_is_part_of_the_query_and_not_of_the_index(run: Run, index: Path, embedder: Embedder) -> None:
    assert next(iter(found(run, index, embedder, "--query", "something red"))) == RED
    instructed = found(run, index, embedder, "--query", "something red", "--instruction", INSTRUCTION)
    assert next(iter(instructed)) == BLUE
    system = embedder.asked[-1]["messages"][0]
    assert system == {"role": "system", "content": [{"type": "text", "text": INSTRUCTION}]}
    empty = run("search", "--index", index, "--encoder", encoder(embedder), "--query", "red", "--instruction", " ")
    assert empty.exit_code == 1 and "the instruction is empty" in empty.stderr


def test_an_instruction_of_a_strategy(run: Run, index: Path, embedder: Embedder, tmp_path: Path) -> None:
    strategy = tmp_path / "mine.yaml"
    strategy.write_text(f"name: mine\nretrieve:\n  instruction: {INSTRUCTION}\nfusion:\n  method: prior\n")
    assert next(iter(found(run, index, embedder, "--query", "red", "--rerank", "--strategy", strategy))) == BLUE
    result = run("rerank", "--query", "red", "--images", tmp_path / "colours", "--strategy", strategy, "--encoder",
                 encoder(embedder), "--json")  # fmt: skip
    assert json.loads(result.stdout)["ranking"][0]["image"] == BLUE, result.stderr


def test_an_instruction_that_nothing_reads_is_said_once(run: Run, world: World, tmp_path: Path) -> None:
    built = run("index", world.pictures, "-o", tmp_path / "own")
    assert built.exit_code == 0, built.stderr
    line = ("search", "--index", tmp_path / "own", "--query", FOX, "--json")
    plain, instructed = run(*line), run(*line, "--instruction", "Find animals.")
    assert json.loads(plain.stdout)["ranking"] == json.loads(instructed.stdout)["ranking"]
    assert UNREAD not in plain.stderr and instructed.stderr.count(UNREAD) == 1


def test_an_image_that_the_server_refuses_is_skipped(run: Run, colours: Path, tmp_path: Path) -> None:
    Image.new("RGB", (300, 1), "#e00000").save(colours / "line.png")

    def refuse(number: int, body: dict[str, Any]) -> Any:
        part = body["messages"][-1]["content"][0]
        if part["type"] == "image_url" and opened(part["image_url"]["url"]).height == 1:
            return 400, {}, {"error": {"message": "absolute aspect ratio must be smaller than 200, got 300.0"}}
        return None

    with Embedder(reply=refuse).serving() as embedder:
        line = ("index", colours, "-o", tmp_path / "index", "--encoder", encoder(embedder), "--json")
        first, again = run(*line), run(*line)
    for result, encoded in ((first, 3), (again, 0)):
        assert result.exit_code == 0, result.stderr
        told = json.loads(result.stdout)
        assert (result.exit_code, told["indexed"], told["encoded"]) == (0, 3, encoded)
        assert [skipped["image"] for skipped in told["skipped"]] == ["line.png"]
        assert "aspect ratio must be smaller than 200" in told["skipped"][0]["reason"]


def test_a_server_of_texts_makes_no_index(run: Run, colours: Path, tmp_path: Path) -> None:
    with Embedder(messages=False).serving() as embedder:
        result = run("index", colours, "-o", tmp_path / "index", "--encoder", encoder(embedder))
    assert result.exit_code == 1
    warning, error = result.stderr.splitlines()
    assert "encodes texts only" in warning and "takes no pictures" in error


@pytest.mark.parametrize("name", ["nonsense", "http://127.0.0.1:1", "path:nowhere", "ViT-B-99:openai"])
@pytest.mark.parametrize("command", ["index", "search", "rerank"])
def test_an_encoder_that_is_none_is_one_line(run: Run, colours: Path, index: Path, name: str, command: str) -> None:
    line = {
        "index": ("index", colours, "-o", "new"),
        "search": ("search", "--index", index, "--query", "red"),
        "rerank": ("rerank", "--query", "red", "--images", colours, "--strategy", "clip"),
    }[command]
    result = run(*line, "--encoder", name)
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_its_own_key_is_sent(run: Run, index: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSCOPE_API_KEY", "sk-all")
    found(run, index, embedder, "--query", "red")
    monkeypatch.setenv("FIELDSCOPE_API_KEY_ENCODER", "sk-encoder")
    found(run, index, embedder, "--query", "red")
    before = len(embedder.headers)
    elsewhere = ("--lmm", "http://127.0.0.1:9", "--model", "m")
    monkeypatch.delenv("FIELDSCOPE_API_KEY_ENCODER")
    found(run, index, embedder, "--query", "red", *elsewhere)
    keys = [headers.get("authorization") for headers in embedder.headers]
    assert {"Bearer sk-all", "Bearer sk-encoder"} <= set(keys[:before])
    assert set(keys[before:]) == {None}  # the key for all is for the LMM's host


def test_an_encoder_and_an_instruction_in_python(index: Path, embedder: Embedder, colours: Path) -> None:
    options: dict[str, Any] = {"encoder": encoder(embedder), "strategy": "clip"}
    assert fieldscope.search(index, "red", **options)[0].image_id == RED
    assert fieldscope.search(index, "red", instruction=INSTRUCTION, **options)[0].image_id == BLUE
    assert fieldscope.rerank("red", colours, instruction=INSTRUCTION, **options)[0].image_id == BLUE
    assert fieldscope.rerank("red", [BLUE, RED], index=index, **options)[0].image_id == RED
