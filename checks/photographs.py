"""Made photographs: noise that compresses as pictures of nature do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from fieldscope.retrieval.collection import FolderCollection

_SIZE = (500, 375)


def photograph(seed: int) -> PILImage.Image:
    """Noise whose power falls with the square of the frequency, as in photographs of nature."""
    rng = np.random.default_rng(seed)
    width, height = _SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0 / width
    planes = []
    for _ in range(3):
        waves = (rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)) / frequency**1.1
        plane = np.fft.irfft2(waves, s=(height, width))
        planes.append((plane - plane.mean()) / plane.std())
    light = planes[0]
    pixels = np.stack([light, 0.85 * light + 0.5 * planes[1], 0.85 * light + 0.5 * planes[2]], axis=-1)
    return PILImage.fromarray(np.clip(120 + 50 * pixels, 0, 255).astype(np.uint8))


def photographs(folder: Path, first: int, count: int) -> FolderCollection:
    """So many of them as JPEG files in a new folder."""
    folder.mkdir(parents=True)
    for seed in range(first, first + count):
        photograph(seed).save(folder / f"{seed:04}.jpg", quality=90)
    return FolderCollection(folder)
