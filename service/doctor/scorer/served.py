"""What can be asked of a scorer behind a server only: lists in one request, and the tokens that it counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError, LMMError
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.rerank_forms import forms
from fieldscope.retrieval.scorer import Scorer
from fieldscope.retrieval.served_scorer import ServedScorer

_DOCUMENTS = 1000
_SIDE = 64  # pixels
_QUERY = QueryInputs("a red circle")


@dataclass(frozen=True)
class Spelled:
    """Tokens that a server counts for a grey image and for one of noise, of the same size, in a `form` of request. A
    model that sees has as many for both; one that reads the letters of a data URL has more for noise."""

    form: str
    grey: int
    noise: int


def in_one_request(scorer: Scorer) -> Scorer:
    """The scorer as it sends all documents of a call together. Fieldscope itself asks a server about one document a
    request; other clients send lists."""
    if isinstance(scorer, ServedScorer) and scorer.found is not None:
        return scorer.using(scorer.found.form, _DOCUMENTS)
    return scorer


def spelled_images(scorer: Scorer) -> Spelled | None:
    """The first form in which the server takes images and reads them as text, by the tokens that it counts; None where
    there is none, or it counts no tokens."""
    if not isinstance(scorer, ServedScorer):
        return None
    noise = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
    images = [PILImage.new("RGB", (_SIDE, _SIDE), "gray"), PILImage.fromarray(noise)]
    for form in forms(scorer.server.endpoint, scorer.server.has_path):
        if not form.takes_pictures:
            continue
        try:
            grey, noisy = (scorer.using(form, 1).ask(_QUERY, [image])[0] for image in images)
        except (LMMError, ConfigError):
            continue
        if grey.value is not None and grey.tokens and noisy.tokens != grey.tokens:
            return Spelled(str(form), grey.tokens, noisy.tokens)
    return None
