"""What an evaluation says of its runs: one object for programs, and a line for each thing to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fieldscope.agent.usage import SCORER, Usage
from fieldscope.eval.conclusion import by_role_entry, cost_entry, prior_entry
from fieldscope.eval.measures.certainty import certainties
from fieldscope.eval.reported import GENERAL
from fieldscope.eval.types import RunSummary


def payload(summaries: Sequence[RunSummary]) -> dict[str, Any]:
    """The runs of one benchmark as one JSON-able object. Metrics are fractions between 0 and 1, or None where no
    query could be scored; full retrieval adds the first stage's recall, and a benchmark that has metrics of its own
    adds the main one's name, `headline`. `prior` says whose the first-stage scores are, `unknown` counts the calls that
    failed,
    `ended` the queries on which a budget ended the work, by stage, `scored_on_test` the runs in which the strategy was
    scored on test; dialogues add `by_round`, and several LMMs add the cost `by_role` and their identities, `lmm`,
    a scoring model its own (its calls are pairs) and its fingerprint, `scorer`. Means over two or more queries have
    `intervals` and, in the headline, the difference `against_first`."""
    return {
        "benchmark": summaries[0].benchmark,
        "split": summaries[0].split,
        **_headline(summaries[0]),
        "runs": [
            {
                "strategy": summary.strategy,
                **prior_entry(summary),
                "metrics": dict(summary.metrics),
                "by_supercategory": {group: dict(means) for group, means in summary.by_supercategory.items()},
                **certainty.payload(),
                **_breakdowns(summary),
                **_by_round(summary),
                "cost": cost_entry(summary.cost),
                **by_role_entry(summary),
                **({"lmm": summary.lmm} if summary.by_role.keys() - {SCORER} else {}),
                **({"scorer": summary.scorer} if summary.scorer else {}),
                "unknown": summary.unknown,
                "ended": dict(summary.ended),
                "scored_on_test": summary.scored_on_test,
                "out": str(summary.out),
            }
            for summary, certainty in zip(summaries, certainties(summaries), strict=True)
        ],
    }


def warnings(summaries: Sequence[RunSummary], failed: Sequence[RunSummary] = ()) -> list[str]:
    """One line for each thing that a reader of the table must know; runs that
    `failed` are left out, since an error reports them."""
    lines = [
        f"{unanswered(summary)}. The affected images keep their first-stage position. The errors are in "
        f"{summary.out / 'results.jsonl'}; rerun this command to ask again."
        for summary in summaries
        if (summary.unknown or summary.by_role.get(SCORER, Usage()).unknown) and summary not in failed
    ]
    lines += [_ended(summary) for summary in summaries if summary.ended]
    first = summaries[0]
    if first.queries and not first.scored:
        lines.append(
            f"none of the {first.queries} queries has a relevant image among its judgments, so AP, nDCG and MRR are "
            "undefined; if a server holds the judgments of this split, `fieldscope submission` writes the files for it"
        )
    elif left_out := first.queries - first.scored:
        lines.append(f"{left_out} of {first.queries} queries have nothing relevant to find; the means leave them out")
    return lines + sorted({flag for summary in summaries for flag in summary.flags})


def unanswered(summary: RunSummary) -> str:
    """How many of a run's calls, and of its scored pairs, failed."""
    scored = summary.by_role.get(SCORER, Usage())
    kinds = ((summary.unknown, summary.asked, "calls"), (scored.unknown, scored.calls, "scored pairs"))
    failures = [
        f"{failed:,} of {asked:,} {what} failed ({100 * failed / asked:.1f} %)"
        for failed, asked, what in kinds
        if failed
    ]
    return f"{summary.strategy}: {' and '.join(failures)}"


def _headline(summary: RunSummary) -> dict[str, Any]:
    return {} if summary.reported == GENERAL else {"headline": summary.reported.mean}


def _breakdowns(summary: RunSummary) -> dict[str, Any]:
    found = {kind: {g: dict(means) for g, means in groups.items()} for kind, groups in summary.breakdowns.items()}
    return {"breakdowns": found} if found else {}


def _by_round(summary: RunSummary) -> dict[str, Any]:
    rounds = {str(done): dict(means) for done, means in summary.by_round.items()}
    return {"by_round": rounds} if rounds else {}


def _ended(summary: RunSummary) -> str:
    stages = ", ".join(f"{stage} {queries:,}" for stage, queries in summary.ended.items())
    return (
        f"{summary.strategy}: a budget ended the work on {sum(summary.ended.values()):,} of {summary.queries:,} "
        f"queries ({stages})"
    )
