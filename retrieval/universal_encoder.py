"""The universal retriever as an encoder of queries and documents of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image as PILImage

from fieldscope.core.fingerprint import fingerprint
from fieldscope.retrieval.encoder import DocumentInputs, QueryInputs, QueryPart, Vectors
from fieldscope.retrieval.model_folder import folder_fingerprint
from fieldscope.retrieval.universal_model import Features, Universal

_BATCH = 64


class UniversalEncoder:
    """A trained `Universal` as an `Encoder` and `DocumentEncoder`: inner products are cosine similarities, between -1
    and 1. A query's instruction is read together with its words and its picture; documents have none."""

    def __init__(self, universal: Universal, fingerprint: str) -> None:
        self._universal = universal
        self._universal.model.eval()
        self._fingerprint = fingerprint

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The retriever that `fieldscope train-retriever` wrote into a folder. Raises `ConfigError`."""
        universal = Universal.load(folder)
        parts = {"model": folder_fingerprint(folder, "universal"), "clip": universal.clip.fingerprint}
        return cls(universal, fingerprint(parts))

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def dim(self) -> int:
        return self._universal.model.config.dim

    @property
    def uses(self) -> frozenset[QueryPart]:
        return frozenset({"text", "image", "instruction"})

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        """One L2-normalised vector, shape (dim,)."""
        document = DocumentInputs(inputs.text, inputs.image)
        vector: Vectors = self._encoded([document], [inputs.instruction or ""])[0]
        return vector

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        """L2-normalised vectors, shape (len(images), dim), in the order given."""
        return self.encode_documents([DocumentInputs(image=image) for image in images])

    def encode_documents(self, documents: Sequence[DocumentInputs]) -> Vectors:
        """L2-normalised vectors, shape (len(documents), dim), in the order given."""
        vectors = np.zeros((len(documents), self.dim), dtype=np.float32)
        for pictured in (False, True):
            rows = [row for row, each in enumerate(documents) if (each.image is not None) == pictured]
            for start in range(0, len(rows), _BATCH):
                batch = rows[start : start + _BATCH]
                vectors[batch] = self._encoded([documents[row] for row in batch], [""] * len(batch))
        return vectors

    def _encoded(self, inputs: Sequence[DocumentInputs], instructions: Sequence[str]) -> Vectors:
        """Vectors of inputs that all have a picture, or all have none."""
        images = [each.image for each in inputs if each.image is not None]
        texts = [each.text for each in inputs]
        summed, patches = torch.zeros(len(inputs), self.dim), None
        if images:
            whole, parts = self._universal.clip.patch_features(images)
            summed += unit(torch.from_numpy(whole))
            patches = self._universal.pooled(torch.from_numpy(parts))
        if any(texts):
            worded = [row for row, text in enumerate(texts) if text]
            features = self._universal.clip.text_features([texts[row] for row in worded])
            summed[worded] += unit(torch.from_numpy(features))
        words, instructed = self._universal.tokens(instructions, texts)
        with torch.inference_mode():
            vectors: Vectors = self._universal.model(Features(words, instructed, summed, patches)).numpy()
        return vectors


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors of length 1, of which the sum is taken, so that words and picture weigh the same."""
    return torch.nn.functional.normalize(vectors, dim=-1)
