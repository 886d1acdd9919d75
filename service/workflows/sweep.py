"""Sweeps: a grid of strategies on a split that may decide a setting, best first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.feedback import warn
from fieldscope.service.wiring.prompts import chosen_prompts, prompts_for
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.calibrate import require_named_split
from fieldscope.service.workflows.evaluate import Contest, EvaluatedRuns, EvaluationPlan, open_evaluation, run_opened
from fieldscope.service.workflows.replay import open_replay

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.eval.runs.replay import Recording
    from fieldscope.eval.tuning.grid import Member
    from fieldscope.eval.types import RunSummary

DEFAULT_SPLIT = "validation"

_WEIGHT = "fusion.prior_weight"


def evaluate_grid(
    plan: EvaluationPlan, members: Sequence[Member], settings: Settings, recording: Recording | None = None
) -> EvaluatedRuns:
    """Run the members of a grid, best first, with a warning where their settings do not tell them apart. With a
    `recording`, `plan` comes from `recorded_plan`.

    Raises what `by_model` raises, `ConfigError` where several members would be scored on a split that may not decide,
    and what `open_evaluation`, `open_replay` and `run_opened` raise.
    """
    from fieldscope.eval.tuning.grid import ranked, require_may_decide

    contests = by_model(members, settings)
    opened = open_replay(plan, recording, contests) if recording else open_evaluation(plan, contests)
    require_may_decide(members, opened.workload.benchmark.split)
    evaluation = run_opened(opened)
    for caution in _cautions(members, evaluation.runs):
        warn(caution)
    return replace(evaluation, runs=ranked(evaluation.runs))


def open_grid(path: Path, names: Sequence[str], plan: EvaluationPlan, settings: Settings) -> tuple[Member, ...]:
    """The members of a grid file, or those of them that are named.

    Raises `ConfigError`, before the benchmark is opened, for a file that can't be used, and for several members on a
    split that may not decide, or on files that do not say which split they are.
    """
    from fieldscope.eval.tuning.grid import load_grid, pick, require_may_decide

    served = chosen_prompts(settings.prompts, bundled=False)  # a grid's models are on servers
    members = pick(load_grid(path, prompts_for(settings), served), names, path)
    split = plan.split or DEFAULT_SPLIT
    require_may_decide(members, split)
    if len(members) > 1:
        require_named_split(plan.benchmark, split)
    return members


def by_model(members: Sequence[Member], settings: Settings) -> list[Contest]:
    """The members' strategies, together where they ask the same model, each model once and in their order.

    Raises `ConfigError` for a model without a server, and for seeds without one: the bundled LMM does not sample.
    """
    strategies: dict[Settings, list[Strategy]] = {}
    for member in members:
        own = settings
        if model := member.model:
            own = replace(settings, lmm_url=model.lmm or settings.lmm_url, model=model.model, revision=model.revision)
            if own.lmm_url is None:
                raise ConfigError(f"the grid's model {model.model!r} is on no server; give it an lmm, or give --lmm")
        if "seed" in member.settings and own.lmm_url is None:
            raise ConfigError("the bundled LMM draws nothing at random; leave 'seed' out of the grid, or name a server")
        strategies.setdefault(own, []).append(member.strategy)
    return [Contest(own, tuple(asking)) for own, asking in strategies.items()]


def payload(members: Sequence[Member], summaries: Sequence[RunSummary], grid: Path) -> dict[str, Any]:
    """The runs of a grid as one JSON-able object, best first: what `eval` tells of a run, its rank, and what was varied
    to get it."""
    from fieldscope.eval import report

    by_name = {member.strategy.name: member for member in members}
    data = report.payload(summaries)
    runs = [
        {
            "rank": rank,
            "strategy": run["strategy"],
            "settings": dict(by_name[run["strategy"]].settings),
            "fingerprint": by_name[run["strategy"]].strategy.fingerprint,
            **run,
        }
        for rank, run in enumerate(data["runs"], start=1)
    ]
    return {**data, "grid": str(grid), "metric": summaries[0].reported.mean, "runs": runs}


def _cautions(members: Sequence[Member], summaries: Sequence[RunSummary]) -> list[str]:
    """What makes a comparison within the grid worth less than it seems."""
    from fieldscope.eval.runs.read import read_manifest

    varied = {json.dumps(member.settings[_WEIGHT]) for member in members if _WEIGHT in member.settings}
    if len(varied) > 1 and any(read_manifest(summary.out).setup.calibration for summary in summaries):
        return [
            f"These runs use the prior's weight from a calibration of this model and these prompts, not {_WEIGHT}. "
            "Members that differ only in it have the same rankings."
        ]
    return []
