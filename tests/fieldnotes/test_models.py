"""The bundled models themselves: small enough to ship, and as good as their cards say, on part of validation."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldscope.core.compat import prepare_torchvision
from fieldscope.fieldnotes.collection import ensure_pictures
from fieldscope.fieldnotes.queries import load_split
from fieldscope.fieldnotes.training.judge import answer, balanced, first_stage, single_questions
from fieldscope.fieldnotes.training.packing import Codec
from fieldscope.fieldnotes.training.pictures import PIXELS
from fieldscope.fieldnotes.vocabulary import (
    MODELS,
    known_words,
    lmm_tokenizer,
    lmm_vocabulary,
    query_words,
    unknown_words,
)
from fieldscope.retrieval.clip import ClipEncoder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return ensure_pictures("validation", tmp_path_factory.mktemp("validation"))


def test_they_are_small() -> None:
    weights = list(MODELS.rglob("*.safetensors"))
    assert len(weights) == 2
    assert sum(path.stat().st_size for path in weights) <= 25_000_000


def test_they_know_the_words_of_every_query() -> None:
    words = set(query_words())
    for model in ("clip", "lmm"):
        assert words <= known_words(model) | {","}
        for split in ("validation", "test"):
            assert not [q.text for q in load_split(split).queries if unknown_words(q.text, model)]
    assert unknown_words("a Zebra, and a zebra on the beach", "lmm") == ["zebra"]


@pytest.mark.slow
def test_the_committed_tokenizer_is_the_one_that_the_code_makes(vocabulary: list[str]) -> None:
    from transformers import AutoTokenizer

    made = lmm_vocabulary()
    committed = AutoTokenizer.from_pretrained(MODELS / "lmm")
    assert committed.get_vocab() == lmm_tokenizer(made).get_vocab()
    assert vocabulary == made


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_both_models_reach_their_bars_on_validation(files: dict[str, Path], vocabulary: list[str]) -> None:
    prepare_torchvision()
    from transformers import LlavaForConditionalGeneration

    split = load_split("validation")
    ranked, figures = first_stage(split, files, ClipEncoder.load(str(MODELS / "clip")))
    assert figures["mAP@50"] >= 0.55
    assert figures["recall@100"] >= 0.95

    model = LlavaForConditionalGeneration.from_pretrained(MODELS / "lmm", dtype=torch.float32).eval()
    codec = Codec(vocabulary)
    size = (PIXELS, PIXELS)
    pixels = np.stack(
        [np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC)) for path in files.values()]
    )
    rng = random.Random("bars")
    asked = rng.sample(list(single_questions(split, ranked, rng)), 600)
    kinds = balanced(asked, answer(model, codec, pixels, asked, rng))
    assert kinds["whole yes/no"] >= 0.9
    for kind in ("subject", "colour", "count", "behaviour", "context", "habitat"):
        assert kinds[kind] >= 0.88, kinds
