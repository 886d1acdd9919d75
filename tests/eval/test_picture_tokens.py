"""What a picture costs by family: vLLM's own counts, and transformers' own processors at random sizes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from fieldscope.core.compat import prepare_torchvision
from fieldscope.eval.tuning.picture_tokens import (
    _best_tiles,
    family_of,
    idefics3,
    internvl3,
    llava_onevision,
    qwen2_5_vl,
    qwen3_vl,
    smolvlm,
    smolvlm_small,
)

COUNTED = {
    "Qwen/Qwen2.5-VL-7B-Instruct": 999,
    "Qwen/Qwen3-VL-8B-Instruct": 768,
    "google/gemma-3-4b-it": 260,
    "OpenGVLab/InternVL3-8B-hf": 3330,
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": 4725,
    "HuggingFaceM4/Idefics3-8B-Llama3": 2227,
}


@pytest.mark.parametrize("model", COUNTED)
def test_a_picture_of_1024_by_768_costs_what_vllm_counts(model: str) -> None:
    family = family_of(model)
    assert family is not None
    assert family.tokens(1024, 768) == COUNTED[model]


@pytest.mark.parametrize("model", ["gpt-5", "vl", "google/gemma-3n-E4B-it", "lmms-lab/LLaVA-OneVision-1.5-8B-Instruct"])
def test_other_families_are_not_guessed(model: str) -> None:
    assert family_of(model) is None


def test_the_two_kinds_of_smolvlm_are_told_apart() -> None:
    names = ("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "HuggingFaceTB/SmolVLM-Instruct")
    assert [family.tokens for name in names if (family := family_of(name))] == [smolvlm_small, smolvlm]


def sizes(number: int = 200) -> Iterator[tuple[int, int]]:
    chance = random.Random(0)
    for _ in range(number):
        yield chance.randint(100, 3000), chance.randint(100, 3000)


def test_qwen_agrees_with_transformers() -> None:
    prepare_torchvision()
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    for width, height in sizes():
        for rule, factor, least, most in ((qwen2_5_vl, 28, 3136, 12_845_056), (qwen3_vl, 32, 65_536, 16_777_216)):
            tall, wide = smart_resize(height, width, factor=factor, min_pixels=least, max_pixels=most)
            assert rule(width, height) == tall * wide // factor**2, (width, height)


def test_internvl_agrees_with_transformers() -> None:
    prepare_torchvision()
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    for width, height in sizes():
        columns, rows = get_optimal_tiled_canvas((height, width), (448, 448), 1, 12)
        tiles = columns * rows
        assert internvl3(width, height) == 256 * (tiles + (tiles > 1)) + 2, (width, height)


def test_llava_onevision_agrees_with_transformers() -> None:
    prepare_torchvision()
    from types import SimpleNamespace

    from transformers import LlavaOnevisionProcessor
    from transformers.image_processing_utils import select_best_resolution

    grid = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]
    processor = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)
    processor.__dict__ |= {
        "num_image_tokens": 729,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
        "image_processor": SimpleNamespace(image_grid_pinpoints=grid),
    }
    for width, height in sizes():
        tall, wide = select_best_resolution((height, width), grid)
        assert _best_tiles(width, height, 384) == (wide // 384, tall // 384)
        assert llava_onevision(width, height) == processor._get_number_of_features(height, width, 384, 384)


@pytest.mark.parametrize(
    ("rule", "longest", "tile", "tokens"),
    [(idefics3, 1456, 364, 169), (smolvlm, 1536, 384, 81), (smolvlm_small, 2048, 512, 64)],
)
def test_idefics_and_smolvlm_agree_with_transformers(
    rule: Callable[[int, int], int], longest: int, tile: int, tokens: int
) -> None:
    prepare_torchvision()
    from transformers import Idefics3ImageProcessor

    processor = Idefics3ImageProcessor(size={"longest_edge": longest}, max_image_size={"longest_edge": tile})
    options = {"size": processor.size, "max_image_size": processor.max_image_size, "do_image_splitting": True}
    for width, height in sizes(100):
        _, rows, columns = processor.get_number_of_image_patches(height, width, options)
        expected = rows * columns * (tokens + 2) + rows + tokens + 3
        assert rule(width, height) == expected, (width, height)
