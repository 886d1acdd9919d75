"""`fieldscope label`: labels for images of one ranked list, and what they say of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import FILE, count_option, file_option, json_option
from fieldscope.service.wiring.feedback import note

if TYPE_CHECKING:
    from fieldscope.eval.labels.file import Label, LabelFile

_ANSWERS: dict[str, Label] = {"y": "yes", "n": "no", "u": "unsure"}
_STOP = "q"


@click.command()
@click.argument("labels", type=FILE)
@file_option(
    "--ranking",
    help_text="Begin LABELS with this ranking, which `fieldscope search --json` or `fieldscope rerank --json` printed.",
)
@click.option(
    "--line",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="With --ranking: images with P(match) of at least P lie above the line.  [default: the cut-off of the "
    "ranking's promised precision, else 0.5]",
)
@count_option(
    "--sample",
    help_text="Draw N more images at random, half of them above the line.  [default with --ranking: 40]",
)
@count_option("--next", "following", help_text="Draw N more images whose labels tell most, with known probabilities.")
@click.option("--seed", type=int, default=0, show_default=True, help="With --ranking: what decides the draws.")
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    metavar="SHARE",
    help="How often the intervals hold the truth, at least.",
)
@click.option("--no-prompt", is_flag=True, help="Ask for no labels: they are filled in elsewhere.")
@json_option
def label(
    labels: Path,
    ranking: Path | None,
    line: float | None,
    sample: int | None,
    following: int | None,
    seed: int,
    confidence: float,
    no_prompt: bool,
    as_json: bool,
) -> None:
    """Label images of one ranked list, and estimate its precision and what it missed.

    LABELS is a file of JSON lines. It begins with a ranking (--ranking), of which a random sample is drawn on both
    sides of a line. The labels may be given here, one image after the other, or filled in elsewhere. The report has
    exact intervals: of the precision above the line, and of the number of matches below it.
    """
    from fieldscope.service.workflows.label import open_labels, report_data, report_lines

    file = open_labels(labels, ranking, line, seed, sample, following)
    if not (no_prompt or as_json):
        file = _asked(file, labels)
    if as_json:
        show_json(report_data(file, confidence))
        return
    show(*report_lines(file, confidence))
    if waiting := len(file.unlabelled):
        note(f"{waiting} drawn images have no label yet. Rerun this command to go on, or fill in {labels}.")


def _asked(file: LabelFile, path: Path) -> LabelFile:
    """The file with a label for each drawn image, until the user stops; it is saved after each."""
    waiting = file.unlabelled
    if waiting:
        show(f"Query: {file.ranked.query}", "Answer y (it matches), n (it does not), u (unsure) or q (stop).")
    for number, line in enumerate(waiting, start=1):
        show(f"{number}/{len(waiting)}  {line.path or line.image}")
        try:
            answer = click.prompt("Match", type=click.Choice([*_ANSWERS, _STOP]), err=True)
        except click.Abort:  # the end of the input, or Ctrl-C
            show("")
            break
        if answer == _STOP:
            break
        file = file.labelled(line.image, _ANSWERS[answer])
        file.write(path)
    return file
