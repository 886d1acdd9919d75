"""`fieldscope train-retriever` and `fieldscope distill`: a retriever fine-tuned on one's own queries, or on a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import FOLDER, count_option, folder_option, json_option

if TYPE_CHECKING:
    from fieldscope.retrieval.training.trainer import Stage

_RATE = click.FloatRange(min=0, min_open=True)


@click.command("train-retriever")
@click.argument("data", type=FOLDER)
@folder_option("The folder for the models, one for each stage.", "-o", "--out", required=True)
@folder_option(
    "Start from the model in FOLDER: a CLIP of transformers, or one that this command wrote.  [default: a new one over "
    "--clip]",
    "--from",
    "start",
)
@folder_option("The CLIP under a new model, a folder as open_clip reads it.  [default: the bundled one]", "--clip")
@folder_option("Texts in files of the same shape, for a last stage on both.", "--texts")
@count_option("--steps", default=400, show_default=True, help_text="Steps of each of the first two stages.")
@count_option("--text-steps", default=100, show_default=True, help_text="Steps of the stage on texts.")
@count_option("--batch", default=64, show_default=True, help_text="Queries in a step.")
@click.option(
    "--rate",
    type=_RATE,
    default=1e-3,
    show_default=True,
    metavar="R",
    help="The greatest learning rate; for a CLIP 1e-5.",
)
@click.option(
    "--text-rate", type=_RATE, default=2e-4, show_default=True, metavar="R", help="The same, of the stage on texts."
)
@count_option("--lora", help_text="Train adapters of rank N beside a CLIP's weights, which stay (needs peft).")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="What decides all draws.")
@json_option
def train_retriever(
    data: Path,
    out: Path,
    start: Path | None,
    clip: Path | None,
    texts: Path | None,
    lora: int | None,
    as_json: bool,
    **plan: Any,
) -> None:
    """Fine-tune a retriever on your own queries.

    DATA has training queries, with their positives and instructions, in files of M-BEIR's shape. The first stage learns
    from the other documents of a batch; it mines hard negatives, of the wrong modality and of the right one, with which
    the second stage learns from the start again. Each stage is measured on the validation queries in DATA, if there are
    any. After an interruption, rerun the command to continue: the weights are the same.
    """
    from fieldscope.retrieval.training.trainer import Plan
    from fieldscope.service.workflows import train_retriever as workflow

    training = workflow.train_retriever(data, out, Plan(**plan), start=start, clip=clip, texts=texts, lora=lora)
    _show(training, out, as_json)


@click.command()
@click.argument("run", type=FOLDER)
@folder_option("The model that learns, as with train-retriever.", "--from", "start", required=True)
@folder_option("The folder for the model.", "-o", "--out", required=True)
@folder_option("Measure on the validation queries in this folder of M-BEIR's shape.", "--data")
@folder_option("Train on the training queries in this folder, too, so that the model forgets nothing.", "--replay")
@count_option("--steps", default=100, show_default=True, help_text="Steps.")
@count_option("--batch", default=16, show_default=True, help_text="Queries in a step, each with all of its candidates.")
@click.option("--rate", type=_RATE, default=2e-4, show_default=True, metavar="R", help="The greatest learning rate.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="What decides all draws.")
@json_option
def distill(
    run: Path, start: Path, out: Path, data: Path | None, replay: Path | None, as_json: bool, **plan: Any
) -> None:
    """Teach a retriever what the agent found out.

    RUN is the folder of a run of `fieldscope eval` whose strategy claims P(match). The model learns to rank the
    candidates of each query as P(match) does. After an interruption, rerun the command to continue.
    """
    from fieldscope.retrieval.training.trainer import Plan
    from fieldscope.service.workflows import distill as workflow

    _show(workflow.distill(run, start, out, Plan(**plan), data, replay), out, as_json)


def _show(training: Iterable[Stage], out: Path, as_json: bool) -> None:
    """Print each stage when it ends, or all of them as JSON at the end."""
    stages = []
    for stage in training:
        stages.append(asdict(stage))
        if not as_json:
            show(*_lines(stage))
    if as_json:
        show_json({"out": str(out), "stages": stages})


def _lines(stage: Stage) -> list[str]:
    lines = [f"{stage.name}: {stage.folder}"]
    if stage.losses:
        lines.append(f"  loss: {stage.losses[0]:.3f} at first, {stage.losses[-1]:.3f} at last")
    if stage.mined is not None:
        lines.append(
            f"  hard negatives: {stage.mined['wrong_modality']:,} of the wrong modality for "
            f"{stage.mined['queries_with_wrong_modality']:,} queries, {stage.mined['right_modality']:,} of the right "
            f"one for {stage.mined['queries_with_right_modality']:,}, of {stage.mined['queries']:,} queries"
        )
    if stage.figures is not None:
        lines.append(
            f"  validation: recall {100 * stage.figures['recall']:.1f} %, modality accuracy "
            f"{100 * stage.figures['modality_accuracy']:.1f} %"
        )
    return lines
