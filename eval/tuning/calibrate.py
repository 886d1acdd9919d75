"""From a validation split's verdicts, comparisons and judgments to a calibration. No test split can be used."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import log
from typing import Any, Literal

import numpy as np

from fieldscope.agent.calibration import UNCALIBRATED, Calibration, CalibrationKey
from fieldscope.agent.fusion import log_odds
from fieldscope.agent.scoring import read_again
from fieldscope.agent.strategies.ordering import Fusion
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import Comparison, RerankResult
from fieldscope.agent.verdicts import latest
from fieldscope.core.errors import ConfigError
from fieldscope.eval.tuning.closer_looks import fit_looks, log_odds_after_all_looks, looked_at
from fieldscope.eval.tuning.estimate import predicates_per_word, profile
from fieldscope.eval.tuning.fitting import (
    Compared,
    Floats,
    VerdictFit,
    fit_comparison_weight,
    fit_first_look,
    fit_joint,
    fit_nothing_below,
    fit_scored,
    fit_spread,
    fit_verdicts,
)
from fieldscope.eval.tuning.judged import Judged, all_judged, find_scales, scale_of, stacked
from fieldscope.eval.types import Benchmark

SELECTION_SPLITS = ("train", "dev", "development", "val", "validation")
"""The splits that may decide a setting."""

HEAD = 20
"""How deep comparisons, and errors of order, are looked at: as deep as the strategies compare."""

SMALLEST_SHARE = 0.05
"""The share of images on which joint answers are compared with single ones where a strategy compares none."""

_WEIGHTS = (*("temperature", "whole_weight", "miss_odds", "false_alarm_odds", "part_cost", "prior_weight", "bias"),)
"""The fields of a fit and of a calibration that are about answers and priors."""

FEW = 5
NEIGHBOURS = 3
"""How many images of each head are compared with each other, and how many of them stand side by side."""


def require_selection_split(split: str) -> None:
    """Raise `ConfigError` for a split that may not decide a setting: the test split, and files that name no split."""
    if split not in SELECTION_SPLITS:
        raise ConfigError(
            f"settings may not be fitted on the split {split!r}. Use one of {', '.join(SELECTION_SPLITS)}."
        )


def verification(strategy: Strategy) -> Strategy:
    """The part of a strategy that comes before its comparisons, with every question asked; the first stage alone
    where it verifies nothing. Raises `ConfigError` for a strategy that does not use a calibration."""
    if strategy.fusion.method != "posterior":
        raise ConfigError(
            f"strategy {strategy.name!r} has nothing to fit: its fusion is {strategy.fusion.method!r}. Name a strategy "
            "whose fusion is 'posterior'."
        )
    if strategy.verify is None:
        method: Literal["prior", "score"] = "score" if strategy.weighs_scores else "prior"
        return Strategy(
            name=strategy.name, retrieve=strategy.retrieve, score=strategy.score, fusion=Fusion(method=method)
        )
    joint = strategy.verify.joint
    if joint is not None:  # every question is asked both ways, since no two ways agree without a difference
        both = {"use": "always", "agreement": 1.0, "sample": joint.sample or SMALLEST_SHARE, "look_again": None}
        joint = joint.model_copy(update=both)
    return strategy.model_copy(
        update={
            "verify": strategy.verify.model_copy(update={"stop_below": None, "joint": joint}),
            "inspect": strategy.inspect and strategy.inspect.model_copy(update={"always": True}),
            "refine": None,
            "compare": None,
            "explain": None,
            # Only the verdicts are needed. A posterior would depend on what was fitted before.
            "fusion": Fusion(method="agreement"),
        }
    )


def draw_groups(head: Sequence[str], size: int, seed: str) -> list[tuple[str, ...]]:
    """Groups of `size` images to compare: all among `FEW` images of the head, of which `NEIGHBOURS` follow each other
    and the others may stand anywhere. What is relevant plays no part, and the same seed draws the same.

    Among few, since in a run, too, an image is compared several times: the errors that its comparisons share must show.
    """
    chance = random.Random(seed)
    start = chance.randrange(max(len(head) - NEIGHBOURS, 0) + 1)
    near = range(start, min(start + NEIGHBOURS, len(head)))
    far = [place for place in range(len(head)) if place not in near]
    places = sorted([*near, *chance.sample(far, k=min(FEW - NEIGHBOURS, len(far)))])
    return list(combinations([head[place] for place in places], size))


@dataclass(frozen=True)
class Labelled:
    """A split that may decide a setting, and the results of `verification` on it. Raises `ConfigError` for a split that
    may not decide."""

    benchmark: Benchmark
    results: Mapping[str, RerankResult]

    def __post_init__(self) -> None:
        require_selection_split(self.benchmark.split)


def heads(
    benchmark: Benchmark, results: Mapping[str, RerankResult], weighs_scores: bool = False
) -> dict[str, list[str]]:
    """The best `HEAD` images of each query after the fit to its verdicts, best first; to the scores of a scoring model,
    too, where the strategy weighs them. Raises as `calibrate` does."""
    require_selection_split(benchmark.split)
    results, _ = _scored_anew(benchmark, results)
    judged = all_judged(benchmark, results, find_scales(results, weighs_scores))
    fit = _fit(list(judged.values()))
    return {query_id: _best(query, query.log_odds(fit)) for query_id, query in judged.items()}


def calibrate(
    benchmark: Benchmark, results: Mapping[str, RerankResult], key: CalibrationKey, also: Sequence[Labelled] = ()
) -> Calibration:
    """Fit to the results of `verification`, with the comparisons of `draw_groups` in both orders among them, and to
    those of further benchmarks together. Where the key names a scoring model, its scores have a weight beside the
    prior. Images at which closer looks were taken have weights of their own, and their queries a threshold: what
    pictures are worth as they are is fitted to the others, where there are any.

    Raises `ConfigError` for a split that may not decide a setting, and where there is nothing to fit to.
    """
    labelled = [Labelled(benchmark, results), *also]
    weighs_scores = key.scorer is not None
    benchmark, results = _joined(labelled)
    results, of_predicates = _scored_anew(benchmark, results)
    looked = {query_id for query_id, result in results.items() if any(verdict.look for verdict in result.verdicts)}
    as_is = {query_id: result for query_id, result in results.items() if query_id not in looked} or results
    scales = find_scales(as_is, weighs_scores)
    judged = all_judged(benchmark, results, scales)
    plain = {query_id: judged[query_id] for query_id in as_is}
    fit = _fit(list(plain.values()))
    joint = _joint(judged, all_judged(benchmark, results, scales, joint=True), fit)
    closer = looked_at(list(judged.values()), list(results.values()), fit)
    looks = fit_looks(closer, fit)
    log_odds_after = log_odds_after_all_looks(judged, closer, looks, fit)
    gaps: list[float] = []
    duels: list[_Duel] = []
    compared: list[Compared] = []
    for query_id, query in judged.items():
        comparisons = [c for c in results[query_id].comparisons if c.state == "answered"]
        gaps += _gaps(query, log_odds_after[query_id])
        duels += _duels(comparisons)
        compared.append(_compared(query, log_odds_after[query_id], comparisons))
    spread = fit_spread(gaps)
    position_bias = float(np.mean([duel.position_bias for duel in duels])) if duels else 0.0
    finished = list(results.values())
    return Calibration(
        key=key,
        benchmark=benchmark.name,
        split=benchmark.split,
        queries=len(finished),
        **{name: getattr(fit, name) for name in _WEIGHTS},
        prior_scale=scales.prior,
        scorer_values=scales.scorer,
        nothing_below=_nothing_below(plain, log_odds_after),
        looked_nothing_below=_nothing_below({name: judged[name] for name in looked}, log_odds_after)
        if looked
        else None,
        spread=spread,
        comparison_weight=fit_comparison_weight(compared, spread, position_bias),
        position_bias=position_bias,
        consistency=float(np.mean([duel.consistent for duel in duels])) if duels else None,
        **joint,
        **of_predicates,
        **_beside_the_prior(list(judged.values()), fit),
        looks=looks,
        pass_rates=_pass_rates(list(as_is.values())),
        predicates_per_word=predicates_per_word(finished),
        tokens=profile(finished),
    )


def _joined(labelled: Sequence[Labelled]) -> tuple[Benchmark, Mapping[str, RerankResult]]:
    """Several benchmarks as one: their names joined, and their queries told apart where they have the same ids."""
    first, *others = labelled
    if not others:
        return first.benchmark, first.results

    def apart(each: Labelled, query_id: str) -> str:
        return f"{each.benchmark.name}/{each.benchmark.split}/{query_id}"

    names, splits = ([getattr(each.benchmark, of) for each in labelled] for of in ("name", "split"))
    queries = [(each, query) for each in labelled for query in each.benchmark.queries if query.id in each.results]
    sets = {
        apart(each, query.id): found
        for each, query in queries
        if (found := each.benchmark.candidates(query.id)) is not None
    }
    joined = Benchmark(
        name=" and ".join(names),
        split=" and ".join(dict.fromkeys(splits)),
        queries=tuple(query.model_copy(update={"id": apart(each, query.id)}) for each, query in queries),
        qrels={apart(each, query.id): each.benchmark.judgments(query.id) for each, query in queries},
        images=first.benchmark.images,
        candidate_sets=sets if len(sets) == len(queries) else None,
    )
    results = {apart(each, query.id): each.results[query.id] for each, query in queries}
    return joined, results


def calibrate_composed(
    calibration: Calibration, benchmark: Benchmark, results: Mapping[str, RerankResult]
) -> Calibration:
    """The calibration with a threshold of *nothing matches* for queries with a reference image, from the results of
    `verification` on `benchmark`. Where the model described the reference wrongly, its answers refute every match, so
    that a query looks like one without a match.

    Raises as `calibrate` does, and `ConfigError` for a calibration that weighs the scores of a scoring model.
    """
    require_selection_split(benchmark.split)
    if calibration.scorer_weight is not None:
        raise ConfigError(
            "queries with a reference image have no threshold of their own where a scoring model's scores count. Leave "
            "out `--composed`."
        )
    judged = all_judged(benchmark, results, find_scales(results, weighs_scores=False))
    fit = VerdictFit(**{name: getattr(calibration, name) for name in _WEIGHTS})
    log_odds = {query_id: query.log_odds(fit) for query_id, query in judged.items()}
    return calibration.model_copy(update={"composed_nothing_below": _nothing_below(judged, log_odds)})


@dataclass(frozen=True)
class _Duel:
    """Two images compared in both orders: the log-odds for the one shown earlier, and whether both orders prefer the
    same."""

    position_bias: float
    consistent: bool


def _nothing_below(judged: Mapping[str, Judged], log_odds: Mapping[str, Floats]) -> float | None:
    """The threshold of the best P(match), from queries as they are and from their lists without the matches; None
    without answers."""
    if not any(query.verdicts.size or query.whole.any() for query in judged.values()):
        return None
    with_match, without = [], []
    for query_id, query in judged.items():
        p_match, relevant = 1.0 / (1.0 + np.exp(-log_odds[query_id])), np.array(query.relevant, dtype=np.bool_)
        if relevant.any():
            with_match.append(float(p_match.max()))
        if not relevant.all():
            without.append(float(p_match[~relevant].max()))
    return fit_nothing_below(with_match, without)


def _fit(judged: Sequence[Judged]) -> VerdictFit:
    prior, verdicts, whole, relevant, scored = stacked(judged)
    if len(set(relevant)) < 2:
        raise ConfigError(
            "a calibration needs relevant and irrelevant candidates with answers, and these are all alike. Use more "
            "queries."
        )
    return fit_verdicts(prior, verdicts, whole, relevant, scored)


def _beside_the_prior(judged: Sequence[Judged], fit: VerdictFit) -> dict[str, Any]:
    """The fields of a calibration that are about the scores of a scoring model as evidence; none where it has none."""
    prior, *_, relevant, scored = stacked(judged)
    if scored is None:
        return {}
    look = fit_first_look(prior, scored, relevant)
    return {"scorer_weight": fit.scorer_weight, "first_look": look if look.scorer_weight else None}


def _scored_anew(
    benchmark: Benchmark, results: Mapping[str, RerankResult]
) -> tuple[Mapping[str, RerankResult], dict[str, Any]]:
    """The results, the scorer's verdicts on predicates as they are once fitted; and the fields of a calibration that
    are about them. None where the scorer answered no predicate."""
    if not any(verdict.mode == "scored" for result in results.values() for verdict in result.verdicts):
        return results, {}
    values = [score.value for result in results.values() for score in result.scores if score.predicate is not None]
    scale = scale_of([value for value in values if value is not None])
    usual = UNCALIBRATED.model_copy(update={"predicate_values": scale})
    standard = {query_id: _with_scored(result, usual) for query_id, result in results.items()}
    scores, expected, relevant = [], [], []
    for query_id, result in standard.items():
        judgments = benchmark.judgments(query_id)
        sides = {predicate.id: 1.0 if predicate.expected == "yes" else -1.0 for predicate in result.predicates}
        own: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for verdict in result.verdicts:
            if verdict.mode == "scored" and verdict.p_yes is not None and verdict.predicate in sides:
                own[verdict.image_id].append((log_odds(verdict.p_yes), sides[verdict.predicate]))
        for image_id, answers in own.items():
            scores.append([score for score, _ in answers])
            expected.append([side for _, side in answers])
            relevant.append(judgments.get(image_id, 0))
    steepness, offset = fit_scored(_padded(scores), _padded(expected), relevant)
    of_predicates = {"scored_scale": steepness, "scored_offset": offset, "predicate_values": scale}
    fitted = usual.model_copy(update=of_predicates)
    return {query_id: _with_scored(result, fitted) for query_id, result in results.items()}, of_predicates


def _with_scored(result: RerankResult, calibration: Calibration) -> RerankResult:
    verdicts = read_again(result.verdicts, result.predicates, result.scores, calibration)
    return result.model_copy(update={"verdicts": verdicts})


def _padded(rows: Sequence[Sequence[float]]) -> Floats:
    """(n, k) with infinity behind the shorter rows."""
    widest = max(map(len, rows), default=0)
    return np.array([[*row, *[np.inf] * (widest - len(row))] for row in rows]).reshape(len(rows), widest)


def _joint(single: Mapping[str, Judged], joint: Mapping[str, Judged], fit: VerdictFit) -> dict[str, float]:
    """The fields of a calibration that are about joint answers; none where there are too few of them."""
    prior, verdicts, whole, relevant, scored = stacked(list(joint.values()))
    comparable = [
        (single[query_id], asked) for query_id, asked in joint.items() if asked.images == single[query_id].images
    ]
    if len(set(relevant)) < 2 or not comparable:
        return {}
    together = fit_joint(fit, prior, verdicts, whole, relevant, scored)
    losses = []
    for alone, asked in comparable:
        verdicts, whole = together.as_single(asked.verdicts, asked.whole)
        after = replace(asked, verdicts=verdicts, whole=whole)
        losses.append(alone.average_precision(fit) - after.average_precision(fit))
    return {
        "joint_temperature": together.temperature,
        "joint_whole_weight": together.whole_weight,
        "joint_loss": float(np.nanmean(losses)),
    }


def _best(query: Judged, scores: Floats) -> list[str]:
    return [query.images[place] for place in np.argsort(-scores, kind="stable")[:HEAD]]


def _gaps(query: Judged, scores: Floats) -> list[float]:
    """How far each relevant image of the head stands above each irrelevant one, in log-odds."""
    head = np.argsort(-scores, kind="stable")[:HEAD]
    relevant = np.array(query.relevant, dtype=np.bool_)[head]
    gaps: list[float] = np.subtract.outer(scores[head][relevant], scores[head][~relevant]).ravel().tolist()
    return gaps


def _duels(comparisons: Sequence[Comparison]) -> list[_Duel]:
    """Every two images that were shown together in two orders and answered about in both."""
    orders: dict[frozenset[str], list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        orders[frozenset(comparison.shown)].append(comparison)
    duels = []
    for shown in orders.values():
        if len(shown) != 2:
            continue
        said = [{i: log(p) for i, p in zip(c.shown, c.probabilities, strict=True)} for c in shown]
        for earlier, later in combinations(shown[0].shown, 2):
            there, back = (logs[earlier] - logs[later] for logs in said)
            duels.append(_Duel((there - back) / 2, there * back > 0))
    return duels


def _compared(query: Judged, scores: Floats, comparisons: Sequence[Comparison]) -> Compared:
    """The images of a query that were compared and whose log-odds are known."""
    known = {image_id: place for place, image_id in enumerate(query.images)}
    usable = [c for c in comparisons if known.keys() >= set(c.shown)]
    places = sorted({known[image_id] for c in usable for image_id in c.shown})
    at = {place: index for index, place in enumerate(places)}
    return Compared(
        log_odds=scores[places],
        showings=tuple(([at[known[i]] for i in c.shown], c.probabilities) for c in usable),
        relevant=np.array(query.relevant, dtype=np.int64)[places],
    )


def _pass_rates(results: Sequence[RerankResult]) -> dict[str, float]:
    """By kind of predicate, the mean P(expected) over images."""
    passed: dict[str, list[float]] = defaultdict(list)
    for result in results:
        kinds = {predicate.id: predicate.kind for predicate in result.predicates}
        for verdict in latest(result.verdicts):
            if verdict.p_expected is not None and verdict.predicate in kinds:
                passed[kinds[verdict.predicate]].append(verdict.p_expected)
    return {kind: float(np.mean(passed[kind])) for kind in sorted(passed)}
