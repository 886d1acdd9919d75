"""Encoders and rerankers in this process, by their folders, on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldscope.retrieval.cross_encoder import CrossEncoderScorer
from fieldscope.retrieval.encoder import QueryInputs, load_encoder
from tests.retrieval.tiny_models import make_siglip
from tests.service.conftest import Run
from tests.vllm.tiny_checkpoints import make

NAMES = ("red", "green", "blue", "black")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        picture(name).save(folder / f"{name}.png")
    return folder


def picture(name: str) -> Image.Image:
    return Image.new("RGB", (64, 64), name)


def ranking(result: Any) -> list[str]:
    return [entry["image"] for entry in json.loads(result.stdout)["ranking"]]


def test_an_embedder_of_pictures_and_words_makes_and_searches_an_index(run: Run, photos: Path, tmp_path: Path) -> None:
    name = f"path:{make('qwen3-vl-embedding', tmp_path)}"
    run("index", photos, "--out", tmp_path / "index", "--encoder", name)
    encoder = load_encoder(name)
    vectors = encoder.encode_images([picture(color) for color in NAMES])
    ids = [f"{color}.png" for color in NAMES]
    for arguments, query in (
        ((), QueryInputs("a red crab")),
        (("--instruction", "Find what is blue."), QueryInputs("a red crab", None, "Find what is blue.")),
        (("--reference", "red.png"), QueryInputs("a red crab", picture("red"))),
        (("--reference", "blue.png"), QueryInputs("a red crab", picture("blue"))),
    ):
        shown = ranking(
            run(
                "search",
                "--index",
                tmp_path / "index",
                "--encoder",
                name,
                "--query",
                "a red crab",
                *arguments,
                "--json",
            )
        )
        order = [ids[number] for number in np.argsort(-(vectors @ encoder.encode_query(query)))]
        assert shown == [image for image in order if image not in arguments]


def test_an_index_belongs_to_its_encoder(run: Run, photos: Path, tmp_path: Path) -> None:
    first, second = (f"path:{make_siglip(tmp_path / str(seed), seed)}" for seed in (0, 1))
    run("index", photos, "--out", tmp_path / "index", "--encoder", first)
    search = ("search", "--index", tmp_path / "index", "--query", "a red crab", "--json", "--encoder")
    assert len(ranking(run(*search, f"sentence-transformers:{first.removeprefix('path:')}"))) == len(NAMES)
    refused = run(*search, second)
    assert refused.exit_code == 1 and len(refused.stderr.splitlines()) == 1


def test_a_reranker_ranks_pictures(run: Run, photos: Path, tmp_path: Path) -> None:
    folder = make("qwen3-vl-reranker", tmp_path)
    shown = run(
        *("rerank", "--images", photos, "--query", "a red crab", "--strategy", "cross-encoder"),
        *("--scorer", f"path:{folder}", "--json"),
    )
    scores = CrossEncoderScorer.load(folder).score(QueryInputs("a red crab"), [picture(color) for color in NAMES])
    order = np.argsort([-(score or 0) for score in scores])
    assert ranking(shown) == [f"{NAMES[number]}.png" for number in order]


def test_what_can_not_be_loaded_is_one_line(run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder = f"path:{tmp_path / 'empty'}"
    for arguments in (
        ("index", photos, "--out", tmp_path / "index", "--encoder", folder),
        ("rerank", "--images", photos, "--query", "a crab", "--strategy", "cross-encoder", "--scorer", folder),
    ):
        refused = run(*arguments)
        *notes, line = refused.stderr.splitlines()
        assert refused.exit_code == 1 and str(tmp_path / "empty") in line
        assert all(note.startswith("note: ") for note in notes)
