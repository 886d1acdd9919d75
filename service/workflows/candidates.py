"""Candidates from images that the user chose, with the first stage's scores; unreadable images apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError, ImageError
from fieldscope.service.wiring.feedback import progress

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from fieldscope.core.types import Candidate, Query
    from fieldscope.retrieval.collection import Collection
    from fieldscope.retrieval.encoder import Encoder

_AT_ONCE = 8  # pictures in memory


@dataclass(frozen=True)
class Chosen:
    """Images to rerank, and why others that were named are not among them (image -> reason)."""

    images: Collection
    skipped: dict[str, str]


def open_chosen(paths: Sequence[Path]) -> Chosen:
    """A folder, Parquet files, or image files. Files that do not exist are skipped, unless all of them are missing.

    Raises `ConfigError` where nothing is left.
    """
    from fieldscope.retrieval.opening import open_collection

    for path in paths:
        if not str(path).isprintable():
            raise ConfigError(f"{str(path)!r} has a name with characters that can't be shown; rename it")
    there = [path for path in paths if path.exists()]
    missing = {path.as_posix(): f"{str(path)!r} does not exist; check the path" for path in paths if path not in there}
    images = open_collection(there or paths)
    return Chosen(images, {**missing, **images.skipped()})


def score(chosen: Chosen, query: Query, encoder: Encoder | None) -> tuple[list[Candidate], dict[str, str]]:
    """A candidate for every readable image, and all that are skipped. Without an encoder every prior is 0.

    Raises `ConfigError` where no image can be read.
    """
    from fieldscope.core.types import Candidate

    skipped = dict(chosen.skipped)
    candidates: list[Candidate] = []
    ids = chosen.images.ids()
    priors_of = _scorer(query, encoder)
    with ThreadPoolExecutor(_AT_ONCE) as pool, progress("reading images") as report:
        for start in range(0, len(ids), _AT_ONCE):
            batch = ids[start : start + _AT_ONCE]
            readable: dict[str, PILImage.Image] = {}
            for image_id, image in zip(batch, pool.map(lambda i: _read(chosen.images, i), batch), strict=True):
                if isinstance(image, ImageError):
                    skipped[image_id] = str(image)
                else:
                    readable[image_id] = image
            priors = priors_of(list(readable.values()))
            candidates += [Candidate(image_id, prior) for image_id, prior in zip(readable, priors, strict=True)]
            report(start + len(batch), len(ids))
    if not candidates:
        raise ConfigError(f"none of the {len(ids)} images can be read; the first: {next(iter(skipped.values()))}")
    return candidates, skipped


def _scorer(query: Query, encoder: Encoder | None) -> Callable[[list[PILImage.Image]], list[float]]:
    if encoder is None:
        return lambda pictures: [0.0] * len(pictures)
    vector = encoder.encode_query(query)
    return lambda pictures: [float(similarity) for similarity in encoder.encode_images(pictures) @ vector]


def _read(images: Collection, image_id: str) -> PILImage.Image | ImageError:
    try:
        return images.load(image_id)
    except ImageError as error:
        return error
