"""A tiny random Qwen3-VL-Embedding under a real vLLM as the first stage: vectors, an index, searches, evaluations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image as PILImage

from fieldscope.retrieval.encoder import Encoder, QueryInputs, load_encoder
from fieldscope.service.cli.main import cli
from fieldscope.service.wiring.models import load_encoder as load_first_stage
from fieldscope.service.wiring.settings import Settings
from tests.vllm.server import Server, serving
from tests.vllm.tiny_checkpoints import make

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

COLORS = ("red", "blue", "teal", "gold", "black", "white")
RED, BLUE = (PILImage.new("RGB", (64, 64), color) for color in ("red", "blue"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen3-vl-embedding", tmp_path_factory.mktemp("embedder"))


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Iterator[Server]:
    with serving(folder, folder.parent / "server.log", "--runner", "pooling") as server:
        yield server


@pytest.fixture(scope="module")
def served(embedder: Server) -> Encoder:
    return load_first_stage(Settings(encoder=f"{embedder.url}#{embedder.model}"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for color in COLORS:
        PILImage.new("RGB", (64, 64), color).save(folder / f"{color}.png")
    return folder


@pytest.fixture(scope="module")
def index(embedder: Server, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index")
    invoke("index", str(pictures), "--out", str(out), "--encoder", f"{embedder.url}#{embedder.model}")
    return out


def invoke(*arguments: str) -> Any:
    result = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_its_vectors_are_those_of_the_same_model_in_process(served: Encoder, folder: Path) -> None:
    local = load_encoder(f"path:{folder}")
    assert served.uses == local.uses == {"text", "image", "instruction"}
    assert served.dim == local.dim
    images = [RED, BLUE, PILImage.new("RGB", (96, 64), "teal")]
    np.testing.assert_allclose(served.encode_images(images), local.encode_images(images), atol=2e-3)
    # Of the instruction when none is given, each has its own: the server's model is recognised by its name.
    queries = [
        QueryInputs("a red crab", instruction="Find animals."),
        QueryInputs("a red crab", instruction="Find colours."),
        QueryInputs("on snow", RED, "Find animals."),
        QueryInputs("on snow", BLUE, "Find animals."),
        QueryInputs("", BLUE, "Find animals."),
    ]
    vectors = np.stack([served.encode_query(query) for query in queries])
    np.testing.assert_allclose(vectors, np.stack([local.encode_query(query) for query in queries]), atol=2e-3)
    assert (vectors @ vectors.T - np.eye(len(queries))).max() < 0.9999  # each part of a query matters


def test_an_index_is_searched_by_words_by_a_picture_and_by_both(
    embedder: Server, served: Encoder, index: Path, pictures: Path
) -> None:
    encoder = ("--encoder", f"{embedder.url}#{embedder.model}")
    ids = [f"{color}.png" for color in COLORS]
    vectors = served.encode_images([PILImage.open(pictures / name).convert("RGB") for name in ids])
    for arguments, query in (
        ((), QueryInputs("a red crab")),
        (("--instruction", "Find animals."), QueryInputs("a red crab", None, "Find animals.")),
        (("--reference", "red.png"), QueryInputs("a red crab", RED)),
        (("--reference", "blue.png"), QueryInputs("a red crab", BLUE)),
    ):
        shown = invoke("search", "--index", str(index), "--query", "a red crab", *arguments, *encoder)
        ranking = [entry["image"] for entry in shown["ranking"]]
        expected = [ids[number] for number in np.argsort(-(vectors @ served.encode_query(query)))]
        reference = arguments[1] if "--reference" in arguments else None
        assert ranking == [name for name in expected if name != reference]


def test_another_encoder_does_not_search_its_index(index: Path) -> None:
    result = CliRunner().invoke(cli, ["search", "--index", str(index), "--query", "a crab"])
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1


def test_an_evaluation_of_composed_queries_starts_from_it(embedder: Server, tmp_path: Path) -> None:
    shown = invoke(
        *("eval", "fieldnotes-composed", "--split", "validation", "--limit", "2", "--strategy", "clip"),
        *("--encoder", f"{embedder.url}#{embedder.model}", "--out", str(tmp_path / "runs")),
    )
    [run] = shown["runs"]
    assert embedder.model in run["prior"]
    lines = (tmp_path / "runs" / "clip" / "results.jsonl").read_text().splitlines()
    results = [json.loads(line) for line in lines]
    assert len(results) == 2 and all(result["reference_image"] and result["ranking"] for result in results)
