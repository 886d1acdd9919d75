"""The median of nine pixels is Pillow's, at every pixel and at every edge."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fieldscope.retrieval.median import median_of_nine


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 1), (2, 2), (31, 20)])
def test_it_is_pillows(size: tuple[int, int]) -> None:
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    expected = picture.filter(ImageFilter.MedianFilter(3))
    assert np.array_equal(np.asarray(median_of_nine(picture)), np.asarray(expected))
