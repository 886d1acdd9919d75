"""From rankings to numbers: the metrics of all tasks for every query of a run, and their means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from fieldscope.agent.types import RerankResult
from fieldscope.eval.dialogues import DIALOGUES, HITS, by_round
from fieldscope.eval.measures import metrics
from fieldscope.eval.measures import official as official_metrics
from fieldscope.eval.measures.named import canonical, cut_off, is_metric, metric
from fieldscope.eval.measures.nothing import nothing_values
from fieldscope.eval.measures.protocols import BRI, modality_accuracies, protocol_values
from fieldscope.eval.protocol import PLAIN, Protocol
from fieldscope.eval.reported import MODALITY_ACCURACY, RIGHTLY, WRONGLY, mean_name
from fieldscope.eval.types import Benchmark, Means, QueryMeta

OfficialScores = Mapping[str, Mapping[str, float]]
"""Query id -> image id -> the number that INQUIRE's scripts rank by. Numbers may be equal."""

METRICS = {
    name: metric(name)
    for name in (
        *(f"AP@{k}" for k in (5, 10, 25, 50, 100)),
        *(f"nDCG@{k}" for k in (10, 50, 100)),
        "RR",
        "RR@50",
        *(f"P@{k}" for k in (10, 50, 100)),
        *(f"recall@{k}" for k in (1, 5, 10, 50, 100)),
        *HITS,
    )
}
"""What is computed for every query, from its final ranking."""

_OFFICIAL = {"AP": official_metrics.average_precision, "nDCG": official_metrics.ndcg}

FIRST_STAGE_RECALL = "first-stage recall@100"
"""How much of what there was to find the first stage handed on: `recall@100` in the order of the prior."""

NEAR_MISSES = "near-misses@10"
"""The share of the first ten places that have an image which shows all of the query but one thing. It is known where
the benchmark knows its near misses. A query with fewer than ten matches fills its other places with near misses at
best, so less of it is not always better."""

_FIRST = 10

HEADLINE = ("mAP@50", "mAP@100", "nDCG@10", "nDCG@50", "nDCG@100", "MRR")
COMPOSED = ("mAP@5", "mAP@10", "mAP@25", "recall@1", "recall@5", "recall@10", "recall@50")


def shown_metrics(benchmark: Benchmark) -> tuple[str, ...]:
    """The means that a summary carries: the usual ones, those that the benchmark's own publication reports, full
    retrieval's first-stage recall, those of the task (CIRCO's and CIRR's for composed queries, ChatIR's for dialogues),
    what its protocol adds, the share of near misses where they are known, and how often nothing was said to match.
    `metrics.json` has all."""
    first_stage = (FIRST_STAGE_RECALL,) if benchmark.candidate_sets is None else ()
    near = (NEAR_MISSES,) if benchmark.near_misses is not None else ()
    composed = COMPOSED if any(query.reference_image is not None for query in benchmark.queries) else ()
    own = (*benchmark.reported.overview, *benchmark.reported.means)
    rounds = HITS if benchmark.rounds else ()
    task = (*composed, *rounds, *benchmark.protocol.metrics, *near)
    return tuple(dict.fromkeys((*HEADLINE, *own, *first_stage, *task, RIGHTLY, WRONGLY)))


def computed(benchmark: Benchmark) -> tuple[str, ...]:
    """The names of the values of a query: `METRICS`, and what the benchmark's results are reported in beside them."""
    protocol, reported = benchmark.protocol, benchmark.reported
    own = (*reported.means, *reported.overview, *protocol.metrics)
    parts = (name for names in protocol.averages.values() for name in names)
    return tuple(dict.fromkeys((*METRICS, *parts, *(canonical(name) if is_metric(name) else name for name in own))))


@dataclass(frozen=True)
class Scores:
    """Metrics of the queries of one run: `values[metric]` and `positives` run along `query_ids`.

    `rounds` say how many rounds of a dialogue a query has heard, and `dialogues` which queries are the rounds of one,
    in their order; both are empty where the benchmark has no dialogues. `hits@k` are carried over a dialogue's rounds.
    `official` says that equal scores count as ties, as in INQUIRE's scripts. `protocol` is the benchmark's own.
    """

    query_ids: tuple[str, ...]
    meta: tuple[QueryMeta, ...]
    positives: NDArray[np.int64]
    values: Mapping[str, metrics.Values]
    rounds: Mapping[str, int] = field(default_factory=dict)
    dialogues: tuple[tuple[str, ...], ...] = ()
    official: bool = False
    protocol: Protocol = PLAIN

    def means(self) -> Means:
        """Each metric's mean over the queries that have a positive; that of `hits@k` over dialogues, as they ended.
        Where the protocol reports by group, it is the mean over groups of theirs."""
        if self.protocol.by_group and (groups := list(self._by_own_group().values())):
            return {name: _mean_of([of[name] for of in groups]) for name in groups[0]}
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
        found = {kind: found for kind in kinds if (found := self._by(kind))}
        own = self._by_own_group()
        families: dict[str, Means] = {
            family: {metric: _mean_of([of[metric] for of in members]) for metric in members[0]}
            for family, names in self.protocol.families.items()
            if (members := [own[name] for name in names if name in own])
        }
        return found | ({self.protocol.group_kind: own} if own else {}) | ({"average": families} if families else {})

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
            if done >= self.protocol.first_round
        }

    def per_query(self) -> dict[str, dict[str, float | int | None]]:
        """Query id -> metric -> value, None where a query has no positive. `hits@k` are a dialogue's: they stand with
        its last query, and are None in its others."""
        values = {name: of.tolist() for name, of in self._reported.items()}
        return {
            query_id: {
                "positives": int(self.positives[row]),
                **{name: None if math.isnan(of[row]) else of[row] for name, of in values.items()},
            }
            for row, query_id in enumerate(self.query_ids)
        }

    def of_queries(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """The name of a mean -> query id -> the value there, of the queries that the mean is over; without the means
        that a protocol takes of groups' means."""
        by_mean, means = {mean_name(name): values for name, values in self._reported.items()}, self.means()
        found = {
            name: {q: float(v) for q, v in zip(self.query_ids, by_mean[name], strict=True) if not np.isnan(v)}
            for name in names
            if name in by_mean
        }
        return {
            name: values
            for name, values in found.items()
            if (mean := means.get(name)) is not None and math.isclose(sum(values.values()) / len(values), mean)
        }

    def _by(self, kind: str) -> dict[str, Means]:
        groups = np.array([meta.groups.get(kind, "") for meta in self.meta])
        return {group: self._means(groups == group) for group in sorted(set(groups.tolist()) - {""})}

    def _by_own_group(self) -> dict[str, Means]:
        """The means within each group of the protocol, in the order in which they first occur."""
        groups = self.protocol.groups
        own = [groups.get(query_id, ()) for query_id in self.query_ids]
        having = {group: [group in of for of in own] for group in _values(groups)}
        return {group: self._means(np.array(rows, dtype=np.bool_)) for group, rows in having.items() if any(rows)}

    def _means(self, rows: NDArray[np.bool_]) -> Means:
        return _means(self._reported, rows)

    @cached_property
    def _reported(self) -> Mapping[str, metrics.Values]:
        """The values, with those of a dialogue as a whole at its last query alone."""
        earlier = {query_id for ids in self.dialogues for query_id in ids[:-1]}
        passing = np.array([query_id in earlier for query_id in self.query_ids], dtype=np.bool_)
        return {name: np.where(passing, np.nan, of) if _is_carried(name) else of for name, of in self.values.items()}


def score(benchmark: Benchmark, results: Mapping[str, RerankResult], official: OfficialScores | None = None) -> Scores:
    """Score rankings against the judgments. Raises ValueError for a ranking that is no strict order of images.

    With `official` scores, by query and image, AP and nDCG are INQUIRE's own, in which equal scores are a tie. Where
    relevant images are not equally relevant, nDCG counts the judgment as gain.
    """
    ids = tuple(results)
    orders = {query_id: scored_order(benchmark, result) for query_id, result in results.items()}
    judgments = [benchmark.judgments(query_id) for query_id in ids]
    positives = np.array([sum(judged.values()) for judged in judgments], dtype=np.int64)
    final, prior = [], []
    for (query_id, result), judged in zip(results.items(), judgments, strict=True):
        _require_strict(result)
        final.append([judged.get(image_id, 0) for image_id in orders[query_id]])
        kept = set(orders[query_id])
        by_prior = sorted(result.ranking, key=attrgetter("prior_rank"))
        prior.append([judged.get(ranked.image_id, 0) for ranked in by_prior if ranked.image_id in kept])
    names, relevance = computed(benchmark), _padded(final)
    values = {name: metric(name)(relevance, positives) for name in names if is_metric(name)}
    values |= _graded_values(benchmark, orders, names)
    if official is not None:
        values |= _official_values(results, final, positives, official)
    values |= protocol_values(benchmark, orders, names)
    if MODALITY_ACCURACY in names:
        values[MODALITY_ACCURACY] = modality_accuracies(benchmark, results.values())
    for name, parts in benchmark.protocol.averages.items():
        values[name] = np.mean([values[part] for part in parts], axis=0)
    values[FIRST_STAGE_RECALL] = metrics.recall(_padded(prior), positives, k=100)
    values |= nothing_values(results.values(), positives)
    if benchmark.near_misses is not None:
        shares = np.array([_share(result, benchmark.near_misses) for result in results.values()])
        # Over the same queries as the other means; over all queries where none has anything to find.
        values[NEAR_MISSES] = np.where((positives > 0) | ~(positives > 0).any(), shares, np.nan)
    meta = tuple(benchmark.meta.get(query_id, QueryMeta()) for query_id in ids)
    dialogues = tuple(filter(None, (tuple(q for q in of if q in results) for of in benchmark.dialogues)))
    rows = {query_id: row for row, query_id in enumerate(ids)}
    for of in dialogues:
        at = [rows[query_id] for query_id in of]
        early = [rows[q] for q in of if benchmark.rounds[q] < benchmark.protocol.first_round]
        for name in filter(_is_hits, values):
            values[name][early] = np.minimum(values[name][early], 0.0)  # NaN stays
            values[name][at] = metrics.carried(values[name][at])
    official_ties = official is not None
    return Scores(ids, meta, positives, values, benchmark.rounds, dialogues, official_ties, benchmark.protocol)


def scored_order(benchmark: Benchmark, result: RerankResult) -> list[str]:
    """The ranked image ids as they are scored: without the reference image, unless the protocol keeps it."""
    left_out = None if benchmark.protocol.keeps_reference else result.reference_image
    return [ranked.image_id for ranked in result.ranking if ranked.image_id != left_out]


def _graded_values(
    benchmark: Benchmark, orders: Mapping[str, Sequence[str]], names: Sequence[str]
) -> dict[str, metrics.Values]:
    """nDCG@k by the judgments themselves; nothing where all relevant images are equally relevant."""
    grades = {query_id: benchmark.grades(query_id) for query_id in orders}
    if all(grade <= 1 for judged in grades.values() for grade in judged.values()):
        return {}
    ideal = _padded([sorted((max(g, 0) for g in judged.values()), reverse=True) for judged in grades.values()])
    gains = _padded([[max(grades[q].get(image, 0), 0) for image in order] for q, order in orders.items()])
    depths = {name: depth for name in names if is_metric(name) and (depth := _ndcg_depth(name))}
    return {name: metrics.graded_ndcg(gains, ideal, depth) for name, depth in depths.items()}


def _ndcg_depth(name: str) -> int | None:
    kind, depth = cut_off(name)
    return depth if kind == "nDCG" else None


def _share(result: RerankResult, near_misses: Mapping[str, frozenset[str]]) -> float:
    near = near_misses.get(result.query_id, frozenset())
    return sum(ranked.image_id in near for ranked in result.ranking[:_FIRST]) / _FIRST


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
        if official := _OFFICIAL.get(kind):
            k = int(depth)
            rows = zip(relevance, ranked, positives.tolist(), strict=True)
            values[name] = np.array([official(hits[:k], own[:k], found) for hits, own, found in rows])
    return values


def _means(values: Mapping[str, metrics.Values], rows: NDArray[np.bool_] | NDArray[np.int64]) -> Means:
    return {mean_name(name): metrics.mean(of[rows]) for name, of in values.items()}


def _mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of groups' means; None where one of them has none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _values(groups: Mapping[str, Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(group for own in groups.values() for group in own))


def _is_hits(name: str) -> bool:
    return name.startswith("hits@")


def _is_carried(name: str) -> bool:
    """Whether a metric is a dialogue's as a whole, and stands with its last query."""
    return name == BRI or _is_hits(name)


def _require_strict(result: RerankResult) -> None:
    scores = [ranked.score for ranked in result.ranking]
    if any(below >= above for above, below in pairwise(scores)):
        raise ValueError(f"{result.strategy} ranks {result.query_id} with tied or rising scores")
    if len({ranked.image_id for ranked in result.ranking}) < len(scores):
        raise ValueError(f"{result.strategy} ranks an image of {result.query_id} twice")


def _padded(rows: list[list[int]]) -> NDArray[np.int64]:
    """Rows of unequal length as one matrix, filled up with 0."""
    matrix = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.int64)
    for row, values in enumerate(rows):
        matrix[row, : len(values)] = values
    return matrix
