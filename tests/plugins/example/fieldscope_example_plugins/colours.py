"""Three colours, in words and in pixels."""

import numpy as np
from PIL import Image

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def of_image(image: Image.Image) -> np.ndarray:
    """The mean colour, shape (3,), length 1."""
    mean = np.asarray(image, dtype=np.float32).mean(axis=(0, 1)) + 1
    return (mean / np.linalg.norm(mean)).astype(np.float32)


def of_text(text: str) -> np.ndarray:
    """The colours that a text names, shape (3,), length 1."""
    named = np.array([name in text.lower() for name in COLOURS], dtype=np.float32) + 0.01
    return (named / np.linalg.norm(named)).astype(np.float32)
