"""One run: quality as a whole, by group and by query, cost, and configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fieldscope.agent.roles import ROLES, role_identity
from fieldscope.agent.usage import SCORER, Usage
from fieldscope.eval.dialogues import HITS, by_round, dialogues
from fieldscope.eval.measures.paired import EVEN, Mean
from fieldscope.eval.reported import RIGHTLY, mean_name
from fieldscope.eval.runs.read import Metrics
from fieldscope.eval.runs.scored import role_usage
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.charts import bars as charts
from fieldscope.service.viewer.comparison.comparable import companions
from fieldscope.service.viewer.page import Page
from fieldscope.service.viewer.runs.digest import QueryDigest
from fieldscope.service.viewer.runs.overview import Standing, expected, means_of, nothing_said, standings, totals
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.runs.run_list import RunList

_ROUNDS = "rounds of the dialogue"
_LISTED = 5  # queries that were hurt most, and that were helped most


@dataclass(frozen=True)
class Group:
    """A group of queries. `means` are from `metrics.json`; `standing` is that of the main metric, None if the run does
    not say which queries are in the group, or none could be scored."""

    name: str
    queries: int | None
    means: Mapping[str, float | None]
    standing: Standing | None


def page(run: Run, run_list: RunList) -> Page:
    """The page of a run, with links to comparisons with other runs."""
    digests = list(run.digests.values())
    groups = {digest.query_id: run.groups(digest.query_id) for digest in digests}
    names = _group_names(groups)
    found, nothing = standings(digests), nothing_said(digests)
    shown = run.reported.values if found or nothing is None else (RIGHTLY,)
    return Page(
        address=addresses.run_page(run.key),
        template="run.html",
        title=run.name,
        context={
            "run": run,
            "digests": digests,
            "groups": {query_id: {k: own[k] for k in names if k in own} for query_id, own in groups.items()},
            "group_names": names,
            "totals": totals(digests),
            "of": None if run.finished else expected(run),
            "standings": found,
            "nothing": nothing,
            "metrics": [mean_name(value) for value in shown],
            "everything": _everything(run),
            "kinds": _kinds(run, digests),
            "hurt": _most(digests, -1),
            "helped": _most(digests, 1),
            "changes": charts.before_after(digests),
            "costs": charts.cost_bars(digests),
            "companions": companions(run, run_list),
            "definition": run.strategy_line.definition if run.strategy_line else {},
            "told": run.metrics or {},
            "by_role": _by_role(run),
        },
        crumbs=[("Runs", addresses.INDEX)],
        scripts=["run.js"],
        styles=["run.css"],
    )


def _by_role(run: Run) -> list[tuple[str, str | None, Usage]]:
    """The roles of a run that asked several models, with the model and the cost of each, and its scoring model."""
    costs = Metrics.model_validate(run.metrics).by_role if run.metrics is not None else {}
    model = run.configuration.lmm
    roles = [
        (str(role), role_identity(model, role), role_usage(costs[role]))
        for role in ROLES
        if role in costs and not isinstance(model, str)
    ]
    scored = [("scorer (pairs)", run.configuration.scorer, role_usage(costs[SCORER]))] if SCORER in costs else []
    return [*roles, *scored]


def _most(digests: Sequence[QueryDigest], sign: int) -> list[QueryDigest]:
    """The queries whose headline fell (-1) or rose (1) most, largest change first."""
    moved = [(sign * digest.gain, digest) for digest in digests if digest.gain is not None]
    moved = [each for each in moved if each[0] > EVEN]
    return [digest for _, digest in sorted(moved, key=lambda each: (-each[0], each[1].query_id))[:_LISTED]]


def _everything(run: Run) -> list[tuple[str, Mean, float | None]]:
    """Every metric of a finished run with its interval, and its value in the first stage's order if known."""
    if run.metrics is None:
        return []
    before = standings(run.digests.values())
    found = []
    for metric, mean in means_of(run.metrics["per_query"]).items():
        if metric in HITS and run.metrics.get("by_round"):
            continue  # these values are of dialogues, not of queries
        name = mean_name(metric)
        found.append((name, mean, before[name].before if name in before else None))
    return found


def _kinds(run: Run, digests: Sequence[QueryDigest]) -> dict[str, list[Group]]:
    """Kind of group -> its groups, for the kinds in `metrics.json`."""
    if run.metrics is None:
        return {}
    told: dict[str, Mapping[str, Any]] = {"supercategory": run.metrics.get("by_supercategory", {})}
    told |= run.metrics.get("breakdowns", {})
    members: dict[tuple[str, str], list[QueryDigest]] = {}
    for digest in digests:
        for kind, name in run.groups(digest.query_id).items():
            members.setdefault((kind, name), []).append(digest)
    found = {
        kind: [_group(run, name, values, members.get((kind, name))) for name, values in groups.items()]
        for kind, groups in told.items()
        if groups
    }
    return {**found, _ROUNDS: rounds} if (rounds := _rounds(run)) else found


def _group(run: Run, name: str, values: Mapping[str, float | None], members: Sequence[QueryDigest] | None) -> Group:
    if members is None:
        return Group(name, None, values, None)
    return Group(name, len(members), values, standings(members, run.reported.values[:1]).get(run.reported.mean))


def _rounds(run: Run) -> list[Group]:
    """The dialogues after each number of rounds (`eval/dialogues.py`).

    They are computed from the queries if the run has them, because the means in an older `metrics.json` leave out
    shorter dialogues.
    """
    told = (run.metrics or {}).get("by_round", {})
    if not told or run.inputs is None:
        return [_group(run, name, values, None) for name, values in told.items()]
    queries = [line.query for line in run.inputs.queries if line.query is not None and line.id in run.digests]
    followed = [ids for ids in dialogues(queries) if all(run.digests[query_id].scores for query_id in ids)]
    rounds = []
    for done, ids in by_round(followed, {query.id: len(query.dialogue) for query in queries}).items():
        members = [run.digests[query_id] for query_id in ids]
        values = {name: standing.now.value for name, standing in standings(members).items()}
        rounds.append(_group(run, str(done), values, members))
    return rounds


def _group_names(groups: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Kind of group -> its names, for kinds with at least two."""
    found: dict[str, set[str]] = {}
    for own in groups.values():
        for kind, name in own.items():
            found.setdefault(kind, set()).add(name)
    return {kind: sorted(names) for kind, names in found.items() if len(names) > 1}
