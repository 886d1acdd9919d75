"""An LMM as an encoder: asked for one word about a text, a picture or both, its last token's state is the vector.

Zero-shot, as in LLaVA-P of MM-Embed (arXiv 2411.02571, Table 12), E5-V (arXiv 2407.12580) and PromptReps
(arXiv 2404.18424), in our own words. A query names in front which kind of document is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Lock

import numpy as np
from PIL import Image as PILImage

from fieldscope.agent.lmm.base import ImagePart, LMMRequest, Message, TextPart
from fieldscope.agent.lmm.checkpoint import checkpoint_folder
from fieldscope.agent.lmm.local import LocalLMM
from fieldscope.core.errors import BrokenImageError, ConfigError
from fieldscope.core.fingerprint import fingerprint, fingerprint_pixels
from fieldscope.retrieval.encoder import DocumentInputs, QueryInputs, QueryPart, Vectors

DESCRIBE = "describe the above in one word:"
"""What is asked about a document, and about a query without an instruction."""

FOLLOW = "{instruction} in one word:"
"""What is asked about a query with an instruction."""


class _Held:
    """The pictures of the inputs that are encoded at the moment, by the hash of their pixels."""

    def __init__(self) -> None:
        self.pictures: dict[str, PILImage.Image] = {}

    def load(self, image_id: str) -> PILImage.Image:
        if image_id not in self.pictures:
            raise BrokenImageError(f"picture {image_id[:12]} is not held any more; encode it again")
        return self.pictures[image_id]

    def pixel_hash(self, image_id: str) -> str:
        return image_id


class OneWordEncoder:
    """A `LocalLMM` as an `Encoder` and `DocumentEncoder`; inner products are cosine similarities. The model must have
    been loaded with the pictures that `held` holds."""

    def __init__(self, lmm: LocalLMM, held: _Held) -> None:
        self._lmm = lmm
        self._held = held
        self._encoding = Lock()  # the pictures are held for one caller
        self._dim = len(self._encode([("a", None, DESCRIBE)])[0])

    @classmethod
    def load(cls, folder: str, dtype: str | None = None) -> OneWordEncoder:
        """The checkpoint in a folder. Raises `ConfigError`."""
        held = _Held()
        return cls(LocalLMM.from_path(checkpoint_folder(folder), held, dtype=dtype), held)

    @property
    def fingerprint(self) -> str:
        return fingerprint({"one-word": self._lmm.identity, "asked": [DESCRIBE, FOLLOW]})

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def uses(self) -> frozenset[QueryPart]:
        return frozenset({"text", "image", "instruction"})

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        """One L2-normalised vector, shape (dim,)."""
        instruction = (inputs.instruction or "").rstrip(" .?!")
        asked = FOLLOW.format(instruction=instruction) if instruction else DESCRIBE
        text = f"[{inputs.wanted}] {inputs.text}".strip() if inputs.wanted else inputs.text
        vector: Vectors = self._encode([(text, inputs.image, asked)])[0]
        return vector

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        """L2-normalised vectors, shape (len(images), dim), in the order given."""
        return self.encode_documents([DocumentInputs(image=image) for image in images])

    def encode_documents(self, documents: Sequence[DocumentInputs]) -> Vectors:
        """L2-normalised vectors, shape (len(documents), dim), in the order given."""
        if not documents:
            return np.empty((0, self._dim), dtype=np.float32)
        return self._encode([(each.text, each.image, DESCRIBE) for each in documents])

    def _encode(self, inputs: Sequence[tuple[str, PILImage.Image | None, str]]) -> Vectors:
        with self._encoding:
            try:
                states = self._lmm.last_states([self._request(*each) for each in inputs])
            finally:
                self._held.pictures.clear()
        lengths = np.linalg.norm(states, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            raise ConfigError("the LMM's states have no direction (zero, NaN or infinite); check the checkpoint")
        unit: Vectors = states / lengths
        return unit

    def _request(self, text: str, image: PILImage.Image | None, asked: str) -> LMMRequest:
        return LMMRequest(messages=(Message(content=tuple(self._content(text, image, asked))),))

    def _content(self, text: str, image: PILImage.Image | None, asked: str) -> Iterator[TextPart | ImagePart]:
        """The picture first, then the words, then what is asked."""
        if image is not None:
            sha256 = fingerprint_pixels(image)
            self._held.pictures[sha256] = image
            yield ImagePart(image_id=sha256, sha256=sha256)
        yield TextPart(text=f"{text}\n{asked}" if text else asked)


def open_one_word(argument: str) -> OneWordEncoder:
    """The encoder "one-word": `argument` is an LMM's checkpoint folder. Raises `ConfigError`."""
    if not argument:
        raise ConfigError("one-word needs an LMM; name its folder, as in one-word:FOLDER")
    return OneWordEncoder.load(argument)
