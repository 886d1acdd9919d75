"""A scorer that needs no encoder."""

from collections.abc import Callable, Sequence

from PIL import Image

from fieldscope.retrieval.encoder import Encoder, QueryInputs
from fieldscope_example_plugins.colours import of_image, of_text


class ColourScorer:
    """How much of the named colours an image has, times a factor."""

    fingerprint = "colour scorer"

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def score(self, inputs: QueryInputs, images: Sequence[Image.Image]) -> list[float]:
        return [self._factor * float(of_text(inputs.text) @ of_image(image)) for image in images]


def open_scorer(argument: str, encoder: Callable[[], Encoder]) -> ColourScorer:
    return ColourScorer(float(argument or 1))
