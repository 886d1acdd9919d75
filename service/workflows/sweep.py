"""Sweeps: a grid of strategies on a split that may decide, those of a model together, and a ranked table of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.calibrate import require_named_split

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.eval.tuning.grid import Member
    from fieldscope.eval.types import RunSummary

DEFAULT_SPLIT = "validation"

_WEIGHT = "fusion.prior_weight"


def open_grid(path: Path, names: Sequence[str], benchmark: str, split: str) -> tuple[Member, ...]:
    """The members of a grid file, or those of them that are named.

    Raises `ConfigError`, before the benchmark is opened, for a file that can't be used, and for several members on a
    split that may not decide, or on files that do not say which split they are.
    """
    from fieldscope.eval.tuning.grid import load_grid, pick, require_may_decide

    members = pick(load_grid(path), names, path)
    require_may_decide(members, split)
    if len(members) > 1:
        require_named_split(benchmark, split)
    return members


def by_model(members: Sequence[Member], settings: Settings) -> list[tuple[Settings, list[Strategy]]]:
    """The members' strategies, together where they ask the same model, each model once and in their order.

    Raises `ConfigError` for a model without a server, and for seeds without one: the bundled LMM draws nothing.
    """
    groups: dict[Settings, list[Strategy]] = {}
    for member in members:
        own = settings
        if model := member.model:
            own = replace(settings, lmm_url=model.lmm or settings.lmm_url, model=model.model, revision=model.revision)
            if own.lmm_url is None:
                raise ConfigError(f"the grid's model {model.model!r} is on no server; give it an lmm, or give --lmm")
        if "seed" in member.settings and own.lmm_url is None:
            raise ConfigError("the bundled LMM draws nothing at random; leave 'seed' out of the grid, or name a server")
        groups.setdefault(own, []).append(member.strategy)
    return list(groups.items())


def payload(members: Sequence[Member], summaries: Sequence[RunSummary], grid: Path) -> dict[str, Any]:
    """The runs of a grid as one JSON-able object, best first: what `eval` tells of a run, its rank, and what was varied
    to get it."""
    from fieldscope.eval import report
    from fieldscope.eval.tuning.grid import RANKED_BY

    known = {member.strategy.name: member for member in members}
    told = report.payload(summaries)
    runs = [
        {
            "rank": rank,
            "strategy": (member := known[run["strategy"]]).strategy.name,
            "settings": dict(member.settings),
            "fingerprint": member.strategy.fingerprint,
            **run,
        }
        for rank, run in enumerate(told["runs"], start=1)
    ]
    return {**told, "grid": str(grid), "metric": RANKED_BY, "runs": runs}


def cautions(members: Sequence[Member], summaries: Sequence[RunSummary]) -> list[str]:
    """What makes a comparison within the grid worth less than it seems."""
    from fieldscope.eval.runs.read import read_manifest

    varied = {json.dumps(member.settings[_WEIGHT]) for member in members if _WEIGHT in member.settings}
    if len(varied) > 1 and any(read_manifest(summary.out).setup.calibration for summary in summaries):
        return [
            f"a calibration was fitted for this model and these prompts, and its weight of the prior counts, not "
            f"{_WEIGHT}: what differs in that alone ranks alike"
        ]
    return []
