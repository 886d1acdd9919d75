"""How many tokens a picture costs, by the family of the model: what each family's image processor does with its size.

Functions of the width and the height in pixels that reach the server. Each follows the processor of that name in
Hugging Face's transformers with its default settings; a server may have others (vLLM: `--mm-processor-kwargs`). The
figures for 1,024 x 768 pixels were compared with prompts that vLLM counted: 999 tokens for Qwen2.5-VL, 768 for
Qwen3-VL, 260 for Gemma 3, 3,330 for InternVL3, 4,725 for LLaVA-OneVision and 2,227 for Idefics3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

TOKENS_PER_PICTURE = 600
"""What a picture is taken to cost where the model's family is not known."""


@dataclass(frozen=True)
class Family:
    """A family of models with one rule; `named` finds it in a model's name, in small letters."""

    name: str
    named: re.Pattern[str]
    tokens: Callable[[int, int], int]


def family_of(model: str) -> Family | None:
    """The family of a model by its name, as in `Qwen/Qwen3-VL-8B-Instruct`; None where it is none of those below."""
    name = model.casefold()
    return next((family for family in FAMILIES if family.named.search(name)), None)


def qwen2_5_vl(width: int, height: int) -> int:
    """A token for each 28 x 28 pixels (2 x 2 patches of 14), between 3,136 and 12,845,056 pixels in all."""
    return _merged_patches(width, height, 28, 56 * 56, 12_845_056)


def qwen3_vl(width: int, height: int) -> int:
    """A token for each 32 x 32 pixels (2 x 2 patches of 16), between 65,536 and 16,777,216 pixels in all."""
    return _merged_patches(width, height, 32, 65_536, 16_777_216)


def gemma_3(width: int, height: int) -> int:
    """256 tokens for any picture, and four around them (no pan and scan)."""
    return 256 + 4


def internvl3(width: int, height: int) -> int:
    """256 tokens for each of 1 to 12 tiles of 448 x 448 pixels, in the grid whose shape is the closest, for a small
    picture of the whole beside several tiles, and two around them."""
    grids = sorted((grid for grid in product(range(1, 13), repeat=2) if math.prod(grid) <= 12), key=math.prod)
    best, closest = (1, 1), math.inf
    for columns, rows in grids:
        distance = abs(width / height - columns / rows)
        larger = distance == closest and width * height > 0.5 * 448 * 448 * columns * rows
        if distance < closest or larger:
            best, closest = (columns, rows), distance
    tiles = math.prod(best)
    return 256 * (tiles + (tiles > 1)) + 2


def llava_onevision(width: int, height: int) -> int:
    """A small picture of the whole (27 x 27 tokens of 384 x 384 pixels) and the picture in tiles of that size without
    its padding, with a token at the end of each row; at most what nine tiles have."""
    columns, rows = _best_tiles(width, height, 384)
    tall, wide = 27 * rows, 27 * columns
    if width / height > wide / tall:
        tall -= 2 * ((tall - int(round(height * wide / width, 7))) // 2)
    else:
        wide -= 2 * ((wide - int(round(width * tall / height, 7))) // 2)
    ratio = math.sqrt(tall * wide / (9 * 27 * 27))
    if ratio > 1.1:
        tall, wide = int(tall // ratio), int(wide // ratio)
    return 27 * 27 + tall * wide + tall


def idefics3(width: int, height: int) -> int:
    """169 tokens for each tile of 364 x 364 pixels of the picture with 1,456 pixels on its longer side, and for a small
    one of the whole, with the tokens of rows and columns."""
    return _rows_and_columns(width, height, tile=364, longest=1456, tokens=169)


def smolvlm(width: int, height: int) -> int:
    """81 tokens for each tile of 384 x 384 pixels, 1,536 on the longer side; else as Idefics3."""
    return _rows_and_columns(width, height, tile=384, longest=1536, tokens=81)


def smolvlm_small(width: int, height: int) -> int:
    """SmolVLM of 256 and 500 million parameters: 64 tokens for each tile of 512 x 512 pixels, 2,048 on the longer
    side."""
    return _rows_and_columns(width, height, tile=512, longest=2048, tokens=64)


FAMILIES = (
    Family("Qwen2.5-VL", re.compile(r"qwen-?2[.-]?5-?vl"), qwen2_5_vl),
    Family("Qwen3-VL", re.compile(r"qwen-?3-?vl"), qwen3_vl),
    Family("Gemma 3", re.compile(r"gemma-?3(?!n)"), gemma_3),
    Family("InternVL3", re.compile(r"internvl-?3"), internvl3),
    Family("LLaVA-OneVision", re.compile(r"llava-?onevision(?!-?1[.]5)"), llava_onevision),
    Family("Idefics3", re.compile(r"idefics-?3"), idefics3),
    Family("SmolVLM", re.compile(r"smolvlm2?-?(256|500)m"), smolvlm_small),
    Family("SmolVLM", re.compile(r"smolvlm"), smolvlm),
)
"""The first that is in a name counts."""


def _merged_patches(width: int, height: int, side: int, fewest: int, most: int) -> int:
    tall, wide = (max(side, round(length / side) * side) for length in (height, width))
    if tall * wide > most:
        scale = math.sqrt(width * height / most)
        tall, wide = (max(side, math.floor(length / scale / side) * side) for length in (height, width))
    elif tall * wide < fewest:
        scale = math.sqrt(fewest / (width * height))
        tall, wide = (math.ceil(length * scale / side) * side for length in (height, width))
    return (tall // side) * (wide // side)


def _best_tiles(width: int, height: int, side: int) -> tuple[int, int]:
    """Columns and rows, of 1 to 6 each, that keep most of the picture's pixels, and of these waste the fewest."""
    best, kept, wasted = (1, 1), 0, math.inf
    for rows, columns in product(range(1, 7), repeat=2):
        box = (side * columns, side * rows)
        scale = min(box[0] / width, box[1] / height)
        pixels = min(int(width * scale) * int(height * scale), width * height)
        waste = math.prod(box) - pixels
        if pixels > kept or (pixels == kept and waste < wasted):
            best, kept, wasted = (columns, rows), pixels, waste
    return best


def _rows_and_columns(width: int, height: int, tile: int, longest: int, tokens: int) -> int:
    shorter = int(longest * min(width, height) / max(width, height))
    sides = (longest, max(1, shorter + shorter % 2))
    columns, rows = (math.ceil(side / tile) for side in sides)
    return columns * rows * (tokens + 2) + (rows if width >= height else columns) + tokens + 3
