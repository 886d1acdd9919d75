"""The bodies of `/v1/embeddings`: the forms in which servers take texts and pictures, and the vectors in an answer."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from fieldscope.core.errors import LMMResponseError
from fieldscope.retrieval.encoder import Vectors

Encoding = Literal["base64", "float"]


@dataclass(frozen=True)
class Form:
    """How a server takes its input, and writes its vectors.

    With `messages` that is a conversation, as vLLM's chat embeddings have it, which may show a picture; else a text as
    OpenAI's own `input`.
    """

    messages: bool
    encoding: Encoding

    def body(self, model: str, recipe: Recipe, text: str, image: str | None, instruction: str | None) -> dict[str, Any]:
        """The request for one vector. `image` is a data URL; a form without messages has no place for it, nor for an
        `instruction`."""
        common = {"model": model, "encoding_format": self.encoding}
        if text and image is None and recipe.padding:
            common["padding"] = recipe.padding
        if not self.messages:
            return common | {"input": text}
        content: list[dict[str, Any]] = []
        if image is not None:
            content.append({"type": "image_url", "image_url": {"url": image}})
        if text or image is None:
            content.append({"type": "text", "text": text})
        system = instruction or recipe.instruction
        messages = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        # A model that embeds with its last token was trained with the answer's beginning and the tokenizer's own last
        # token there. A template of a model without conversations ignores the first, and its tokenizer needs the other.
        return common | {
            "messages": [*messages, {"role": "user", "content": content}],
            "add_generation_prompt": True,
            "add_special_tokens": True,
        }


FORMS = (Form(True, "base64"), Form(True, "float"), Form(False, "base64"), Form(False, "float"))
"""All forms, in the order in which they are tried."""


@dataclass(frozen=True)
class Recipe:
    """What a family of models needs beside its input: an `instruction` where none is given, and how texts are padded
    (vLLM's `padding`)."""

    instruction: str | None = None
    padding: str | None = None


_RECIPES = {
    r"qwen3-vl-embedding": Recipe(instruction="Represent the user's input."),  # its model card's default
    r"siglip": Recipe(padding="max_length"),  # trained without an attention mask
}


def recipe_of(*names: str) -> Recipe:
    """The recipe of the family that a model's names show."""
    for pattern, recipe in _RECIPES.items():
        if any(re.search(pattern, name, re.IGNORECASE) for name in names):
            return recipe
    return Recipe()


class _Item(BaseModel):
    embedding: str | list[float]
    index: int | None = None


class _Answer(BaseModel):
    data: list[_Item]


def read_vector(document: Any, url: str) -> Vectors:
    """The vector in an answer to a request for one, L2-normalised, shape (dim,).

    Raises `LMMResponseError` for an answer without a vector or with several, for a vector that is not the request's
    first, and for numbers that are no direction.
    """
    try:
        answer = _Answer.model_validate(document)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise LMMResponseError(
            f"{url} gave no embeddings as OpenAI's API has them ({place}: {fault['msg']}); serve a model that gives "
            "one vector for each input"
        ) from error
    if len(answer.data) != 1:
        raise LMMResponseError(f"{url} gave {len(answer.data)} vectors for one input; see the server's log")
    item = answer.data[0]
    if item.index not in (None, 0):
        raise LMMResponseError(
            f"{url} numbers its only vector {item.index} in place of 0, so it may belong to another input; see the "
            "server's log"
        )
    return _unit(_numbers(item.embedding, url), url)


def _numbers(embedding: str | list[float], url: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    if isinstance(embedding, list):
        return np.asarray(embedding, dtype=np.float64)
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float64)
    except (binascii.Error, ValueError) as error:
        raise LMMResponseError(
            f"{url} gave a vector that is no base64 of 32-bit numbers ({error}); see the server's log"
        ) from error


def _unit(numbers: np.ndarray[Any, np.dtype[np.float64]], url: str) -> Vectors:
    if not numbers.size:
        raise LMMResponseError(f"{url} gave an empty vector; serve a model that gives one vector for each input")
    if not np.isfinite(numbers).all():
        raise LMMResponseError(
            f"{url} gave a vector with {int((~np.isfinite(numbers)).sum())} of {numbers.size} numbers that are not "
            "finite; serve the model in another precision (vLLM: --dtype)"
        )
    length = float(np.linalg.norm(numbers))
    if not length:
        raise LMMResponseError(f"{url} gave a vector of zeros, which has no direction; see the server's log")
    unit: Vectors = (numbers / length).astype(np.float32)
    return unit
