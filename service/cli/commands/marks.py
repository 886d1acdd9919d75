"""`fieldscope marks`: accepted, rejected and unsure images of a kept search, and what follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import FOLDER, PATH, count_option, folder_option, json_option
from fieldscope.service.wiring.feedback import note

if TYPE_CHECKING:
    from fieldscope.eval.runs.marks import Mark

SHOWN = 20


@click.command()
@click.argument("run", type=PATH)
@click.option("--query", metavar="ID|TEXT", help="A query of the run.  [default: the only one]")
@click.option("--accept", multiple=True, metavar="IMAGE", help="May be repeated. The image matches.")
@click.option("--reject", multiple=True, metavar="IMAGE", help="May be repeated. The image does not match.")
@click.option("--unsure", multiple=True, metavar="IMAGE", help="May be repeated. It can't be said.")
@click.option("--clear", multiple=True, metavar="IMAGE", help="May be repeated. Take the image's mark back.")
@click.option("--by", default="", metavar="NAME", help="Who marks, for the agreement between people.")
@click.option("--refit", "refitting", is_flag=True, help="Rank the other images by the marks. No model is asked.")
@click.option("--index", type=FOLDER, metavar="FOLDER", help="With --refit: the index of the images.")
@count_option("-k", "--top-k", metavar="K", help_text=f"With --refit: show the best K.  [default: {SHOWN}]")
@folder_option(
    "Write queries, images (as links) and marks as a data set of your own, for `eval`, `calibrate` and `measure`.",
    "--dataset",
)
@json_option
def marks(
    run: Path,
    query: str | None,
    accept: tuple[str, ...],
    reject: tuple[str, ...],
    unsure: tuple[str, ...],
    clear: tuple[str, ...],
    by: str,
    refitting: bool,
    index: Path | None,
    top_k: int | None,
    dataset: Path | None,
    as_json: bool,
) -> None:
    """Mark images of a kept search, and use the marks.

    RUN is the folder of a search or of another run. Without an option the marks are shown, with Cohen's kappa between
    the model and each person, and between every two people.
    """
    from fieldscope.service.workflows import marks as work

    made: dict[str, Mark | None] = dict.fromkeys(clear)
    for mark, images in (("accepted", accept), ("rejected", reject), ("unsure", unsure)):
        made |= dict.fromkeys(images, mark)  # type: ignore[arg-type]  # each is a Mark
    if len(made) < len(accept) + len(reject) + len(unsure) + len(clear):
        raise click.UsageError("an image is named twice; give each one mark")
    if made:
        work.mark_images(run, query, made, by)
    if dataset is not None:
        note(f"{work.write_dataset(run, dataset)} judgments are in {dataset}, as its split validation.")
    if refitting:
        queries = work.open_marked(run, query)
        if len(queries) > 1:
            raise click.UsageError("this run has several queries; name one with --query")
        refitted = work.refit(run, queries[0], index)
        if as_json:
            show_json(work.marks_data(queries[0]) | work.refit_data(refitted))
            return
        for place, image in enumerate(refitted.order[: top_k or SHOWN], start=1):
            moved = refitted.moved[image]
            change = f"{moved:+d}" if moved else "="
            show(f"{place:>4}  P(match) {refitted.p_match[image]:.2f}  {change:>4}  {image}")
        show(*refitted.changes)
        return
    found, pairs = work.open_marked(run, query), work.agreement_of(run)
    if as_json:
        kappas = [{"a": pair.a, "b": pair.b, "images": pair.shared, "kappa": pair.kappa} for pair in pairs]
        show_json({"queries": [work.marks_data(each) for each in found], "agreement": kappas})
        return
    for marked in found:
        counts = ", ".join(
            f"{list(marked.marks.values()).count(mark)} {mark}" for mark in ("accepted", "rejected", "unsure")
        )
        show(f"{marked.result.query_text} ({marked.result.query_id}): {counts}")
        show(*(f"  {mark:8}  {image}" for image, mark in marked.marks.items()))
    for pair in pairs:
        if pair.shared:
            kappa = "can't be computed" if pair.kappa is None else f"{pair.kappa:.2f}"
            show(f"Cohen's kappa of {pair.a} and {pair.b} over {pair.shared} images: {kappa}")
