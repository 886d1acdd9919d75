"""A scorer that needs no encoder."""

from collections.abc import Callable, Sequence

from fieldscope.retrieval.encoder import Encoder, QueryInputs
from fieldscope.retrieval.scorer import Document
from fieldscope_example_plugins.colours import of_image, of_text


class ColourScorer:
    """How much of the named colours an image has, or how many of them a text names, times a factor."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self.fingerprint = f"colour scorer, times {factor:g}"

    def score(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | None]:
        colours = (of_text(item) if isinstance(item, str) else of_image(item) for item in documents)
        return [self._factor * float(of_text(inputs.text) @ colour) for colour in colours]


def open_scorer(argument: str, encoder: Callable[[], Encoder]) -> ColourScorer:
    return ColourScorer(float(argument or 1))
