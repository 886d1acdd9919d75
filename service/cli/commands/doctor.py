"""`fieldscope doctor`: is this model fit to rank with?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import complain, plain, show, show_json
from fieldscope.service.cli.options import json_option, server_options
from fieldscope.service.wiring.feedback import progress
from fieldscope.service.wiring.interruption import interruptible
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.service.doctor.examine import Examination

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red", "unknown": "cyan"}


@click.command()
@json_option
@server_options
@click.pass_context
def doctor(context: click.Context, as_json: bool, settings: Settings) -> None:
    """Examine a model with known pictures, and find what would silently ruin rankings.

    Asks a few hundred short questions about pictures of its own, past the response cache: is the picture really seen,
    do log-probabilities come back and how many, are schemas honoured, can several pictures be shown, are answers the
    same on repeat and under load, and how fast is it. Without --lmm the bundled LMM is examined. Exits with 1 where a
    check fails.
    """
    from fieldscope.service.doctor.examine import examine

    with progress("checks") as report:
        found = interruptible(examine(settings, report), "nothing of an examination is kept")
    if as_json:
        model = {"lmm": settings.lmm_url, "model": settings.model}
        show_json({**model, "healthy": found.healthy, **asdict(found)})
    elif found.probe is None:
        complain(found.findings[-1].seen)
    else:
        show(_table(found), _summary(found))
    if not found.healthy:
        context.exit(1)


def _table(found: Examination) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("check", "", "what was seen, what it means, what to change"):
        table.add_column(title, overflow="fold")
    for finding in found.findings:
        table.add_row(finding.name, plain(finding.state, _COLOURS[finding.state]), plain(finding.seen))
        table.add_row("", "", plain(finding.meaning, "dim"))
        if finding.change:
            table.add_row("", "", plain(f"-> {finding.change}"))
    return table


def _summary(found: Examination) -> str:
    count = {state: [each.name for each in found.findings if each.state == state] for state in _COLOURS}
    verdict = f"{len(count['ok'])} of {len(found.findings)} checks are well"
    told = (("fail", "failed"), ("warn", "to be improved"), ("unknown", "unknown"))
    for state, words in told:
        if count[state]:
            verdict += f"; {words}: {', '.join(count[state])}"
    return f"{verdict} ({found.calls} calls, {found.seconds:.0f} s)"
