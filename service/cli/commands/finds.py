"""`fieldscope finds`: the accepted images of a kept search, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.export_options import export_options
from fieldscope.service.cli.options import PATH, file_option, folder_option

if TYPE_CHECKING:
    from fieldscope.service.cli.export_options import Outputs


@click.command()
@click.argument("search", type=PATH)
@click.option("--query", metavar="ID|TEXT", help="A query of the search.  [default: the only one]")
@click.option("--by", metavar="NAME", help="Only the marks of this person count.")
@file_option("--csv", "csv_file", help_text="Write the images with marks, reasons and metadata as CSV.")
@folder_option("Copy the files into FOLDER. No file is overwritten.", "--copy-to")
@export_options
def finds(
    search: Path, query: str | None, by: str | None, csv_file: Path | None, copy_to: Path | None, outputs: Outputs
) -> None:
    """Write the accepted images of a kept search, or all where none is marked, in the formats of other programs.

    SEARCH is the folder of a search: `fieldscope search` and `fieldscope marks` name it. Without an option the CSV is
    printed.
    """
    from fieldscope.service.cli.files import copy_all, write_text
    from fieldscope.service.exports.kept import open_finds
    from fieldscope.service.wiring.feedback import note, warn

    found = open_finds(search, query, by)
    if csv_file is not None:
        write_text(csv_file, found.csv())
        note(f"{len(found.images)} images are in {csv_file}.")
    if copy_to is not None:
        copies = copy_all(found.files(), copy_to)
        note(f"Copied {len(copies)} of {len(found.images)} images to {copy_to}.")
        if missing := len(found.images) - len(copies):
            warn(f"{missing} images have no file of their own, or it is gone. They were not copied.")
    outputs.write(found)
    if csv_file is None and copy_to is None and not outputs.any:
        click.echo(found.csv(), nl=False)
