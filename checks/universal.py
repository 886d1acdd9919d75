"""FieldNotes-Universal in M-BEIR's files, and that reading them gives the figures of the native set.

`python -m checks.universal FOLDER` writes a split below FOLDER, ranks both by the first stage, from the tasks' own
pools and from the union, and prints the figures by type. It exits with 1 where any of them differ.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.eval.reported import MODALITY_ACCURACY, TASK_HITS
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.wiring.universal import NAME, write_universal
from fieldscope.service.workflows.evaluate import EvaluationPlan, evaluate_benchmark

Figures = Mapping[str, Mapping[str, float | None]]
"""Type of task -> metric -> mean."""

POOLS = ("local", "union")
SHOWN = (TASK_HITS, "hits@1", MODALITY_ACCURACY)


def figures(benchmark: str, split: str, pool: str, encoder: str | None = None) -> Figures:
    """The first stage's figures by type, and over all tasks as "all"."""
    with tempfile.TemporaryDirectory() as out:
        plan = EvaluationPlan(benchmark, split, out=Path(out), choices={"pool": pool})
        (run,) = evaluate_benchmark(plan, [load_strategy("clip")], Settings(encoder=encoder)).runs
    return {**run.breakdowns["type"], "all": run.metrics}


def compared(folder: Path, split: str, pool: str, encoder: str | None = None) -> tuple[Figures, Figures]:
    """The figures of the native set, and of the files below `folder`."""
    return figures(NAME, split, pool, encoder), figures(f"mbeir:{folder}", split, pool, encoder)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--split", default="validation", show_default=True)
@click.option("--encoder", help="An encoder as `fieldscope eval` takes it.  [default: the bundled CLIP]")
def main(folder: Path, split: str, encoder: str | None) -> None:
    """Write a split of FieldNotes-Universal into M-BEIR's files below FOLDER, and compare both."""
    write_universal(split, folder)
    different = False
    for pool in POOLS:
        native, read = compared(folder, split, pool, encoder)
        different |= native != read
        click.echo(f"{pool} pool: {'equal' if native == read else 'DIFFERENT'}")
        for kind, means in native.items():
            shown = "  ".join(f"{name} {100 * (means.get(name) or 0.0):5.1f}" for name in SHOWN)
            click.echo(f"  {kind:30} {shown}")
    sys.exit(int(different))


if __name__ == "__main__":
    main()
