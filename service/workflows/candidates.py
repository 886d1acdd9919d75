"""Candidates from images that the user chose, with the first stage's scores; unreadable images apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError, LMMError
from fieldscope.service.wiring.feedback import progress

if TYPE_CHECKING:
    from fieldscope.agent.scored import CachedScorer
    from fieldscope.core.types import Candidate, Query
    from fieldscope.retrieval.collection import Collection
    from fieldscope.retrieval.scorer import Scorer

_AT_ONCE = 64  # images between two steps of the progress bar


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
    from fieldscope.retrieval.encoder import inputs_of
    from fieldscope.retrieval.scorer import score_images

    skipped = dict(chosen.skipped)
    with progress("reading images") as report:
        inputs = inputs_of(query, instruction=instruction)
        scores = score_images(scorer, inputs, chosen.images.ids(), chosen.images, skipped, report)
    return _candidates(chosen, scores, skipped)


async def judge(
    chosen: Chosen, query: Query, scorer: CachedScorer, instruction: str | None = None
) -> tuple[list[Candidate], dict[str, str]]:
    """The same with the scores of a scoring model, which are remembered. An image that it could not judge is skipped.

    Raises `LMMError` where it could judge none because its server failed, and `ConfigError` for any other reason.
    """
    from fieldscope.retrieval.encoder import inputs_of

    scores: dict[str, float] = {}
    skipped, ids = dict(chosen.skipped), chosen.images.ids()
    inputs = inputs_of(query, instruction=instruction)
    with progress("scoring images") as report:
        for start in range(0, len(ids), _AT_ONCE):
            judged = await scorer.judge(inputs, ids[start : start + _AT_ONCE])
            scores |= {name: pair.value for name, pair in judged.items() if pair.value is not None}
            skipped |= {name: pair.error or "it has no score" for name, pair in judged.items() if pair.value is None}
            if failure := next((pair.error for pair in judged.values() if pair.server_failed), None):
                raise LMMError(
                    f"the scoring model stopped answering: {failure}. Check its server and rerun this command"
                )
            report(min(start + _AT_ONCE, len(ids)), len(ids))
    return _candidates(chosen, scores, skipped, "scored")


def _candidates(
    chosen: Chosen, scores: Mapping[str, float], skipped: dict[str, str], done: str = "read"
) -> tuple[list[Candidate], dict[str, str]]:
    from fieldscope.core.types import Candidate

    if not scores:
        first = next(iter(skipped.values()))
        raise ConfigError(
            f"none of the {len(chosen.images.ids())} images can be {done} (the first: {first}); check the files"
        )
    return [Candidate(image_id, score) for image_id, score in scores.items()], skipped
