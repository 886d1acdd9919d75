"""The whole examination, check by check."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fieldscope.retrieval.progress import Report
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.form import check_form
from fieldscope.service.doctor.lineup import NAME as LINEUP
from fieldscope.service.doctor.lineup import check_lineup
from fieldscope.service.doctor.logprobs import grant, judge_logprobs, judge_top_logprobs
from fieldscope.service.doctor.pictures import Drawn
from fieldscope.service.doctor.prefix import check_prefix
from fieldscope.service.doctor.probes import fieldnotes, shapes
from fieldscope.service.doctor.server import check_server
from fieldscope.service.doctor.sight import choose_probe, is_seen, judge_sight
from fieldscope.service.doctor.spelling import judge_spellings
from fieldscope.service.doctor.steadiness import check_company, check_repeats
from fieldscope.service.doctor.structure import check_structure
from fieldscope.service.doctor.throughput import check_throughput
from fieldscope.service.wiring.models import open_bare_lmm
from fieldscope.service.wiring.settings import Settings

_CHECKS = 12


@dataclass(frozen=True)
class Examination:
    """What was found, check by check: of which model, with which set of pictures, in how many calls and seconds.

    Where the server does not answer there is that finding alone, and no set of pictures.
    """

    identity: str
    probe: str | None
    findings: tuple[Finding, ...]
    calls: int
    seconds: float

    @property
    def healthy(self) -> bool:
        """Whether no check failed."""
        return all(finding.state != "fail" for finding in self.findings)


async def examine(settings: Settings, report: Report) -> Examination:
    """Ask the model of these settings, past the response cache.

    A server is asked about plain shapes first, and about FieldNotes' animals where it is lost among those; the bundled
    LMM knows the animals only. Raises `ConfigError` where there is no model to ask.
    """
    probe = shapes() if settings.lmm_url else fieldnotes()
    pictures = Drawn(probe.pictures)
    started = time.perf_counter()
    findings: list[Finding] = []

    def add(*found: Finding) -> None:
        findings.extend(found)
        report(len(findings), _CHECKS)

    async with open_bare_lmm(settings, pictures) as lmm:
        asker = Asker(lmm, pictures)
        report(0, _CHECKS)

        def done(name: str | None) -> Examination:
            return Examination(lmm.identity, name, tuple(findings), asker.calls, time.perf_counter() - started)

        add(await check_server(asker, probe))
        if findings[-1].state == "fail":
            return done(None)
        granted = await grant(asker, probe)
        add(judge_logprobs(granted), judge_top_logprobs(granted))
        probe, looks = await choose_probe(asker, probe, fieldnotes if settings.lmm_url else None)
        add(await check_form(asker, probe, *([looks[0].known.right] if looks[0].right.error is None else [])))
        add(judge_spellings([reading for each in looks for _, reading in each.readings]))
        sight = judge_sight(probe, looks)
        add(sight)
        if is_seen(sight):
            add(await check_lineup(asker, probe))
        else:
            add(Finding(LINEUP, "unknown", "a single picture is not seen", "see image seen"))
        first = looks[0]
        add(await check_structure(asker, probe, *([first.known.right] if first.right.error is None else [])))
        repeats = await check_repeats(asker, looks)
        add(repeats)
        add(await check_company(asker, looks, repeats))
        add(await check_prefix(asker, probe))
        add(await check_throughput(asker, probe))
        return done(probe.name)
