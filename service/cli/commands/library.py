"""`fieldscope index` and `fieldscope caption`: a folder of images, made searchable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import clip_options, json_option, model_options
from fieldscope.service.wiring.feedback import keeping, progress, warn
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.skipped import skipped_lines

if TYPE_CHECKING:
    pass

SHOWN = 20


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option("--index-type", "kind", default="faiss", show_default=True, metavar="NAME", help="A registered index.")
@json_option
@clip_options
def index(folder: Path, out: Path, kind: str, as_json: bool, settings: Settings) -> None:
    """Make a folder of images searchable.

    The images in FOLDER, or in Parquet files there, are encoded with a CLIP into DIR. What was encoded is kept: the
    same command goes on after a stop, and adds new images later. A picture is told by its content, whatever the file
    is called. All other files, and pictures that can't be read, are listed with the reason, there and in
    DIR/skipped.json.
    """
    from fieldscope.retrieval.library import build_index
    from fieldscope.retrieval.opening import open_collection
    from fieldscope.service.wiring.bundled import FOREIGN
    from fieldscope.service.wiring.models import load_encoder
    from fieldscope.service.wiring.own_pictures import all_fieldnotes

    collection = open_collection([folder])
    flags = [] if settings.clip or all_fieldnotes(collection, collection.ids()) else [FOREIGN]
    for flag in flags:
        warn(flag)
    encoder = load_encoder(settings)
    kept = f"what was encoded is kept in {out}, and the same command goes on there"
    with keeping(kept), progress("encoding images") as report:
        name = settings.clip or "bundled"
        built = build_index(collection, encoder, out, encoder_name=name, index_kind=kind, progress=report)
    if as_json:
        skipped = [{"image": image, "reason": reason} for image, reason in built.skipped.items()]
        show_json(
            {"index": str(out), "indexed": built.indexed, "encoded": built.encoded, "skipped": skipped, "flags": flags}
        )
        return
    show(f"{built.indexed:,} images are searchable in {out}; {built.encoded:,} of them were encoded just now.")
    show(*skipped_lines(built.skipped))


@click.command()
@click.argument("folder", metavar="LIBRARY", type=click.Path(path_type=Path))
@json_option
@model_options
def caption(folder: Path, as_json: bool, settings: Settings) -> None:
    """Describe the images of an index in words.

    The LMM writes a caption for every image of LIBRARY, which `fieldscope index` made, and they are kept there: a
    strategy with a caption weight then compares a query with them, too. The same command goes on after a stop.
    """
    from fieldscope.core.errors import LMMError
    from fieldscope.retrieval.captions import write_captions
    from fieldscope.retrieval.library import open_library
    from fieldscope.service.wiring.bundled import FOREIGN
    from fieldscope.service.wiring.models import load_encoder, require_server
    from fieldscope.service.wiring.own_pictures import all_fieldnotes
    from fieldscope.service.workflows.caption import caption_images

    require_server(settings)
    encoder = load_encoder(settings)
    library = open_library(folder, encoder)
    images, ids = library.collection, library.ids
    flags = [] if (settings.clip and settings.lmm_url) or all_fieldnotes(images, ids) else [FOREIGN]
    for flag in flags:
        warn(flag)
    captions, failed = caption_images(images, ids, settings)
    if not captions:
        raise LMMError(f"none of {len(ids)} images got a caption; the first: {next(iter(failed.values()))}")
    with progress("encoding captions") as report:
        write_captions(folder, captions, encoder, report)
    if as_json:
        reasons = [{"image": image, "reason": reason} for image, reason in failed.items()]
        show_json({"index": str(folder), "captioned": len(captions), "failed": reasons, "flags": flags})
        return
    show(f"{len(captions):,} of {len(ids):,} images in {folder} have a caption.")
    if failed:
        show(f"without: {len(failed):,}:", *(f"  {image}: {reason}" for image, reason in failed.items()))
