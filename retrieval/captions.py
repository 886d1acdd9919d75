"""Captions of a library's images, as texts and as the encoder's vectors.

They are in the library's folder `captions`, an index of its own with the same checks, which is replaced in one step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fieldscope.core.errors import ConfigError, IndexMismatchError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.retrieval.encoder import Encoder, QueryInputs, Vectors
from fieldscope.retrieval.manifest import (
    Manifest,
    claimed,
    is_index,
    read_index,
    read_manifest,
    require_encoder,
    write_index,
)
from fieldscope.retrieval.progress import Report

_FOLDER = "captions"


@dataclass(frozen=True)
class Captions:
    """Captions by image id, and their vectors, shape (len(texts), dim), in the same order."""

    texts: Mapping[str, str]
    vectors: Vectors

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the texts with their images' ids: whether two sets of captions are the same."""
        return fingerprint(dict(self.texts))

    def blend(self, ids: Sequence[str], vectors: Vectors, weight: float) -> Vectors:
        """(1 - `weight`) image vector + `weight` caption vector for each of `ids`, shape (len(ids), dim).

        An inner product with it is that share of both similarities. Images without a caption keep their own vector.
        """
        rows = {image_id: row for row, image_id in enumerate(ids)}
        known = [(rows[image_id], row) for row, image_id in enumerate(self.texts) if image_id in rows]
        blended = vectors.copy()
        if known:
            images, captions = map(list, zip(*known, strict=True))
            blended[images] = (1 - weight) * vectors[images] + weight * self.vectors[captions]
        return blended


def write_captions(
    folder: Path, captions: Mapping[str, str], encoder: Encoder, progress: Report | None = None
) -> Captions:
    """Save captions by image id beside the index in `folder`, and replace the old ones.

    A caption belongs to its image as it was indexed: an image that changed and was indexed again has none. Blank
    captions are left out. Raises `IndexMismatchError` where the index is missing, damaged or another encoder's, and
    `ConfigError` for an image that it does not hold, and where no caption is left.
    """
    manifest = read_manifest(folder)
    require_encoder(folder, manifest, encoder)
    stamps = _stamps(manifest)
    if strange := [image_id for image_id in captions if image_id not in stamps]:
        raise ConfigError(f"image {strange[0]!r} has a caption and is not in the index {str(folder)!r}; index it first")
    texts = {image_id: text.strip() for image_id, text in captions.items() if text.strip()}
    if not texts:
        raise ConfigError(f"there are no captions to save in {str(folder)!r}; give one for an image at least")
    known: dict[str, Vectors] = {}
    for text in dict.fromkeys(texts.values()):
        known[text] = encoder.encode_query(QueryInputs(text))
        if progress is not None:
            progress(len(known), len(set(texts.values())))
    vectors = np.stack([known[text] for text in texts.values()])
    with claimed(folder):
        write_index(
            folder / _FOLDER,
            list(texts),
            vectors,
            encoder.fingerprint,
            encoder_name=manifest.encoder_name,
            attributes={"texts": list(texts.values()), "stamps": [stamps[image_id] for image_id in texts]},
        )
    return Captions(texts, vectors)


def read_captions(folder: Path, encoder: Encoder) -> Captions | None:
    """The captions beside the index in `folder`, of images that are as they were; None where there are none.

    Raises `IndexMismatchError` where they are damaged or another encoder's.
    """
    if not is_index(folder / _FOLDER):
        return None
    now = _stamps(read_manifest(folder))
    try:
        manifest, vectors = read_index(folder / _FOLDER, encoder)
        texts = manifest.attributes["texts"]
        entries = list(zip(manifest.ids, texts, _stamps(manifest).values(), strict=True))
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a caption is no text")
    except (IndexMismatchError, KeyError, TypeError, ValueError) as error:
        raise IndexMismatchError(
            f"the captions in {str(folder / _FOLDER)!r} can't be used; remove that folder and make them again with"
            " `fieldscope caption`"
        ) from error
    fresh = [row for row, (image_id, _, stamp) in enumerate(entries) if now.get(image_id) == stamp]
    if not fresh:
        return None
    return Captions({entries[row][0]: entries[row][1] for row in fresh}, vectors[fresh])


def _stamps(manifest: Manifest) -> dict[str, str]:
    """Image id -> the stamp that its file had when it was indexed; empty where the index does not say."""
    stamps = manifest.attributes.get("stamps")
    if not isinstance(stamps, list) or len(stamps) != len(manifest.ids):
        return dict.fromkeys(manifest.ids, "")
    return {image_id: str(stamp) for image_id, stamp in zip(manifest.ids, stamps, strict=True)}
