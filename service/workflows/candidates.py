"""Candidates from images that the user chose, with the first stage's scores; unreadable images apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.feedback import progress

if TYPE_CHECKING:
    from fieldscope.core.types import Candidate, Query
    from fieldscope.retrieval.collection import Collection
    from fieldscope.retrieval.scorer import Scorer


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


def score(
    chosen: Chosen, query: Query, scorer: Scorer | None, instruction: str | None = None
) -> tuple[list[Candidate], dict[str, str]]:
    """A candidate for every readable image, and all skipped images with the reason. Without a scorer every prior is 0.
    The `instruction` says what a match is, to a scorer that reads one.

    Raises `ConfigError` where no image can be read.
    """
    from fieldscope.core.types import Candidate
    from fieldscope.retrieval.encoder import inputs_of
    from fieldscope.retrieval.scorer import score_images

    skipped, ids = dict(chosen.skipped), chosen.images.ids()
    with progress("reading images") as report:
        scores = score_images(scorer, inputs_of(query, instruction=instruction), ids, chosen.images, skipped, report)
    if not scores:
        first = next(iter(skipped.values()))
        raise ConfigError(f"none of the {len(ids)} images can be read (the first: {first}); check the files")
    return [Candidate(image_id, score) for image_id, score in scores.items()], skipped
