"""One-word embeddings: the last state of the prompt that asks for a word, as transformers itself computes it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from fieldscope.agent.lmm.one_word import DESCRIBE, OneWordEncoder, open_one_word
from fieldscope.core.errors import ConfigError
from fieldscope.retrieval.encoder import DocumentInputs, QueryInputs

PICTURE = PILImage.new("RGB", (20, 20), "red")


def by_hand(folder: Path, text: str, *pictures: PILImage.Image) -> np.ndarray:
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype="float32").eval()
    content = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=list(pictures) or None, text=prompt, return_tensors="pt")
    with torch.no_grad():
        state = model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1].numpy()
    return state / np.linalg.norm(state)


def test_a_vector_is_the_last_state_of_the_prompt(tiny_llava: Path) -> None:
    encoder = OneWordEncoder.load(str(tiny_llava), dtype="float32")
    words, picture, both = encoder.encode_documents(
        [DocumentInputs("a crab"), DocumentInputs("", PICTURE), DocumentInputs("a crab", PICTURE)]
    )
    np.testing.assert_allclose(words, by_hand(tiny_llava, f"a crab\n{DESCRIBE}"), atol=1e-4)
    np.testing.assert_allclose(picture, by_hand(tiny_llava, DESCRIBE, PICTURE), atol=1e-4)
    np.testing.assert_allclose(both, by_hand(tiny_llava, f"a crab\n{DESCRIBE}", PICTURE), atol=1e-4)
    assert encoder.dim == len(words)
    np.testing.assert_allclose(encoder.encode_images([PICTURE])[0], picture, atol=1e-5)


def test_a_query_names_the_wanted_kind_in_front_and_its_instruction_is_asked(tiny_llava: Path) -> None:
    encoder = OneWordEncoder.load(str(tiny_llava), dtype="float32")
    query = QueryInputs("a crab", PICTURE, "Find a match.", "image,text")
    expected = by_hand(tiny_llava, "[image,text] a crab\nFind a match in one word:", PICTURE)
    np.testing.assert_allclose(encoder.encode_query(query), expected, atol=1e-4)


def test_a_model_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match="one-word needs an LMM"):
        open_one_word("")
