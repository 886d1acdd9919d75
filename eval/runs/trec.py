"""TREC's run and qrels files, which `trec_eval`, `ir_measures` and `ranx` read.

Ids with white space, control characters or `%` are percent-encoded, since TREC's fields are split at white space.
Scores are strictly decreasing in single precision, which is what `trec_eval` compares: it would break a tie by id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

import numpy as np

from fieldscope.core.types import Run
from fieldscope.eval.types import Qrels

_UNSAFE = re.compile(r"[\s%\x00-\x1f\x7f]")
_LARGEST = 1e30
"""Scores beyond it are cut, far enough from single precision's end that no step below one reaches infinity."""


def escape(identifier: str) -> str:
    """An id as one TREC field; `urllib.parse.unquote` gives the id back."""
    return _UNSAFE.sub(lambda found: quote(found[0], safe=""), identifier)


def _escaped(identifiers: Sequence[str]) -> Sequence[str]:
    """Each as `escape` gives it; most lists have nothing to escape, which one search over all tells."""
    return list(map(escape, identifiers)) if _UNSAFE.search("".join(identifiers)) else identifiers


def run_lines(run: Run) -> Iterator[str]:
    """`query Q0 image rank score tag` per ranked image, best first."""
    name = escape(run.name)
    for query_id, ranking in run.rankings.items():
        scores, query = _strict([score for _, score in ranking]), escape(query_id)
        images = _escaped([image_id for image_id, _ in ranking])
        for rank, (image_id, score) in enumerate(zip(images, scores, strict=True), start=1):
            yield f"{query} Q0 {image_id} {rank} {score:.9g} {name}\n"


def qrels_lines(qrels: Qrels) -> Iterator[str]:
    """`query 0 image judgment` per judgment."""
    for query_id, judged in qrels.items():
        query, images = escape(query_id), _escaped(list(judged))
        yield from (f"{query} 0 {image} {judgment}\n" for image, judgment in zip(images, judged.values(), strict=True))


def _strict(scores: list[float]) -> list[float]:
    """The scores in single precision, each at least one step below the one before."""
    single = np.clip(np.asarray(scores, dtype=np.float64), -_LARGEST, _LARGEST).astype(np.float32)
    if (single[1:] < single[:-1]).all():
        return [float(score) for score in single]
    strict: list[np.float32] = []
    for score in single:
        below = np.nextafter(strict[-1], np.float32(-np.inf)) if strict else score
        strict.append(min(score, below))
    return [float(score) for score in strict]
