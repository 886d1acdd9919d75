"""Whether truthful marks on the top of a ranking raise the precision of the rest of it.

    python -m checks.marks RUN --index FOLDER               # a finished run over one task, and the index of its images

RUN is a run of `fieldscope eval` with judgments. The `--marks` best images of each query are marked as the judgments
have them, and the ranking is refitted (`fieldscope.eval.labels.relearn`): no model is asked. What is measured is AP@50
of the residual list, the images that were not marked, against the same list in its old order, over the queries with a
match in it, with a paired randomisation test. Exits with 1 unless mAP@50 rises with p < 0.01.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fieldscope.agent.types import RerankResult
from fieldscope.eval.labels.relearn import relearn
from fieldscope.eval.measures.paired import compare
from fieldscope.eval.runs.marks import Mark
from fieldscope.eval.runs.read import read_judgments, read_results
from fieldscope.retrieval.manifest import vectors_in

K = 50
LEVEL = 0.01


def average_precision(matches: Sequence[bool]) -> float:
    """AP@50 of a list; the positives are those in it."""
    hits = np.array(matches[:K], dtype=np.float64)
    precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precisions * hits).sum() / min(sum(matches), K))


def gain(
    result: RerankResult, judgments: dict[str, int], vectors: np.ndarray | None, marks: int
) -> tuple[float, float]:
    """AP@50 of the residual list without and with marks on the best images. Raises `ValueError` where it has no
    match."""
    ids = [ranked.image_id for ranked in result.ranking]
    rest = [judgments.get(image, 0) > 0 for image in ids[marks:]]
    if not any(rest):
        raise ValueError("the residual list has no match")
    truthful: dict[str, Mark] = {i: "accepted" if judgments.get(i, 0) > 0 else "rejected" for i in ids[:marks]}
    after = relearn(result, truthful, vectors)
    return average_precision(rest), average_precision([judgments.get(image, 0) > 0 for image in after.order])


def main() -> int:
    """Print the figures; 1 where marks do not raise mAP@50 significantly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--index", type=Path, help="the index of the images; without it likeness does not count")
    parser.add_argument("--marks", type=int, default=10)
    options = parser.parse_args()
    results, judgments = read_results(options.run), read_judgments(options.run)
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    seconds = [0.0]
    for query_id, result in results.items():
        vectors = vectors_in(options.index, [ranked.image_id for ranked in result.ranking]) if options.index else None
        began = time.perf_counter()
        try:
            before[query_id], after[query_id] = gain(result, judgments.get(query_id, {}), vectors, options.marks)
        except ValueError:
            continue
        seconds.append(time.perf_counter() - began)
    tested = compare(before, after)
    print(
        f"{options.run}: {len(before)} of {len(results)} queries have a match behind the {options.marks} marked images"
    )
    print(f"mAP@50 of the residual list: {tested.mean_a:.4f} without marks, {tested.mean_b:.4f} with them")
    print(f"difference {tested.difference:+.4f} [{tested.low:+.4f}, {tested.high:+.4f}], p = {tested.p:.5f}")
    print(f"refitted in {max(seconds):.3f} s at most, no question asked")
    return 0 if tested.difference > 0 and tested.p < LEVEL else 1


if __name__ == "__main__":
    sys.exit(main())
