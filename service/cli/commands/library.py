"""`fieldscope index` and `fieldscope caption`: a folder of images, made searchable."""

from __future__ import annotations

from pathlib import Path

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import (
    encoder_options,
    file_option,
    folder_option,
    json_option,
    metadata_option,
    model_options,
    ray_option,
)
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.skipped import skipped_data, skipped_lines


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@folder_option("The folder for the index.", "-o", "--out", required=True)
@click.option("--index-type", "kind", default="faiss", show_default=True, metavar="NAME", help="A registered index.")
@metadata_option
@click.option("--tiles", is_flag=True, help="Encode parts of the images, too, for closer looks at them.")
@ray_option
@json_option
@encoder_options
def index(
    folder: Path,
    out: Path,
    kind: str,
    metadata: Path | None,
    tiles: bool,
    ray: str | None,
    as_json: bool,
    settings: Settings,
) -> None:
    """Make a folder of images searchable, or a file of documents.

    An encoder reads the images in FOLDER, or in Parquet files there, into the index; or the documents in a file of JSON
    lines (FILE.jsonl), which are pictures, texts, and pictures with texts. Encoded images are kept: after an
    interruption, rerun the command to continue; later it adds new images. An image is recognised by its content,
    whatever its file is called. Other files, and images that can't be read, are listed with the reason, here and in
    skipped.json in the index. Time and place from EXIF, and the rows of --metadata, are kept beside the index for
    `fieldscope search --filter`; a later run without --metadata reads the same table again.
    """
    from fieldscope.service.workflows.index import index_folder

    indexed = index_folder(folder, out, settings, kind, tiles, metadata, ray)
    build, flags = indexed.build, list(indexed.flags)
    if as_json:
        counts = {"indexed": build.indexed, "encoded": build.encoded}
        columns = {"metadata": list(indexed.records.columns)} if indexed.records else {}
        skipped = skipped_data(build.skipped)
        show_json({"index": str(out), **counts, **columns, "skipped": skipped, "flags": flags})
        return
    show(f"{build.indexed:,} images are searchable in {out}; {build.encoded:,} of them were encoded just now.")
    if indexed.records:
        show(f"Columns of metadata: {', '.join(indexed.records.columns)}.")
    show(*skipped_lines(build.skipped))


@click.command()
@click.argument("target", metavar="INDEX|BENCHMARK")
@folder_option("The folder of a data set's files, as with `fieldscope eval`.", "--data")
@click.option("--split", metavar="NAME", help="The benchmark's split: test, validation, ...  [default: its own]")
@click.option(
    "--prompt",
    default="caption",
    show_default=True,
    metavar="NAME",
    help="The prompt that asks for a caption, such as imagescope_caption; see `fieldscope prompts list`.",
)
@file_option(
    "--from",
    "file",
    help_text="Take the captions from a JSON file of image names and captions, such as ImageScope's "
    "image_caption.json, instead of asking the LMM.",
)
@ray_option
@json_option
@model_options
def caption(
    target: str,
    data: Path | None,
    split: str | None,
    prompt: str,
    file: Path | None,
    ray: str | None,
    as_json: bool,
    settings: Settings,
) -> None:
    """Describe the images of an index in words.

    The LMM writes a caption for every image of INDEX, which `fieldscope index` made, or of the collection that a
    BENCHMARK of `fieldscope eval` searches (cirr, fieldnotes-composed). Strategies with a caption weight then
    compare queries with the captions, too. After an interruption, rerun the command to continue.
    """
    from fieldscope.service.workflows.caption import caption_index, import_captions

    target = f"{target}:{data}" if data is not None else target
    if file is not None:
        done = import_captions(target, file, settings, split)
    else:
        done = caption_index(target, settings, prompt, split, ray)
    folder = done.folder
    if as_json:
        counts = {"captioned": done.captioned, "failed": skipped_data(done.failed)}
        show_json({"index": str(folder), **counts, "flags": list(done.flags)})
        return
    show(f"{done.captioned:,} of {done.images:,} images in {folder} have a caption.")
    if done.failed:
        show(f"without: {len(done.failed):,}:", *(f"  {image}: {reason}" for image, reason in done.failed.items()))
