"""An encoder that is known before it is loaded, and loaded only for what it has not encoded before."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, get_args

import numpy as np
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError
from fieldscope.core.fingerprint import fingerprint, fingerprint_pixels
from fieldscope.retrieval.encoder import Encoder, QueryInputs, QueryPart, Vectors
from fieldscope.retrieval.vector_file import VectorFile


@dataclass(frozen=True)
class EncoderFacts:
    """What an encoder says of itself: see `Encoder` and `CorrectedEncoder`."""

    fingerprint: str
    dim: int
    uses: tuple[QueryPart, ...]
    wrong_fingerprint: str | None = None

    @classmethod
    def of(cls, encoder: Encoder) -> Self:
        """What a loaded encoder says."""
        wrong = getattr(encoder, "wrong_fingerprint", None)
        return cls(encoder.fingerprint, encoder.dim, tuple(sorted(encoder.uses)), wrong)

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """Facts as `text` has them; None where they can't be read."""
        try:
            known: Any = json.loads(text or "")
            facts: Any = cls(**known | {"uses": tuple(known["uses"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        sound = isinstance(facts.fingerprint, str) and isinstance(facts.dim, int) and facts.dim > 0
        read: Self | None = facts if sound and set(facts.uses) <= set(get_args(QueryPart)) else None
        return read

    @property
    def text(self) -> str:
        """The facts as JSON."""
        return json.dumps(asdict(self))


class KeptEncoder:
    """An `Encoder` whose facts are known, and whose vectors of queries are kept in a file; with `images` those of
    images, too, under the hash of their pixels. The model is loaded where a vector is missing.

    A vector that is kept is the one that the model gave, to the last bit. Safe to use from several threads.
    """

    def __init__(
        self, facts: EncoderFacts, load: Callable[[], Encoder], file: VectorFile, *, images: bool = False
    ) -> None:
        self._facts = facts
        self._load = load
        self._file = file
        self._images = images
        self._loading = threading.Lock()
        self._loaded: Encoder | None = None

    @classmethod
    def open(cls, key: str, load: Callable[[], Encoder], file: VectorFile, *, images: bool = False) -> Self:
        """The encoder whose files and libraries this `key` identifies. It is loaded now where the file does not know
        it yet."""
        facts = EncoderFacts.read(file.facts(key))
        if facts is not None:
            return cls(facts, load, file, images=images)
        loaded = load()
        kept = cls(EncoderFacts.of(loaded), load, file, images=images)
        kept._loaded = loaded
        file.put_facts(key, kept._facts.text)
        return kept

    @property
    def fingerprint(self) -> str:
        return self._facts.fingerprint

    @property
    def wrong_fingerprint(self) -> str | None:
        """As `CorrectedEncoder` has it; None for an encoder that is not one."""
        return self._facts.wrong_fingerprint

    @property
    def dim(self) -> int:
        return self._facts.dim

    @property
    def uses(self) -> frozenset[QueryPart]:
        return frozenset(self._facts.uses)

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        """One L2-normalised vector, shape (dim,). Raises what loading and the model raise."""
        shown = fingerprint_pixels(inputs.image) if inputs.image is not None else None
        key = self._key({"text": inputs.text, "image": shown, "instruction": inputs.instruction})
        kept = self._file.get([key], self.dim).get(key)
        if kept is None:
            kept = self._model().encode_query(inputs)
            self._file.put({key: kept})
        return kept

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        """L2-normalised vectors, shape (len(images), dim), in the order given."""
        if not self._images:
            return self._model().encode_images(images)
        keys = [self._key({"pixels": fingerprint_pixels(image)}) for image in images]
        kept = self._file.get(keys, self.dim)
        missing = {key: image for key, image in zip(keys, images, strict=True) if key not in kept}
        if missing:
            made = dict(zip(missing, self._model().encode_images(list(missing.values())), strict=True))
            self._file.put(made)
            kept |= made
        return np.stack([kept[key] for key in keys]) if keys else np.empty((0, self.dim), dtype=np.float32)

    def _key(self, what: dict[str, str | None]) -> str:
        return fingerprint({"encoder": self.fingerprint, **what})

    def _model(self) -> Encoder:
        """The model. Raises `ConfigError` where it is another one than the file knew."""
        with self._loading:
            if self._loaded is None:
                loaded = self._load()
                if EncoderFacts.of(loaded) != self._facts:
                    raise ConfigError(
                        f"the encoder changed: its fingerprint was {self.fingerprint[:12]} and is now "
                        f"{loaded.fingerprint[:12]}. Remove {str(self._file.path)!r} and rerun this command"
                    )
                self._loaded = loaded
            return self._loaded
