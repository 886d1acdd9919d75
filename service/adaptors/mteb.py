"""MTEB: an encoder of texts and images, and a reranker of images, as its evaluations take them (the extra `mteb`).

mteb.evaluate(FieldscopeEncoder("ViT-L-14:openai"), task, prediction_folder="predictions")
mteb.evaluate(FieldscopeReranker(ranker), task.convert_to_reranking("predictions", top_k=100))
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction

from fieldscope.core.errors import ConfigError
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.service.adaptors.documents import GivenDocument
from fieldscope.service.adaptors.opening import open_ranker
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.settings import BUNDLED, Settings

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from fieldscope.retrieval.encoder import Encoder, Vectors
    from fieldscope.service.adaptors.opening import GivenRanker


class FieldscopeEncoder(AbsEncoder):
    """A first stage as an MTEB model (`EncoderProtocol`): queries of words, and images.

    `encoder` is `"bundled"`, any other name that `--encoder` takes, or a `fieldscope.Encoder`. Queries with an image
    need an encoder that reads both. Raises `ConfigError`.
    """

    def __init__(self, encoder: str | Encoder = BUNDLED) -> None:
        name = encoder if isinstance(encoder, str) else type(encoder).__name__
        named = Settings(encoder=None if encoder == BUNDLED else name)
        self.model: Encoder = load_encoder(named) if isinstance(encoder, str) else encoder
        self.mteb_model_meta = _meta(
            name,
            revision=self.model.fingerprint[:16],
            embed_dim=self.model.dim,
            similarity_fn_name=ScoringFunction.DOT_PRODUCT,
            model_type=["dense"],
        )

    def encode(self, inputs: Iterable[Mapping[str, Any]], *, prompt_type: Any = None, **options: Any) -> Vectors:
        """Unit vectors (float32, one row for each input, `dim` columns), in the order of the inputs."""
        is_query = getattr(prompt_type, "value", prompt_type) == "query"
        rows = [vectors for batch in inputs for vectors in self._encoded(batch, is_query)]
        return np.stack(rows) if rows else np.zeros((0, self.model.dim), np.float32)

    def _encoded(self, batch: Mapping[str, Any], is_query: bool) -> Sequence[Vectors]:
        texts, images = batch.get("text"), batch.get("image")
        if texts is not None and images is not None and not is_query:
            raise ConfigError("documents have both texts and images; choose a task with one of them")
        if texts is None and images is not None:
            return list(self.model.encode_images([image.convert("RGB") for image in images]))
        if images is not None and "image" not in self.model.uses:
            raise ConfigError("queries have images, which this encoder does not read; choose a task of texts")
        shown = images if images is not None else [None] * len(texts or ())
        return [
            self.model.encode_query(QueryInputs(text, image and image.convert("RGB")))
            for text, image in zip(texts or (), shown, strict=True)
        ]


class FieldscopeReranker:
    """A reranker as an MTEB model (`SearchProtocol`): it ranks the candidates that a task has for each query.

    `ranker` is a `fieldscope.Reranker`, the URL of a running `fieldscope serve`, or a `Service`; `name` is shown in
    MTEB's results. `reasons` has, for each query's id, the reason of each document's id. Raises `FieldscopeError`.
    """

    def __init__(self, ranker: GivenRanker, name: str = "reranker") -> None:
        self._ranker = open_ranker(ranker)
        self._corpus: Any = None
        self._rows: dict[str, int] = {}
        self.reasons: dict[str, dict[str, str]] = {}
        self.mteb_model_meta = _meta(name, model_type=["cross-encoder"])

    def index(self, corpus: Any, **options: Any) -> None:
        """Remember a task's documents."""
        self._corpus = corpus
        self._rows = {document_id: row for row, document_id in enumerate(corpus["id"])}

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Mapping[str, Sequence[str]] | None = None, **options: Any
    ) -> dict[str, dict[str, float]]:
        """Query id -> document id -> score, for the best `top_k` of its candidates (`top_ranked`)."""
        if top_ranked is None:
            raise ConfigError(
                "the task has no candidates to rank. Evaluate a FieldscopeEncoder with prediction_folder=FOLDER first, "
                "and give task.convert_to_reranking(FOLDER, top_k=100) to this reranker"
            )
        if "text" not in queries.column_names or "image" in queries.column_names:
            raise ConfigError("queries must be texts without images; choose another task")
        return {
            query["id"]: self._ranked(query["id"], query["text"], list(top_ranked[query["id"]]), top_k)
            for query in queries
            if query["id"] in top_ranked
        }

    def _ranked(self, query_id: str, query: str, candidates: Sequence[str], top_k: int) -> dict[str, float]:
        given = [_given(self._corpus[self._rows[document_id]]) for document_id in candidates]
        ranked = self._ranker.rerank(query, given, top_k)
        self.reasons[query_id] = {candidates[placed.index]: placed.reason for placed in ranked if placed.reason}
        return {candidates[placed.index]: placed.score for placed in ranked}


def _given(document: Mapping[str, Any]) -> GivenDocument:
    """A document of a corpus: its image as a file without loss, or its text."""
    image: PILImage.Image | None = document.get("image")
    if image is None:
        return GivenDocument(None, document.get("text") or "")
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", compress_level=1)
    return GivenDocument(buffer.getvalue())


def _meta(name: str, **fields: Any) -> Any:
    """What MTEB writes into its results about a model."""
    shown = name.rpartition("/")[2] or name
    return ModelMeta.create_empty({"name": f"fieldscope/{shown}", "modalities": ["text", "image"], **fields})
