"""Calls, tokens and mAP@50 of joint answers against single questions, on one split of a benchmark.

    python -m checks.joint_against_single --split validation --limit 40

Both strategies are evaluated with the bundled LMM over the response cache, so a second run costs nothing. Calls and
tokens are those of questions about images: thinking, comparing and explaining are left out. Exits with 1 where the
joint strategy takes more than 1.3 calls an image, or ranks more than 0.5 points of mAP@50 below the single one.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from fieldscope.agent.types import Call
from fieldscope.agent.usage import Usage
from fieldscope.eval.runs.read import read_results
from fieldscope.eval.types import RunSummary
from fieldscope.service.wiring.prompts import prompts_for
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.evaluate import EvaluationPlan, evaluate_benchmark, load_strategies

METRIC = "mAP@50"
MOST_CALLS = 1.3
MOST_POINTS = 0.5


@dataclass(frozen=True)
class Price:
    """What the questions of a run about its images cost, over so many images of all queries; and its mAP@50 in
    points."""

    usage: Usage
    images: int
    points: float

    @property
    def calls(self) -> float:
        """For each image."""
        return self.usage.calls / self.images


def price(run: RunSummary) -> Price:
    """Read from the run's folder."""
    usage, images = Usage(), 0
    for result in read_results(run.out).values():
        images += len(result.ranking)
        joint = [call for call in result.calls if call.stage == "joint"]
        single = [asked for asked in result.asked if not isinstance(asked, Call)]
        usage += Usage.of([*joint, *single])
    return Price(usage, images, 100 * (run.metrics[METRIC] or 0.0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", nargs="?", default="fieldnotes-rerank")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--limit", type=int, help="how many of its queries; all by default")
    parser.add_argument("--single", default="predicates", help="the strategy that asks single questions")
    parser.add_argument("--joint", default="joint", help="the strategy that asks an image's questions together")
    parser.add_argument("--out", type=Path, default=Path("runs/joint-against-single"), help="the folder for the runs")
    parser.add_argument("--cache-file", type=Path, help="the response cache; the user's own by default")
    chosen = parser.parse_args()
    settings = Settings(cache_file=chosen.cache_file)
    strategies = load_strategies((chosen.single, chosen.joint), prompts_for(settings))
    out = chosen.out / f"{Path(chosen.benchmark).name}-{chosen.split}"
    plan = EvaluationPlan(chosen.benchmark, chosen.split, limit=chosen.limit, out=out)
    runs = evaluate_benchmark(plan, strategies, settings).runs
    prices = {run.strategy: price(run) for run in runs}
    print(f"{chosen.benchmark}, {chosen.split}, {runs[0].queries} queries; questions about images only")
    print(f"{'strategy':<12} {METRIC:>7} {'calls':>8} {'calls/image':>12} {'tokens in':>11} {'tokens out':>11}")
    for name, cost in prices.items():
        usage = cost.usage
        print(
            f"{name:<12} {cost.points:>7.2f} {usage.calls:>8,} {cost.calls:>12.2f} {usage.prompt_tokens:>11,} "
            f"{usage.completion_tokens:>11,}"
        )
    single, joint = prices[strategies[0].name], prices[strategies[1].name]
    lost = single.points - joint.points
    reached = joint.calls <= MOST_CALLS and lost <= MOST_POINTS
    print(
        f"{'reached' if reached else 'NOT reached'}: {joint.calls:.2f} calls an image (at most {MOST_CALLS}), "
        f"{lost:+.2f} points of {METRIC} lost (at most {MOST_POINTS})"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
