"""A comparison of runs for programs: rows that a data frame takes as they are."""

from __future__ import annotations

from typing import Any

from fieldscope.agent.usage import Usage
from fieldscope.eval.measures.run_comparison import Effect, ScoredComparison
from fieldscope.eval.reported import value_name


def payload(found: ScoredComparison) -> dict[str, Any]:
    """Everything as one JSON-able object, in rows that a data frame takes as they are.

    Metrics and differences are fractions, not percent. `pairs` has a row for each pair and metric, `groups` one for
    each pair, metric, kind of group and group, `queries` one for each query.
    """
    benchmark, split = found.runs[0].benchmark
    return {
        "benchmark": benchmark,
        "split": split,
        "queries_scored": found.queries,
        "metrics": list(found.metrics),
        "runs": [
            {
                "run": run.name,
                "folder": str(run.folder),
                "strategy": run.strategy,
                "model": run.lmm,
                "means": {metric: run.mean(value_name(metric)) for metric in found.metrics},
                "cost": {
                    **_cost(run.spent),
                    **({"money": run.money} if found.currency else {}),
                },
                "unknown": run.unknown,
                "nothing": {metric: sum(said.values()) / len(said) for metric, said in run.nothing.items()},
            }
            for run in found.runs
        ],
        **({"currency": found.currency} if found.currency else {}),
        "front": found.fronts,
        "pairs": [
            {
                "a": pair.a.name,
                "b": pair.b.name,
                "metric": metric,
                **_row(effect),
                "won": pair.won(metric),
                "tied": pair.tied(metric),
                "lost": pair.lost(metric),
            }
            for pair in found.pairs
            for metric, effect in pair.effects.items()
        ],
        "groups": [
            {"a": pair.a.name, "b": pair.b.name, "metric": metric, "kind": kind, "group": group, **_row(effect)}
            for pair in found.pairs
            for kind, groups in pair.groups.items()
            for group, effects in groups.items()
            for metric, effect in effects.items()
        ],
        "queries": [
            {
                "query_id": query,
                "query": found.runs[0].text(query),
                **found.runs[0].groups.get(query, {}),
                "values": {
                    metric: {run.name: run.values[query][value_name(metric)] for run in found.runs}
                    for metric in found.metrics
                },
            }
            for query in found.runs[0].values
        ],
        "notes": found.notes,
    }


def _row(effect: Effect) -> dict[str, Any]:
    test = effect.test
    return {
        "queries": test.queries,
        "mean_a": test.mean_a,
        "mean_b": test.mean_b,
        "delta": test.difference,
        "ci_low": test.low,
        "ci_high": test.high,
        "p_value": test.p,
        "p_holm": effect.p_holm,
        "significant": effect.significant,
        "detectable": effect.detectable,
        "wins": test.wins,
        "ties": test.ties,
        "losses": test.losses,
    }


def _cost(spent: Usage) -> dict[str, float]:
    return {
        "calls": spent.calls,
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "seconds": spent.seconds,
        "wall": spent.wall,
    }
