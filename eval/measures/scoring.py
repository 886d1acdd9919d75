"""From rankings to numbers: the metrics of all tasks for every query of a run, and their means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fieldscope.agent.types import RerankResult
from fieldscope.eval.dialogues import DIALOGUES, HITS, by_round
from fieldscope.eval.measures import metrics
from fieldscope.eval.measures import official as official_metrics
from fieldscope.eval.reported import mean_name
from fieldscope.eval.types import Benchmark, Means, QueryMeta

OfficialScores = Mapping[str, Mapping[str, float]]
"""Query id -> image id -> the number that INQUIRE's scripts rank by. Numbers may be equal."""

Metric = Callable[[NDArray[np.uint8], NDArray[np.int64]], metrics.Values]

METRICS: Mapping[str, Metric] = {
    **{f"AP@{k}": partial(metrics.average_precision, k=k) for k in (5, 10, 25, 50, 100)},
    **{f"nDCG@{k}": partial(metrics.ndcg, k=k) for k in (10, 50, 100)},
    "RR": metrics.reciprocal_rank,
    "RR@50": partial(metrics.reciprocal_rank, k=50),
    **{f"P@{k}": partial(metrics.precision, k=k) for k in (10, 50, 100)},
    **{f"recall@{k}": partial(metrics.recall, k=k) for k in (1, 5, 10, 50, 100)},
    **{name: partial(metrics.hits, k=int(name.removeprefix("hits@"))) for name in HITS},
}
"""What is computed for every query, from its final ranking."""

_OFFICIAL = {"AP": official_metrics.average_precision, "nDCG": official_metrics.ndcg}

FIRST_STAGE_RECALL = "first-stage recall@100"
"""How much of what there was to find the first stage handed on: `recall@100` in the order of the prior."""

HEADLINE = ("mAP@50", "mAP@100", "nDCG@10", "nDCG@50", "nDCG@100", "MRR")
COMPOSED = ("mAP@5", "mAP@10", "mAP@25", "recall@1", "recall@5", "recall@10", "recall@50")


def shown_metrics(benchmark: Benchmark) -> tuple[str, ...]:
    """The means that a summary carries: the usual ones, those that the benchmark's own publication reports, full
    retrieval's first-stage recall, and those of the task (CIRCO's and CIRR's for composed queries, ChatIR's for
    dialogues). `metrics.json` has all."""
    first_stage = (FIRST_STAGE_RECALL,) if benchmark.candidate_sets is None else ()
    composed = COMPOSED if any(query.reference_image is not None for query in benchmark.queries) else ()
    own = benchmark.reported.means
    return tuple(dict.fromkeys((*HEADLINE, *own, *first_stage, *composed, *(HITS if benchmark.rounds else ()))))


@dataclass(frozen=True)
class Scores:
    """Metrics of the queries of one run: `values[metric]` and `positives` run along `query_ids`.

    `rounds` say how many rounds of a dialogue a query has heard, and `dialogues` which queries are the rounds of one,
    in their order; both are empty where the benchmark has no dialogues. `hits@k` are carried over a dialogue's rounds.
    `official` says that equal scores count as ties, as in INQUIRE's scripts.
    """

    query_ids: tuple[str, ...]
    meta: tuple[QueryMeta, ...]
    positives: NDArray[np.int64]
    values: Mapping[str, metrics.Values]
    rounds: Mapping[str, int] = field(default_factory=dict)
    dialogues: tuple[tuple[str, ...], ...] = ()
    official: bool = False

    def means(self) -> Means:
        """Each metric's mean over the queries that have a positive; that of `hits@k` over dialogues, as they ended."""
        return self._means(np.ones(len(self.query_ids), dtype=np.bool_))

    def by_supercategory(self) -> dict[str, Means]:
        """The means within each supercategory, in alphabetical order; queries without one are left out."""
        return self._by("supercategory")

    def breakdowns(self) -> dict[str, dict[str, Means]]:
        """The means by category, by iconic group, of the queries with and without experts' lingo, and by the
        benchmark's own kinds of group, each in alphabetical order; a kind that tells no two queries apart because none
        has it is left out. Without the benchmark's own list of lingo, a scientific name stands for it."""
        kinds = ["category", "iconic_group"]
        if any(meta.lingo for meta in self.meta):
            kinds.append("lingo")
        elif any(meta.scientific_name for meta in self.meta):
            kinds.append("scientific_name")
        kinds += dict.fromkeys(kind for meta in self.meta for kind in meta.conditions or {})
        return {kind: found for kind in kinds if (found := self._by(kind))}

    def by_round(self) -> dict[int, Means]:
        """The means after each number of rounds, in order; nothing where the benchmark has no dialogues.

        Each is over the same dialogues, and says over how many. A dialogue that has ended counts with its last query.
        One with a query that has nothing to find can't be followed, and is left out.
        """
        unscored = {query_id for query_id, found in zip(self.query_ids, self.positives, strict=True) if not found}
        followed = [ids for ids in self.dialogues if unscored.isdisjoint(ids)]
        rows = {query_id: row for row, query_id in enumerate(self.query_ids)}
        return {
            done: {DIALOGUES: len(ids), **_means(self.values, np.array([rows[query_id] for query_id in ids]))}
            for done, ids in by_round(followed, self.rounds).items()
        }

    def per_query(self) -> dict[str, dict[str, float | int | None]]:
        """Query id -> metric -> value, None where a query has no positive. `hits@k` are a dialogue's: they stand with
        its last query, and are None in its others."""
        return {
            query_id: {
                "positives": int(self.positives[row]),
                **{name: metrics.mean(values[row : row + 1]) for name, values in self._reported.items()},
            }
            for row, query_id in enumerate(self.query_ids)
        }

    def _by(self, kind: str) -> dict[str, Means]:
        groups = np.array([meta.groups.get(kind, "") for meta in self.meta])
        return {group: self._means(groups == group) for group in sorted(set(groups.tolist()) - {""})}

    def _means(self, rows: NDArray[np.bool_]) -> Means:
        return _means(self._reported, rows)

    @cached_property
    def _reported(self) -> Mapping[str, metrics.Values]:
        """The values, with those of a dialogue as a whole at its last query alone."""
        earlier = {query_id for ids in self.dialogues for query_id in ids[:-1]}
        passing = np.array([query_id in earlier for query_id in self.query_ids], dtype=np.bool_)
        return {name: np.where(passing, np.nan, of) if name in HITS else of for name, of in self.values.items()}


def score(benchmark: Benchmark, results: Mapping[str, RerankResult], official: OfficialScores | None = None) -> Scores:
    """Score rankings against the judgments. Raises ValueError for a ranking that is no strict order of images.

    With `official` scores, by query and image, AP and nDCG are INQUIRE's own, in which equal scores are a tie.
    """
    ids = tuple(results)
    judgments = [benchmark.judgments(query_id) for query_id in ids]
    positives = np.array([sum(judged.values()) for judged in judgments], dtype=np.int64)
    final, prior = [], []
    for result, judged in zip(results.values(), judgments, strict=True):
        _require_strict(result)
        final.append([judged.get(ranked.image_id, 0) for ranked in result.ranking])
        by_prior = sorted(result.ranking, key=lambda ranked: ranked.prior_rank)
        prior.append([judged.get(ranked.image_id, 0) for ranked in by_prior])
    values = {name: metric(_padded(final), positives) for name, metric in METRICS.items()}
    if official is not None:
        values |= _official_values(results, final, positives, official)
    values[FIRST_STAGE_RECALL] = metrics.recall(_padded(prior), positives, k=100)
    meta = tuple(benchmark.meta.get(query_id, QueryMeta()) for query_id in ids)
    dialogues = tuple(filter(None, (tuple(q for q in of if q in results) for of in benchmark.dialogues)))
    rows = {query_id: row for row, query_id in enumerate(ids)}
    for of in dialogues:
        at = [rows[query_id] for query_id in of]
        for name in HITS:
            values[name][at] = metrics.carried(values[name][at])
    return Scores(ids, meta, positives, values, benchmark.rounds, dialogues, official is not None)


def _official_values(
    results: Mapping[str, RerankResult],
    relevance: Sequence[Sequence[int]],
    positives: NDArray[np.int64],
    scores: OfficialScores,
) -> dict[str, metrics.Values]:
    """AP@k and nDCG@k over the best k of each ranking, with equal scores as ties."""
    ranked = [[scores[result.query_id][each.image_id] for each in result.ranking] for result in results.values()]
    values = {}
    for name in METRICS:
        kind, _, depth = name.partition("@")
        if metric := _OFFICIAL.get(kind):
            k = int(depth)
            rows = zip(relevance, ranked, positives.tolist(), strict=True)
            values[name] = np.array([metric(hits[:k], own[:k], found) for hits, own, found in rows])
    return values


def _means(values: Mapping[str, metrics.Values], rows: NDArray[np.bool_] | NDArray[np.int64]) -> Means:
    return {mean_name(name): metrics.mean(of[rows]) for name, of in values.items()}


def _require_strict(result: RerankResult) -> None:
    scores = [ranked.score for ranked in result.ranking]
    if any(below >= above for above, below in pairwise(scores)):
        raise ValueError(f"{result.strategy} ranks {result.query_id} with tied or rising scores")
    if len({ranked.image_id for ranked in result.ranking}) < len(scores):
        raise ValueError(f"{result.strategy} ranks an image of {result.query_id} twice")


def _padded(rows: list[list[int]]) -> NDArray[np.uint8]:
    """Rows of unequal length as one matrix, filled up with 0."""
    matrix = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.uint8)
    for row, values in enumerate(rows):
        matrix[row, : len(values)] = values
    return matrix
