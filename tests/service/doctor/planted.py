"""A reranker on loopback that reads words and sees shapes, and that can be broken in one place at a time."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image as PILImage

from tests.retrieval.rerankers import MODEL, Read, Reply, Reranker
from tests.service.test_doctor import name_of

__all__ = ["MODEL", "Planted"]

IMAGE = "image: "
_IDLE = {"a", "an", "that", "shows", "picture", "image"}


@cache
def seen(url: str) -> str:
    """What a data URL, or base64 alone, shows."""
    with PILImage.open(io.BytesIO(base64.b64decode(url.rpartition(",")[2]))) as image:
        return IMAGE + name_of(image)


def read_parts(given: Any) -> str:
    """vLLM's content parts."""
    if isinstance(given, str):
        return given
    parts = given["content"]
    return " ".join(part["text"] if part["type"] == "text" else seen(part["image_url"]["url"]) for part in parts)


def read_jina(given: Any) -> str:
    """Jina's objects."""
    if isinstance(given, str):
        return given
    if "content" in given:
        raise ValueError("Input should be TextDoc or ImageDoc")
    return seen(given["image"]) if "image" in given else str(given["text"])


def read_letters(given: Any) -> str:
    """An image as the letters of its data URL: what happens where a gateway makes strings of all documents."""
    if isinstance(given, str):
        return given
    part = given["content"][0] if "content" in given else given
    return str(part.get("text") or part.get("image") or part["image_url"]["url"])


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower())) - _IDLE


def relevance(query: str, document: str) -> float:
    """Between 0.03 and 0.97: the share of the query's words that the document has."""
    asked = words(query)
    return 0.03 + 0.94 * len(asked & words(document)) / max(1, len(asked))


def drawn(*parts: str) -> float:
    """A number between 0 and 1 that looks random and depends on these texts alone."""
    return int(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8], 16) / 2**32


def counted(text: str) -> int:
    """Tokens as a server counts them, those of an image by its size alone."""
    return 196 if text.startswith(IMAGE) else 1 + len(text) // 4


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def logit(p: float) -> float:
    return math.log(p / (1 - p))


Alter = Callable[[list[float], list[str]], list[Any]]
"""The scores of one request, and its documents as the server reads them -> the scores that it answers with."""


@dataclass
class Planted(Reranker):
    """A healthy reranker but for what is given. `results` rewrites the list of results of an answer; an `instructed`
    model's scores depend on the instruction. Texts are `cut` to so many characters before they are scored."""

    read: Read = read_parts
    score: Callable[[str, str], Any] = relevance
    tokens: Callable[[str], int] | None = counted
    alter: Alter = lambda scores, documents: scores
    results: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda results: results
    instructed: bool = True
    cut: int | None = None

    def answer(self, path: str, body: Any) -> Reply:
        status, headers, told = super().answer(path, body)
        if status != 200:
            return status, headers, told
        name, score = ("data", "score") if "data" in told else ("results", "relevance_score")
        results = sorted(told[name], key=lambda result: int(result["index"]))
        given = body.get("documents", body.get("text_2"))
        documents = [self.read(document) for document in given]
        query = self.read(body.get("query", body.get("text_1")))
        scores = [result[score] for result in results]
        if self.cut is not None:
            scores = [self.score(query, document[: self.cut]) for document in documents]
        if self.instructed and body.get("instruction"):
            shift = 0.2 * drawn(body["instruction"])
            scores = [value * (1 - shift) for value in scores]
        for result, value in zip(results, self.alter(scores, documents), strict=True):
            result[score] = value
        if name == "results":
            results.sort(key=lambda result: -(result[score] if result[score] == result[score] else 0))
        return status, headers, told | {name: self.results(results)}
