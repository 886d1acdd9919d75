"""Encoders of sentence-transformers in this process: CLIP, SigLIP, Qwen3-VL-Embedding and others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError
from fieldscope.retrieval.encoder import DocumentInputs, QueryInputs, QueryPart, Vectors, picture_refused
from fieldscope.retrieval.model_folder import folder_fingerprint, model_type
from fieldscope.retrieval.sentence_models import (
    as_input,
    load_model,
    takes_both,
    takes_instructions,
    takes_pictures,
)

_TASK = re.compile(r"(Instruct: ).*?(\nQuery:\s*)", re.DOTALL)  # a prompt that has a place for an instruction


class SentenceEncoder:
    """A `SentenceTransformer` as an `Encoder`: inner products are cosine similarities, between -1 and 1.

    Queries and images get the model's own prompts for queries and documents, where it has any. An instruction takes
    the place of the query's prompt: it is the system's message of a model that reads messages, the task of a prompt
    "Instruct: ... Query:", and else a line before the words. The fingerprint covers all files of the model, not the
    precision that it is computed in.
    """

    def __init__(self, model: Any, *, name: str, fingerprint: str, batch_size: int = 16) -> None:
        self._model = model
        self._name = name
        self._fingerprint = fingerprint
        self._batch_size = batch_size
        self._running = Lock()  # tokenizers are not safe to use from several threads
        parts: Mapping[QueryPart, bool] = {
            "text": True,
            "image": takes_both(model),
            "instruction": takes_instructions(model),
        }
        self._uses = frozenset(part for part, used in parts.items() if used)
        self._dim = int(self._encode([as_input("a", None)], "query").shape[1])

    @classmethod
    def load(cls, folder: Path, *, device: str | None = None, batch_size: int = 16) -> Self:
        """Load the model in a folder with modules.json. Raises `ConfigError`, also for one that encodes texts only."""
        kind = model_type(folder)
        if kind != "SentenceTransformer":
            hint = "name it as the scorer" if kind == "CrossEncoder" else "give a SentenceTransformer"
            raise ConfigError(f"{folder} is a {kind}, which makes no vectors for a first stage; {hint}")
        model = load_model("SentenceTransformer", folder, device)
        if not takes_pictures(model):
            raise ConfigError(f"{folder} encodes {' and '.join(_modalities(model))} only; give a model for pictures")
        fingerprint = folder_fingerprint(folder, "sentence-transformers")
        return cls(model, name=str(folder), fingerprint=fingerprint, batch_size=batch_size)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def uses(self) -> frozenset[QueryPart]:
        return self._uses

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        """One L2-normalised vector, shape (dim,). Raises `ConfigError` for a reference image where the model can't take
        it together with the words."""
        if inputs.image is not None and "image" not in self.uses:
            raise picture_refused(self._name)
        prompt = self._prompt(inputs.instruction) if "instruction" in self.uses else None
        vector: Vectors = self._encode([as_input(inputs.text, inputs.image)], "query", prompt)[0]
        return vector

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        """L2-normalised vectors, shape (len(images), dim), in the order given."""
        if not images:
            return np.empty((0, self._dim), dtype=np.float32)
        return self._encode([as_input("", image) for image in images], "document")

    def encode_documents(self, documents: Sequence[DocumentInputs]) -> Vectors:
        """L2-normalised vectors, shape (len(documents), dim), of pictures, texts and both, in the order given. Raises
        `ConfigError` for a picture with a text where the model can't take both together."""
        if "image" not in self.uses and any(each.image is not None and each.text for each in documents):
            raise ConfigError(
                f"a document has a picture and a text, and {self._name} does not take both together; name an encoder "
                "that does"
            )
        vectors = np.empty((len(documents), self._dim), dtype=np.float32)
        kinds = [(each.image is not None, bool(each.text)) for each in documents]
        for kind in dict.fromkeys(kinds):  # a batch holds documents of one kind
            rows = [row for row, own in enumerate(kinds) if own == kind]
            vectors[rows] = self._encode([as_input(documents[r].text, documents[r].image) for r in rows], "document")
        return vectors

    def _prompt(self, instruction: str | None) -> str | None:
        """The prompt in place of the model's own for queries; None where that stays."""
        if instruction is None or "message" in self._model.modalities:
            return instruction
        own = self._model.prompts.get("query") or ""
        if _TASK.match(own):
            return _TASK.sub(lambda parts: f"{parts[1]}{instruction}{parts[2]}", own, count=1)
        return f"{instruction}\n"

    def _encode(self, inputs: Sequence[Mapping[str, Any]], task: str, prompt: str | None = None) -> Vectors:
        encode = self._model.encode_query if task == "query" else self._model.encode_document
        with self._running:
            features = encode(list(inputs), prompt=prompt, batch_size=self._batch_size, show_progress_bar=False)
        vectors: Vectors = np.asarray(features, dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            raise ConfigError(
                f"{self._name} makes vectors without a direction (zero, NaN or infinite); check the model, or "
                "run it on another device"
            )
        unit: Vectors = vectors / lengths
        return unit


def _modalities(model: Any) -> list[str]:
    return [modality if isinstance(modality, str) else "+".join(modality) for modality in model.modalities]
