"""What a run comes to once all its queries are finished: its summary, and the files that only a whole run has."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fieldscope.agent.types import RerankResult, is_unasked_flag, lost_stage, unknown_flag
from fieldscope.agent.usage import Usage
from fieldscope.core.types import Run
from fieldscope.eval.measures.file_order import file_order
from fieldscope.eval.measures.protocols import small_orders
from fieldscope.eval.measures.scoring import OfficialScores, score, scored_order, shown_metrics
from fieldscope.eval.runs.read import METRICS, QRELS, SUBSETS
from fieldscope.eval.runs.runfolder import RunFolder
from fieldscope.eval.runs.trec import qrels_lines, run_lines
from fieldscope.eval.types import Benchmark, Means, RunSummary

_ELSEWHERE = ("out", "scored_on_test", "by_role", "lmm", "scorer", "prior", "reported", "values")
"""Fields of a summary that `metrics.json` does not have, or has in another form."""


def conclude(
    benchmark: Benchmark,
    strategy: str,
    folder: RunFolder,
    results: Mapping[str, RerankResult],
    cost: Usage,
    by_role: Mapping[str, Usage],
    official: OfficialScores | None = None,
) -> RunSummary:
    """Score a finished run, write `run.trec`, `qrels.trec` and `metrics.json`, and sum it up. `by_role` is the cost of
    each role, where several LMMs were asked; `official` are the numbers that INQUIRE's own metrics are computed from,
    where the run is scored so."""
    scores = score(benchmark, results, official)
    means, groups, breakdowns = scores.means(), scores.by_supercategory(), scores.breakdowns()
    shown = shown_metrics(benchmark)
    asked = [result.asked for result in results.values()]

    def shortened(of: Means) -> Means:
        return {name: of[name] for name in shown}

    summary = RunSummary(
        benchmark=benchmark.name,
        split=benchmark.split,
        strategy=strategy,
        metrics=shortened(means),
        by_supercategory={group: shortened(of) for group, of in groups.items()},
        cost=cost,
        by_role=by_role,
        out=folder.path,
        queries=len(results),
        scored=int((scores.positives > 0).sum()),
        asked=sum(map(len, asked)),
        unknown=cost.unknown,
        ended=dict(sorted(Counter(result.ended for result in results.values() if result.ended).items())),
        flags=_common_flags([set(r.flags) - {unknown_flag(of)} for r, of in zip(results.values(), asked, strict=True)]),
        by_round=scores.by_round(),
        breakdowns={kind: {group: shortened(of) for group, of in own.items()} for kind, own in breakdowns.items()},
        prior=benchmark.prior,
        reported=benchmark.reported,
        values=scores.of_queries(benchmark.reported.overview),
    )
    rankings = {q: tuple((ranked.image_id, ranked.score) for ranked in result.ranking) for q, result in results.items()}
    folder.write("run.trec", run_lines(Run(strategy, rankings)))
    folder.write(QRELS, qrels_lines({query_id: benchmark.grades(query_id) for query_id in results}))
    table = {
        **{key: value for key, value in asdict(summary).items() if key not in _ELSEWHERE},
        "cost": cost_entry(cost),
        **by_role_entry(summary),
        **prior_entry(summary),
        "reported": benchmark.reported.name,
        **({"scoring": "official"} if scores.official else {}),
        **({"file_order": order} if (order := file_order(benchmark, results)) else {}),
        "metrics": means,
        "by_supercategory": groups,
        "breakdowns": breakdowns,
        "per_query": scores.per_query(),
        "groups": {
            query_id: dict(benchmark.meta[query_id].groups) for query_id in results if query_id in benchmark.meta
        },
    }
    if benchmark.protocol.subsets:
        orders = {query_id: scored_order(benchmark, result) for query_id, result in results.items()}
        folder.write(SUBSETS, [json.dumps(small_orders(benchmark, orders)), "\n"])
    folder.write(METRICS, [json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False), "\n"])
    return summary


def cost_entry(cost: Usage) -> dict[str, Any]:
    """A run's cost in `metrics.json` and in what `eval --json` prints; its seconds are the process's own."""
    return {
        "calls": cost.calls,
        "prompt_tokens": cost.prompt_tokens,
        "completion_tokens": cost.completion_tokens,
        "cache_hits": cost.cached,
        "seconds": cost.wall,
    }


def by_role_entry(summary: RunSummary) -> dict[str, Any]:
    """The cost of each role, with the seconds that its answers took; nothing where one LMM has all roles."""
    costs = {role: cost_entry(cost) | {"seconds": cost.seconds} for role, cost in summary.by_role.items()}
    return {"by_role": costs} if costs else {}


def prior_entry(summary: RunSummary) -> dict[str, str]:
    """Where the first-stage scores come from; nothing where the benchmark does not say."""
    return {"prior": summary.prior} if summary.prior else {}


def _common_flags(flags: Sequence[set[str]]) -> tuple[str, ...]:
    """The warnings that hold for every query, and for stages that were lost and candidates that were not asked about on
    some, on how many and one reason, of those of each query: without how many answers are unknown, which is each
    query's own, even where equal."""
    common = set.intersection(*flags)
    counted: dict[str, list[str]] = {}
    for own in flags:
        for flag in own - common:
            if about := flag if is_unasked_flag(flag) else lost_stage(flag):
                counted.setdefault(about, []).append(flag)
    some = [f"on {len(warnings)} of {len(flags)} queries {warnings[0]}" for warnings in counted.values()]
    return (*sorted(common), *sorted(some))
