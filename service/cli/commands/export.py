"""`fieldscope export`: finished runs as tables for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import json_option, runs_argument

if TYPE_CHECKING:
    from fieldscope.eval.measures.tables import Format

FORMATS: tuple[Format, ...] = ("parquet", "csv")


@click.command()
@runs_argument
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER|FILE",
    help="A folder for all tables, or a file that ends in .parquet or .csv for the rankings only.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    help="The format of the tables.  [default: by the file's name, else parquet]",
)
@json_option
def export(runs: tuple[Path, ...], out: Path, kind: Format | None, as_json: bool) -> None:
    """Write finished runs as Parquet or CSV, for pandas, R or a spreadsheet.

    RUN is a run's folder, or the output folder of `fieldscope eval` for all runs in it. There are three tables:
    rankings (a row per query and image, with the judgment), verdicts (a row per question about an image) and metrics (a
    row per query). Existing files of these names are replaced.
    """
    from fieldscope.eval.measures.tables import export_all, export_rankings, read_exported
    from fieldscope.eval.runs.read import run_folders

    of_name = next((name for name in FORMATS if out.suffix.lower() == f".{name}"), None)
    single = of_name is not None and not out.is_dir()
    if single and kind not in (None, of_name):
        raise click.UsageError(f"{out} ends in .{of_name}, but --format says {kind}; change one of them")
    kind = kind or (of_name if single else None) or "parquet"
    exported = read_exported(run_folders(runs))
    files = {out: export_rankings(exported, out, kind)} if single else export_all(exported, out, kind)
    if as_json:
        show_json({"format": kind, "files": [{"path": str(path), "rows": rows} for path, rows in files.items()]})
    else:
        show(*(f"{rows:,} rows in {path}" for path, rows in files.items()))
