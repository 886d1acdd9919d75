"""The prompts of two runs side by side, to be edited and run on the same queries. Live only: a service runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fieldscope.prompts.prompt import Prompt
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.page import NoPage, Page
from fieldscope.service.viewer.runs.run import Run


@dataclass(frozen=True)
class EditedSide:
    """A run with its prompts by name. One run may stand on both sides."""

    letter: str
    run: Run
    prompts: dict[str, Prompt]


def page(runs: Sequence[Run]) -> Page:
    """The page of two runs, or of one that is compared with itself in other words. Raises `NoPage` for more runs, for
    runs of different queries, and where a run's prompts can't be edited."""
    if len(runs) > 2:
        raise NoPage("prompts are edited of two runs at a time. Choose two in the list of runs.")
    first, last = runs[0], runs[-1]
    if first.configuration.benchmark != last.configuration.benchmark:
        raise NoPage("these runs are of different benchmarks or splits. Choose two of one table in the list of runs.")
    sides = [_side(letter, run) for letter, run in zip("AB", (first, last), strict=True)]
    return Page(
        address=addresses.edit_prompts_page([run.key for run in runs]),
        template="edit_prompts.html",
        title="Edit prompts",
        context={
            "sides": sides,
            "names": list(dict.fromkeys(name for side in sides for name in side.prompts)),
            "queries": min(len(run.digests) for run in (first, last)),
        },
        crumbs=[
            ("Runs", addresses.INDEX),
            (first.name, addresses.run_page(first.key))
            if len(runs) == 1
            else ("Comparison", addresses.compare_page([run.key for run in runs])),
        ],
        scripts=["workbench_service.js", "edit_prompts.js"],
        styles=["edit_prompts.css"],
    )


def _side(letter: str, run: Run) -> EditedSide:
    strategy = run.strategy_in_full
    if strategy is None or run.inputs is None or not run.inputs.benchmark.rerank or run.judgments is None:
        raise NoPage(
            f"the prompts of {run.name} can't be run again, because its folder has no given candidates with judgments. "
            "Choose a run of a rerank benchmark."
        )
    if not strategy.prompts:
        raise NoPage(f"{run.name} asks no model, so it has no prompts. Choose another run.")
    return EditedSide(letter, run, {prompt.name: prompt for prompt in strategy.prompts})
