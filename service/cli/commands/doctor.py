"""`fieldscope doctor`: whether a model can be used for ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from fieldscope.core.private import shown_address
from fieldscope.service.cli.console import complain, plain, show, show_json
from fieldscope.service.cli.options import json_option, server_options
from fieldscope.service.cli.tables.table import new_table
from fieldscope.service.wiring.feedback import progress
from fieldscope.service.wiring.interruption import interruptible
from fieldscope.service.wiring.settings import BUNDLED, Settings

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.service.doctor.examine import Examination

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red", "unknown": "cyan"}


@click.command()
@click.option("--strategy", "name", metavar="NAME|FILE", help="Also send every prompt of this strategy, as it asks.")
@click.option(
    "--scorer",
    metavar="URL#MODEL|path:FOLDER|NAME[:ARG]",
    help="Check this scoring model (a reranker) instead of an LMM.",
)
@click.option(
    "--encoder",
    "encoder_name",
    metavar="NAME|URL#MODEL|path:FOLDER",
    help="Check this encoder instead of an LMM; `bundled` is the bundled CLIP.",
)
@json_option
@server_options
@click.pass_context
def doctor(
    context: click.Context, name: str | None, encoder_name: str | None, as_json: bool, settings: Settings
) -> None:
    """Check a model with known images, and find what would silently ruin rankings.

    Asks a few hundred short questions about images of its own, without the response cache: does the model see the
    image, how many log-probabilities does it return, does it follow schemas, does it take several images, are its
    answers the same when repeated and under load, and how fast is it. Without --lmm the bundled LMM is checked. Where
    roles have LMMs of their own, each is checked. Exits with 1 if a check fails.

    With --strategy, and perhaps --prompts, the very configuration of a run is checked: each of the strategy's prompts
    is sent as its stage sends it, to the model that has its role, and the answer is read as the stage reads it.

    With --scorer, a scoring model is checked with known images and texts: do scores follow content and query, do they
    change with the batch, the order of documents or from call to call, and is the end of a long text read. With
    --encoder, an encoder is checked: are texts and images in one space, and their vectors the same in every batch.
    """
    settings = replace(settings, encoder=encoder_name)
    if settings.scorer is not None:
        if name is not None or settings.lmm_url is not None:
            raise click.UsageError("--scorer checks a scoring model alone; leave --lmm and --strategy out")
        healthy = _examine_scorer(settings.scorer, settings, as_json)
    elif encoder_name is not None:
        if name is not None or settings.lmm_url is not None:
            raise click.UsageError("--encoder checks an encoder alone; leave --lmm and --strategy out")
        healthy = _examine_encoder(encoder_name, settings, as_json)
    else:
        healthy = _examine_lmms(name, settings, as_json)
    if not healthy:
        context.exit(1)


def _examine_lmms(name: str | None, settings: Settings, as_json: bool) -> bool:
    """Examine the LMM of each role, print what was found, and return whether all are healthy."""
    from fieldscope.service.doctor.examine import examine_all
    from fieldscope.service.wiring.prompts import prompts_for
    from fieldscope.service.workflows.evaluate import load_strategies

    strategy = load_strategies([name], prompts_for(settings))[0] if name else None
    with progress("checks") as report:
        again = "a check starts from the beginning next time"
        examinations = interruptible(examine_all(settings, report, strategy), again)
    healthy = all(examination.healthy for examination in examinations.values())
    if as_json:
        told = [
            _payload({"lmm": chosen.lmm_url, "model": chosen.model}, examination)
            for chosen, examination in examinations.items()
        ]
        show_json(told[0] if len(told) == 1 else {"healthy": healthy, "models": told})
    else:
        for chosen, examination in examinations.items():
            _show(chosen.model or BUNDLED, examination)
    return healthy


def _examine_scorer(text: str, settings: Settings, as_json: bool) -> bool:
    """The same for a scorer."""
    from fieldscope.service.doctor.scorer.examine import examine_scorer
    from fieldscope.service.wiring.models import load_scorer

    shown = _shown(text)
    with progress("checks") as report:
        scorer = load_scorer(text, replace(settings, attempts=2))  # so that failures show
        examination = examine_scorer(scorer, shown, report)
    if as_json:
        show_json(_payload({"scorer": shown}, examination))
    else:
        _show(shown, examination)
    return examination.healthy


def _examine_encoder(text: str, settings: Settings, as_json: bool) -> bool:
    """The same for an encoder."""
    from fieldscope.service.doctor.encoder.examine import examine_encoder
    from fieldscope.service.wiring.models import load_encoder

    shown = _shown(text)
    with progress("checks") as report:
        examination = examine_encoder(load_encoder(replace(settings, attempts=2)), shown, report)
    if as_json:
        show_json(_payload({"encoder": shown}, examination))
    else:
        _show(shown, examination)
    return examination.healthy


def _shown(text: str) -> str:
    """A model as the user wrote it, without keys in its address."""
    url, hash_sign, model = text.partition("#")
    return shown_address(url) + hash_sign + model


def _payload(model: Mapping[str, str | None], examination: Examination) -> dict[str, Any]:
    """One model's findings; with its roles where there are several models."""
    findings = asdict(examination)
    if not examination.roles:
        del findings["roles"]
    return {**model, "healthy": examination.healthy, **findings}


def _show(model: str, examination: Examination) -> None:
    if examination.roles:
        show(f"{', '.join(examination.roles)}: {model}")
    if examination.probe is None:
        complain(examination.findings[-1].seen)
    else:
        show(_table(examination), _summary(examination))


def _table(examination: Examination) -> Table:
    table = new_table("check", "", "what was seen, what it means, what to change", texts=3)
    for finding in examination.findings:
        table.add_row(finding.name, plain(finding.state, _COLOURS[finding.state]), plain(finding.seen))
        table.add_row("", "", plain(finding.meaning, "dim"))
        if finding.change:
            table.add_row("", "", plain(f"-> {finding.change}"))
    return table


def _summary(examination: Examination) -> str:
    count = {state: [finding.name for finding in examination.findings if finding.state == state] for state in _COLOURS}
    verdict = f"{len(count['ok'])} of {len(examination.findings)} checks passed"
    for state, words in (("fail", "failed"), ("warn", "could be better"), ("unknown", "unknown")):
        if count[state]:
            verdict += f"; {words}: {', '.join(count[state])}"
    return f"{verdict} ({examination.calls} calls, {examination.seconds:.0f} s)"
