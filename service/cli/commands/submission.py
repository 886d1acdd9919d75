"""`fieldscope submission`: the files for the test servers of CIRR and CIRCO."""

from __future__ import annotations

from pathlib import Path

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import PATH, folder_option, json_option


@click.command()
@click.argument("run", metavar="RUN", type=PATH)
@folder_option("The folder for the files.", "-o", "--out", required=True)
@json_option
def submission(run: Path, out: Path, as_json: bool) -> None:
    """Write a finished run as the files that the test servers of CIRR and CIRCO take.

    RUN is the folder of one strategy. Nothing is written if the server would refuse it: every query must be there, with
    50 different images each, and for CIRR without the reference image. Existing files are replaced.
    """
    from fieldscope.eval.datasets.submission import write_submission

    files = write_submission(run, out)
    if as_json:
        show_json({"files": [str(path) for path in files]})
    else:
        show(*map(str, files))
