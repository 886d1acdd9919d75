"""An encoder of text and reference image together."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from fieldscope.retrieval.encoder import QueryInputs
from fieldscope_example_plugins.colours import of_image, of_text


class ColourEncoder:
    """Mean colours. An argument is a text that belongs to every query."""

    dim = 3
    uses = frozenset({"text", "image", "instruction"})

    def __init__(self, argument: str = "") -> None:
        self.fingerprint = f"colours {argument}"
        self._always = argument

    def encode_query(self, inputs: QueryInputs) -> np.ndarray:
        vector = of_text(f"{self._always} {inputs.instruction or ''} {inputs.text}")
        if inputs.image is not None:
            vector = vector + 2 * of_image(inputs.image)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return np.stack([of_image(image) for image in images])
