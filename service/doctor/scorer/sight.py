"""Are images scored as images, or as the text of their data URLs?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from fieldscope.core.image_encoding import ImageEncoding
from fieldscope.retrieval.scorer import Document, pictures_of
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.advice import VISION
from fieldscope.service.doctor.scorer.asker import REFUSALS
from fieldscope.service.doctor.scorer.known import GOOD
from fieldscope.service.doctor.scorer.served import spelled_images
from fieldscope.service.doctor.scorer.subject import Subject

NAME = "images as images"
_ALIKE = 0.9
_JUMPS = 0.3
_CHANGES = 2
_AS_TEXT = "images are scored as text: the model reads the letters of a data URL and sees nothing"
_UNSEEN = 2  # grey levels by which a change of pixels can't be seen


def check_sight(subject: Subject) -> Finding:
    """Compare the scores of images with those of the same images with a change that can't be seen but makes another
    file and, where they are not understood, with those of their data URLs as texts."""
    grid = subject.grids["images"]
    images = pictures_of(subject.documents("images"))
    understood = grid.correct >= GOOD and not grid.flat
    alike = None if understood or "texts" not in subject.grids else _alike(subject, images)
    changes = [_scores(subject, [_changed(image, seed) for image in images]) for seed in range(_CHANGES)]
    jumps = _jumps(grid.scores, np.array(changes))
    seen = f"a change of pixels that can't be seen changes scores {jumps:.0%} as much as another image does"
    if alike is not None:
        seen += f"; {alike:.0%} of the images score as their data URLs do as texts"
    as_text = alike is not None and alike >= _ALIKE and not subject.grids["texts"].flat
    meaning = _AS_TEXT
    if as_text and grid.flat:
        meaning = "images score as text without meaning does: they are scored as text, or not at all"
    if as_text:
        return Finding(NAME, "fail", seen, meaning, VISION)
    if jumps >= _JUMPS:
        return Finding(NAME, "fail", seen, f"scores follow the file's bytes and not what it shows; {meaning}", VISION)
    if not understood:
        return Finding(NAME, "unknown", seen, "images are not understood; see the check 'known images'")
    return Finding(NAME, "ok", seen, "images are scored as images")


def check_refused(subject: Subject) -> Finding:
    """The finding for a scorer that takes no images: a server may have read them as text, so that its scorer refuses
    them."""
    spelled = spelled_images(subject.asker.scorer)
    if spelled is None:
        return Finding(NAME, "unknown", subject.refusals["images"], "images are refused; see the check 'server'")
    seen = (
        f"{spelled.grey:,} tokens for a grey image, {spelled.noise:,} for one of noise of the same size (sent as "
        f"{spelled.form})"
    )
    meaning = f"{_AS_TEXT}; Fieldscope takes it for a scorer of texts only"
    return Finding(NAME, "fail", seen, meaning, VISION)


def _alike(subject: Subject, images: Sequence[PILImage.Image]) -> float | None:
    """The share of images that score as their data URLs do as texts for the first query, in [0, 1]; None where such
    texts are refused."""
    urls = [ImageEncoding().data_url(image) for image in images]
    try:
        texts = np.array(subject.asker.alone(subject.queries[0], urls), dtype=np.float64)
    except REFUSALS:
        return None
    apart = np.abs(texts - subject.grids["images"].scores[0])
    apart = apart[np.isfinite(apart)]
    return float((apart <= max(subject.rounding("images"), 2 * subject.noise)).mean()) if apart.size else None


def _scores(subject: Subject, documents: Sequence[Document]) -> NDArray[np.float64]:
    """The score of each document, alone, for each query."""
    return np.array([subject.asker.alone(query, documents) for query in subject.queries], dtype=np.float64)


def _jumps(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """How far the scores of images, shape (queries, images), move in those of changed ones, shape (changes, queries,
    images), compared with how far different images are apart for one query."""
    between = np.abs(before[:, :, None] - before[:, None, :])[:, ~np.eye(before.shape[1], dtype=bool)]
    moved = np.abs(after - before)
    if not np.isfinite(between).any() or not np.isfinite(moved).any():
        return 0.0
    apart = float(np.nanmean(between))
    return float(np.nanmean(moved)) / apart if apart else 0.0


def _changed(image: PILImage.Image, seed: int) -> PILImage.Image:
    """The same image in other bytes."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.int16)
    noise = np.random.default_rng(seed).integers(-_UNSEEN, _UNSEEN + 1, pixels.shape)
    return PILImage.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))
