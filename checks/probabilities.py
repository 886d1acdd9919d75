"""Whether P(match) means what it says, and depends on nothing but its image.

    fieldscope eval fieldnotes-rerank --split validation --strategy agent yes-no-fused --out runs/validation
    fieldscope eval fieldnotes-rerank --strategy agent yes-no-fused --out runs/test
    fieldscope eval fieldnotes-unmatched --strategy agent --out runs/unmatched
    python -m checks.probabilities runs/test --validation runs/validation --unmatched runs/unmatched --end-to-end 500

From finished runs: the calibration error (bins of equal mass) and the log loss of `agent` over each query's ten best,
beside those of the base rate, of the fit of earlier versions to the same answers, and of `yes-no-fused`, whose answers
and priors are fitted on the validation run in the same way; how far P(match) moves between random sub-lists with the
same verdicts, and with `--end-to-end` where the agent asks about each sub-list what it wants; for how many queries with
and without a match it is said that nothing matches; and the recall of P >= 0.5. Exits with 1 where a bound is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np

from fieldscope.agent.calibration import Calibration
from fieldscope.agent.graph import Agent
from fieldscope.agent.match_odds import Floats
from fieldscope.agent.posterior import believe
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import RerankResult
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.measures.reliability import claims, reliability
from fieldscope.eval.runs.inputs import read_inputs
from fieldscope.eval.runs.read import read_judgments, read_results
from fieldscope.eval.tuning.fitting import fit_verdicts
from fieldscope.eval.tuning.judged import judged_candidates
from fieldscope.retrieval.collection import FilesCollection
from fieldscope.service.wiring.benchmarks import open_workload
from fieldscope.service.wiring.models import open_lmm
from fieldscope.service.wiring.settings import Settings

DEEP = 10
MOST_ERROR = 0.07
SAME, USUALLY, RARELY = 1e-6, 0.02, 0.1
ALARMS, SAID = 0.05, 0.8
RECALL_LOST = 0.01
EARLIER = Path("tests/fixtures/first_edition/runs/agent")
"""A run of the first edition, with its calibration."""

Claimed = Mapping[str, list[tuple[float, bool]]]
"""Query id -> (P(match), whether it is relevant) of its best images."""


def state_of(result: RerankResult, candidates: Sequence[Candidate]) -> RerankState:
    """Where a query stood before its ranking, with some of its candidates."""
    return RerankState(
        query=Query(id=result.query_id, text=result.query_text, reference_image=result.reference_image),
        candidates=tuple(candidates),
        predicates=result.predicates,
        verdicts=tuple(verdict for verdict in result.verdicts if verdict.state != "not_asked"),
    )


def by_prior(result: RerankResult) -> list[Candidate]:
    """A result's candidates in the order of their priors."""
    return [ranked.candidate for ranked in sorted(result.ranking, key=lambda ranked: ranked.prior_rank)]


def p_matches(
    result: RerankResult, candidates: Sequence[Candidate], fitted: Calibration | None, strategy: Strategy
) -> dict[str, float]:
    """P(match) of each candidate, from a result's verdicts."""
    belief = believe(state_of(result, candidates), Resources(FilesCollection({}), calibration=fitted), strategy)
    return {c.image_id: float(p) for c, p in zip(candidates, belief.p_match, strict=True)}


def best(p_match: Mapping[str, float], relevant: Mapping[str, int]) -> list[tuple[float, bool]]:
    """The ten best with whether they are relevant."""
    head = sorted(p_match, key=lambda image_id: -p_match[image_id])[:DEEP]
    return [(p_match[image_id], bool(relevant.get(image_id, 0))) for image_id in head]


def log_loss(claimed: Claimed) -> float:
    """Mean surprise of all claims, in nats."""
    together = claims(claimed)
    p, held = np.clip(together.p, 1e-12, 1 - 1e-12), together.held
    return float(-np.mean(held * np.log(p) + (1 - held) * np.log1p(-p)))


def at_base_rate(claimed: Claimed) -> Claimed:
    """The same claims, each with the share of all that are relevant."""
    share = float(np.mean([held for rows in claimed.values() for _, held in rows]))
    return {query_id: [(share, held) for _, held in rows] for query_id, rows in claimed.items()}


def fused(run: Path, validation: Path) -> Claimed:
    """`yes-no-fused` on its own ten best, with answers and priors fitted on its validation run as an agent's are."""
    fitted_to = judged_candidates(read_results(validation), read_judgments(validation))
    empty = np.empty((len(fitted_to.prior), 0))
    fit = fit_verdicts(fitted_to.prior, empty, fitted_to.whole, fitted_to.relevant)
    claimed = {}
    for query_id, result in read_results(run).items():
        one = judged_candidates({query_id: result}, read_judgments(run), fitted_to.scale)
        log_odds = fit.log_odds(one.prior, np.empty((len(one.prior), 0)), one.whole)
        p = dict(zip(one.images, 1.0 / (1.0 + np.exp(-log_odds)), strict=True))
        claimed[query_id] = best(p, read_judgments(run)[query_id])
    return claimed


def sub_lists(results: Mapping[str, RerankResult], number: int) -> Iterator[tuple[RerankResult, list[Candidate]]]:
    """Random parts of queries' lists, the same every time, in the order of the prior."""
    chance = np.random.default_rng(0)
    names = sorted(results)
    for _ in range(number):
        result = results[names[chance.integers(len(names))]]
        candidates = by_prior(result)
        size = int(chance.integers(1, len(candidates) + 1))
        yield result, [candidates[i] for i in sorted(chance.choice(len(candidates), size=size, replace=False))]


async def asked_again(split: str, results: Mapping[str, RerankResult], number: int, run: Path, cache: Path) -> Floats:
    """By how much P(match) of every image differs where the agent asks about sub-lists what it wants. Each list's
    differences become a line of a file beside the run, so that a check that was stopped goes on behind them."""
    digest = sha256((run / "results.jsonl").read_bytes()).hexdigest()
    kept = run.parent / f"neighbours-{digest[:12]}.jsonl"
    line = read_inputs(run).strategy
    strategy = line.strategy().model_copy(update={"explain": None})
    workload = open_workload("fieldnotes-rerank", split, Settings(cache_file=cache))
    queries = {query.id: query for query in workload.benchmark.queries}
    finished = len(kept.read_text().splitlines()) if kept.exists() else 0
    async with open_lmm(Settings(cache_file=cache), workload.benchmark.images) as lmm:
        agent = Agent(Resources(workload.benchmark.images, lmm, calibration=line.weights), strategy)
        with kept.open("a", encoding="utf-8") as file:
            for result, some in islice(sub_lists(results, number), finished, None):
                known = {ranked.image_id: ranked.p_match or 0.0 for ranked in result.ranking}
                again = await agent.rerank(queries[result.query_id], some)
                moved = [abs((ranked.p_match or 0.0) - known[ranked.image_id]) for ranked in again.ranking]
                print(json.dumps(moved), file=file, flush=True)
    rows = kept.read_text(encoding="utf-8").splitlines()[:number]
    return np.concatenate([np.array(json.loads(row)) for row in rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="a folder with runs of agent and yes-no-fused on fieldnotes-rerank")
    parser.add_argument("--validation", type=Path, required=True, help="the same on the validation split")
    parser.add_argument("--unmatched", type=Path, help="a folder with a run of agent on fieldnotes-unmatched")
    parser.add_argument("--end-to-end", type=int, default=0, help="so many sub-lists are asked about again")
    parser.add_argument("--split", default="test", help="the split of the runs, for --end-to-end")
    parser.add_argument("--cache-file", type=Path, help="the response cache; the user's own by default")
    chosen = parser.parse_args()
    faults: list[str] = []

    def tell(what: str, value: float, bound: str = "", holds: bool = True) -> None:
        print(f"{what:<58} {value:>9.4g}  {bound}{'' if holds else '  BROKEN'}", flush=True)
        if not holds:
            faults.append(what)

    run = chosen.runs / "agent"
    results, judgments, line = read_results(run), read_judgments(run), read_inputs(run).strategy
    strategy, fitted = line.strategy(), line.weights
    earlier = read_inputs(EARLIER).strategy.weights
    claimed, before = {}, {}
    recalled, recalled_before, relevant = 0, 0, 0
    for query_id, result in results.items():
        now = {ranked.image_id: ranked.p_match or 0.0 for ranked in result.ranking}
        then = p_matches(result, by_prior(result), earlier, strategy)
        claimed[query_id], before[query_id] = best(now, judgments[query_id]), best(then, judgments[query_id])
        matches = [image_id for image_id in now if judgments[query_id].get(image_id, 0)]
        relevant += len(matches)
        recalled += sum(now[image_id] >= 0.5 for image_id in matches)
        recalled_before += sum(then[image_id] >= 0.5 for image_id in matches)
    error, loss = reliability(claims(claimed)).ece_mass, log_loss(claimed)
    tell(f"calibration error, ten best ({error.low:.3f} to {error.high:.3f})", error.value, "at most 0.07",
         error.value <= MOST_ERROR)  # fmt: skip
    tell("log loss, ten best", loss)
    others = {"base rate": at_base_rate(claimed), "the first edition's fit": before}
    others["yes-no-fused, fitted alike"] = fused(chosen.runs / "yes-no-fused", chosen.validation / "yes-no-fused")
    for name, other in others.items():
        tell(f"  of {name}", log_loss(other), "more", log_loss(other) > loss)
    share, share_before = recalled / relevant, recalled_before / relevant
    tell("recall at P >= 0.5", share, f"at least {share_before - RECALL_LOST:.4f}", share >= share_before - RECALL_LOST)
    with_match = [query_id for query_id, held in judgments.items() if query_id in results and any(held.values())]
    alarms = float(np.mean([results[query_id].nothing is not None for query_id in with_match]))
    tell("nothing said to match, of queries with a match", alarms, "at most 0.05", alarms <= ALARMS)
    if chosen.unmatched:
        without = [result.nothing is not None for result in read_results(chosen.unmatched / "agent").values()]
        tell("  of queries without", float(np.mean(without)), "at least 0.8", float(np.mean(without)) >= SAID)
    moved = 0.0
    for result, some in sub_lists(results, 500):
        known = {ranked.image_id: ranked.p_match or 0.0 for ranked in result.ranking}
        parts = p_matches(result, some, fitted, strategy)
        moved = max(moved, *(abs(known[image_id] - p) for image_id, p in parts.items()))
    tell("neighbours, same verdicts: largest difference", moved, "at most 1e-6", moved <= SAME)
    if chosen.end_to_end:
        again = asked_again(chosen.split, results, chosen.end_to_end, run, chosen.cache_file)
        differences = asyncio.run(again)
        median, high = np.quantile(differences, [0.5, 0.99])
        tell("neighbours, end to end: median", float(median), "at most 0.02", median <= USUALLY)
        tell("  99th percentile", float(high), "at most 0.1", high <= RARELY)
    print("; ".join(faults) or "reached")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
