"""The forms in which servers take a query and documents to score, and how their answers are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError, LMMResponseError, one_line
from fieldscope.retrieval.encoder import DocumentInputs, QueryInputs
from fieldscope.retrieval.scorer import Document, PairScore, pictures_of

Encode = Callable[[PILImage.Image | str], str]
"""A picture as a data URL; a text as it is."""

Shape = Literal["parts", "parts-object", "jina", "jina-base64", "texts"]
"""How pictures are written.

    parts         vLLM: `{"content": [{"type": "image_url", "image_url": {"url": "data:..."}}]}`, a list of them
    parts-object  older vLLM: one such object, each part of which is a document
    jina          Jina: `{"image": "data:..."}`
    jina-base64   the same without the head of the data URL
    texts         not at all: Cohere's API and servers of text rerankers take strings only

A text is a string, or in Jina's shapes `{"text": ...}`. A picture is never a string: a server would read the letters of
the data URL.
"""

Endpoint = Literal["rerank", "score"]

SHAPES: tuple[Shape, ...] = ("parts", "parts-object", "jina", "jina-base64", "texts")

_PATHS: dict[str, Endpoint] = {
    "/v1/rerank": "rerank",
    "/rerank": "rerank",
    "/v2/rerank": "rerank",
    "/score": "score",
    "/v1/score": "score",
}  # fmt: skip
_BELOW: dict[str, Endpoint] = {"/rerank": "rerank", "/score": "score"}


@dataclass(frozen=True)
class Form:
    """How a server is asked: at which `path` below its address, whether that is a `rerank` or a `score` endpoint, and
    the shape of pictures."""

    path: str
    endpoint: Endpoint
    shape: Shape

    def __str__(self) -> str:
        return f"{self.path or self.endpoint} {self.shape}"

    @property
    def takes_pictures(self) -> bool:
        return self.shape != "texts"

    @property
    def takes_instructions(self) -> bool:
        """Whether there is a field for an instruction; vLLM has one."""
        return self.shape in ("parts", "parts-object")

    def body(self, model: str, inputs: QueryInputs, documents: Sequence[Document], encode: Encode) -> dict[str, Any]:
        """A request. Raises `ConfigError` for what this form can't say."""
        query = self._query(inputs, encode)
        written: Any = [self._document(document, encode) for document in documents]
        if self.shape == "parts-object" and pictures_of(documents):
            written = {"content": [_part(_one_part(document), encode) for document in documents]}
        names = ("query", "documents") if self.endpoint == "rerank" else ("text_1", "text_2")
        body = {"model": model, names[0]: query, names[1]: written}
        if inputs.instruction:
            if not self.takes_instructions:
                raise ConfigError(f"the scorer {model} takes no instruction; leave the instruction out")
            body["instruction"] = inputs.instruction
        return body

    def _query(self, inputs: QueryInputs, encode: Encode) -> Any:
        if inputs.image is None:
            return inputs.text
        if self.shape in ("parts", "parts-object"):
            words = [_part(inputs.text, encode)] if inputs.text else []
            return {"content": [_part(inputs.image, encode), *words]}
        if inputs.text and self.takes_pictures:
            raise ConfigError(
                "the scorer takes words or an image as a query, and not both; serve a model that takes both with vLLM"
            )
        return self._document(inputs.image, encode)

    def _document(self, document: Document, encode: Encode) -> Any:
        if isinstance(document, DocumentInputs):
            if self.shape != "parts":
                raise _one_at_a_time()
            return {"content": [_part(part, encode) for part in (document.image, document.text) if part]}
        if isinstance(document, str):
            return {"text": document} if self.shape in ("jina", "jina-base64") else document
        match self.shape:
            case "jina":
                return {"image": encode(document)}
            case "jina-base64":
                return {"image": encode(document).partition(",")[2]}
            case "texts":
                raise ConfigError("the scorer takes texts only, and no images; serve a multimodal reranker")
            case _:
                return {"content": [_part(document, encode)]}


def forms(endpoint: str | None, has_path: bool) -> list[Form]:
    """The forms to try at an address, those that take pictures first. `endpoint` is the one that the address names
    itself; where it has a path that names none, endpoints lie below that."""
    own = _BELOW.get(f"/{endpoint}")
    paths = {"": own} if own else _BELOW if has_path else _PATHS
    pictures = [Form(path, kind, shape) for (path, kind), shape in product(paths.items(), SHAPES[:-1])]
    return pictures + [Form(path, kind, SHAPES[-1]) for path, kind in paths.items()]


def read_scores(answer: Any, count: int) -> list[PairScore]:
    """The scores of `count` documents in an answer, by the index that each has there.

    A document without a score, with several, or with a number that is none has no score and the reason. The tokens of
    the answer are shared out among the documents. Raises `LMMResponseError` where there is no list of scores, or one of
    documents that were not sent.
    """
    results = _results(answer)
    found: dict[int, list[float | None]] = {}
    for result in results:
        index = result.get("index") if isinstance(result, Mapping) else None
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            raise LMMResponseError(
                f"the server gave a score for document {one_line(repr(index), 40)}, but {count} documents were sent; "
                "see the server's log"
            )
        found.setdefault(index, []).append(_score(result))
    tokens = (read_tokens(answer) or 0) // count
    return [_pair(found.get(index, []), tokens) for index in range(count)]


def read_tokens(answer: Any) -> int | None:
    """The tokens that a server counted for a request; None where it does not say. vLLM and Jina have `usage`, Cohere
    has `meta`."""
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    meta = answer.get("meta") if isinstance(answer, Mapping) else None
    counts = usage if isinstance(usage, Mapping) else meta.get("tokens") if isinstance(meta, Mapping) else None
    if not isinstance(counts, Mapping):
        return None
    named = (counts.get(name) for name in ("total_tokens", "prompt_tokens", "input_tokens"))
    return next((n for n in named if isinstance(n, int) and not isinstance(n, bool) and n > 0), None)


def _results(answer: Any) -> Sequence[Any]:
    """The list of scores: `results` of a rerank endpoint, `data` of a score endpoint."""
    named = [answer.get(name) for name in ("results", "data")] if isinstance(answer, Mapping) else [answer]
    results = next((results for results in named if isinstance(results, list)), None)
    if results is None:
        raise LMMResponseError(
            "the server's answer has no list of scores (`results` or `data`); check that the address is that of a "
            "server of rerankers"
        )
    return results


def _score(result: Mapping[str, Any]) -> float | None:
    score = result.get("relevance_score", result.get("score"))
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        return None
    return float(score)


def _pair(scores: Sequence[float | None], tokens: int) -> PairScore:
    if len(scores) != 1:
        times = f"{len(scores)} scores" if scores else "no score"
        return PairScore(None, f"the server gave {times} for this document", tokens)
    if scores[0] is None:
        return PairScore(None, "the server's score of this document is no finite number", tokens)
    return PairScore(scores[0], tokens=tokens)


def _one_part(document: Document) -> PILImage.Image | str:
    """Raises `ConfigError` for a picture with a text."""
    if isinstance(document, DocumentInputs):
        raise _one_at_a_time()
    return document


def _one_at_a_time() -> ConfigError:
    return ConfigError(
        "the scorer takes a picture or a text as a document, and not both; serve a model that takes both with vLLM"
    )


def _part(document: PILImage.Image | str, encode: Encode) -> dict[str, Any]:
    if isinstance(document, str):
        return {"type": "text", "text": document}
    return {"type": "image_url", "image_url": {"url": encode(document)}}
