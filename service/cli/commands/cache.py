"""`fieldscope cache`: the answers that the response cache keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from fieldscope.core.errors import CacheError
from fieldscope.service.cli.console import plain, show, show_json
from fieldscope.service.cli.options import file_option, json_option, runs_argument
from fieldscope.service.wiring.feedback import note, program

_SHOWN = 10  # bad entries that are listed


class Age(click.ParamType[timedelta]):
    """Hours, days or weeks: 12h, 30d, 8w."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        from fieldscope.service.workflows.cache import parse_age

        try:
            return value if isinstance(value, timedelta) else parse_age(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group()
def cache() -> None:
    """Show, check and clean the response cache, and move answers to another machine.

    Scores of scoring models (--scorer) are kept beside the answers of LMMs, one for each query and document.
    """


@cache.command()
@json_option
def stats(as_json: bool) -> None:
    """Show how many answers are kept, from which models, how large and how old they are, and where.

    The names of scoring models begin with `scorer:`.
    """
    from fieldscope.service.workflows import cache as caching

    path, kept = caching.cache_path(), caching.stats()
    if as_json:
        show_json(
            {
                "path": str(path),
                "entries": kept.entries,
                "size_bytes": kept.size_bytes,
                "by_model": kept.by_model,
                "models": {model: asdict(share) for model, share in kept.models.items()},
            }
        )
        return
    from fieldscope.service.cli.tables.table import new_table

    table = new_table("model", "answers", "MB", "oldest", "newest")
    for model, share in sorted(kept.models.items(), key=lambda item: -item[1].entries):
        ages = (caching.age_of(share.oldest), caching.age_of(share.newest))
        table.add_row(plain(model), f"{share.entries:,}", f"{share.size_bytes / 1e6:,.1f}", *ages)
    show(f"{kept.entries:,} answers, {kept.size_bytes / 1e6:,.1f} MB, in {path}", *([table] if kept.entries else []))


@cache.command()
@json_option
def verify(as_json: bool) -> None:
    """Read every answer and compute its checksums again. Exits with an error if one does not match.

    Answers that can't be used (filtered, without log-probabilities, not JSON), which an earlier version kept, are
    listed, too. The model is asked again when they are needed.
    """
    from fieldscope.service.workflows import cache as caching

    verified = caching.verify()
    if as_json:
        show_json({"path": str(caching.cache_path()), **asdict(verified)})
    else:
        show(f"{verified.entries:,} answers read in {caching.cache_path()}, {len(verified.bad):,} bad")
        _list(verified.bad)
        if verified.unusable:
            show(f"{len(verified.unusable):,} can't be used; the model is asked again when they are needed")
            _list(verified.unusable)
    if verified.file:
        raise CacheError(
            f"the file {caching.cache_path()} is damaged ({verified.file[0]}). Move it away to start a new one"
        )
    if verified.bad:
        raise CacheError(
            f"{len(verified.bad):,} of {verified.entries:,} answers are bad. Remove them with "
            f"`{program()} cache prune --bad`; the model is asked again when they are needed"
        )


def _list(faults: Mapping[str, str]) -> None:
    """Print the first entries, by their keys, with what is wrong with them."""
    show(*(f"  {key[:12]}: {fault}" for key, fault in list(faults.items())[:_SHOWN]))
    if len(faults) > _SHOWN:
        show(f"  and {len(faults) - _SHOWN:,} more; --json lists all")


@cache.command()
@click.option("--older-than", "age", type=Age(), metavar="AGE", help="Answers older than this: 12h, 30d, 8w.")
@click.option("--model", metavar="TEXT", help="Answers of models whose identity (see `stats`) begins with TEXT.")
@click.option("--bad", is_flag=True, help="Answers that `verify` finds bad, or that can't be used.")
@click.option("--dry-run", is_flag=True, help="Show how much would be removed, and remove nothing.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@json_option
def prune(age: timedelta | None, model: str | None, bad: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove answers, by age, by model, or both. Only the model can answer them again.

    `--model scorer:` removes the scores of all scoring models.
    """
    from fieldscope.service.workflows import cache as caching

    if bad == (age is not None or model is not None):
        raise click.UsageError("it is not clear what to remove: give --older-than, --model or both, or --bad alone")
    if as_json and not (dry_run or yes):
        raise click.UsageError("--json can't ask for confirmation; add --yes or --dry-run")
    pruning = caching.Pruning.older_than(age or timedelta(0), model)
    if bad:
        verified = caching.verify()
        pruning = caching.Pruning(pruning.before, keys=[*verified.bad, *verified.unusable])
    with caching.open_cache() as store:
        share = pruning.share(store) if store else None
        removed = freed = 0
        if share is not None and share.entries and not as_json:
            size = f", {share.size_bytes / 1e6:,.1f} MB" if share.size_bytes else ""
            show(f"{share.entries:,} answers{size} of {caching.cache_path()}")
        if store is not None and share is not None and share.entries and not dry_run:
            if not yes:
                click.confirm("Remove them? Only the model can answer them again", abort=True, err=True)
            removed, freed = pruning.remove(store)
    if as_json:
        show_json({"matching": share.entries if share else 0, "removed": removed, "freed_bytes": freed})
    elif share is None or not share.entries:
        show("there is nothing to remove")
    elif dry_run:
        note("nothing was removed")
    else:
        show(f"removed {removed:,} answers; the file is {freed / 1e6:,.1f} MB smaller")


@cache.command("export")
@runs_argument
@file_option("-o", "--out", "file", help_text="The file to write.", required=True)
@json_option
def export_command(runs: tuple[Path, ...], file: Path, as_json: bool) -> None:
    """Write runs into one file that replays without models, server or images.

    RUN is a run's folder, or the output folder of `fieldscope eval` for all runs in it. The file holds every answer
    that the runs rest on, the queries, candidates, judgments and strategies, and the hashes of the images.
    """
    from fieldscope.service.workflows import cache as caching

    header = caching.export_runs(runs, file)
    if as_json:
        show_json({"file": str(file), "file_bytes": file.stat().st_size, **header.model_dump(mode="json")})
        return
    counts = header.counts
    show(
        f"{counts.get('run', 0)} runs, {counts.get('query', 0):,} queries, {counts.get('response', 0):,} answers and "
        f"the hashes of {counts.get('image', 0):,} images: {file}, {file.stat().st_size / 1e6:,.1f} MB",
        f"to run them again anywhere: {program()} eval --replay {file}",
    )


@cache.command("import")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def import_command(file: Path, as_json: bool) -> None:
    """Add the answers of an exported file to the response cache.

    Every answer's key is first checked against its request. The content of an answer can't be checked: import only
    files from people whose runs you trust.
    """
    from fieldscope.service.workflows import cache as caching

    total, new = caching.import_file(file)
    if as_json:
        show_json({"file": str(file), "responses": total, "new": new, "path": str(caching.cache_path())})
    else:
        show(f"{total:,} answers in {file}, {new:,} of them new, in {caching.cache_path()}")
