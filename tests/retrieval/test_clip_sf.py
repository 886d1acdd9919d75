"""CLIP_SF against open_clip itself: the sum of what the towers give, on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Query
from fieldscope.retrieval.clip_sf import open_clip_sf
from fieldscope.retrieval.encoder import DocumentInputs, QueryInputs
from fieldscope.retrieval.query_vectors import QueryVectors


def test_queries_and_documents_are_the_normalised_sum_of_both_towers(clip_folder: Path) -> None:
    encoder = open_clip_sf(str(clip_folder))
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{clip_folder}")
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    picture = PILImage.fromarray(noise)
    with torch.inference_mode():
        of_picture = model.eval().encode_image(preprocess(picture)[None])[0].numpy()
        of_text = model.encode_text(tokenize(["two red crabs"]))[0].numpy()
        instructed = model.encode_text(tokenize(["a fish two red crabs"]))[0].numpy()

    def unit(vector: np.ndarray) -> np.ndarray:
        return vector / np.linalg.norm(vector)

    documents = [
        DocumentInputs("two red crabs", picture),
        DocumentInputs(image=picture),
        DocumentInputs("two red crabs"),
    ]
    expected = np.stack([unit(of_text + of_picture), unit(of_picture), unit(of_text)])
    np.testing.assert_allclose(encoder.encode_documents(documents), expected, atol=1e-6)
    both = QueryInputs("two red crabs", picture, "a fish")
    np.testing.assert_allclose(encoder.encode_query(both), unit(instructed + of_picture), atol=1e-6)
    query = Query(id="q", text="two red crabs", instruction="a fish")
    vector = QueryVectors(encoder).of(query, lambda _: expected[0], lambda _: picture)
    np.testing.assert_allclose(vector, unit(instructed), atol=1e-6)


def test_a_clip_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match="clip-sf needs a CLIP"):
        open_clip_sf("")
