"""Runs all checks on a model."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fieldscope.retrieval.progress import Report
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.form import check_form
from fieldscope.service.doctor.images import Drawn
from fieldscope.service.doctor.lineup import NAME as LINEUP
from fieldscope.service.doctor.lineup import check_lineup
from fieldscope.service.doctor.logprobs import grant, judge_logprobs, judge_top_logprobs
from fieldscope.service.doctor.prefix import check_prefix
from fieldscope.service.doctor.probes import fieldnotes, shapes
from fieldscope.service.doctor.server import check_server
from fieldscope.service.doctor.sight import choose_probe, is_seen, judge_sight
from fieldscope.service.doctor.spelling import judge_spellings
from fieldscope.service.doctor.steadiness import check_company, check_repeats
from fieldscope.service.doctor.structure import check_structure
from fieldscope.service.doctor.throughput import check_throughput
from fieldscope.service.wiring.models import open_bare_lmm
from fieldscope.service.wiring.prompts import prompts_for
from fieldscope.service.wiring.settings import Settings

_CHECKS = 12


@dataclass(frozen=True)
class Examination:
    """The findings about the model `identity`, made with the set of images `probe`, in `calls` and `seconds`.

    If the server does not answer, that is the only finding, and `probe` is None.
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
    """Examine the model of these settings without the response cache.

    A server is asked about plain shapes, and about FieldNotes' animals if it fails on shapes; the bundled LMM knows
    only the animals. Raises `ConfigError` if no model is configured.
    """
    probe = shapes() if settings.lmm_url else fieldnotes()
    images = Drawn(probe.images)
    started = time.perf_counter()
    findings: list[Finding] = []

    def add(*found: Finding) -> None:
        findings.extend(found)
        report(len(findings), _CHECKS)

    async with open_bare_lmm(settings, images) as lmm:
        asker = Asker(lmm, images, prompts_for(settings))
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
            add(Finding(LINEUP, "unknown", "the model does not see a single image", "see the check 'image seen'"))
        first = looks[0]
        add(await check_structure(asker, probe, *([first.known.right] if first.right.error is None else [])))
        repeats = await check_repeats(asker, looks)
        add(repeats)
        add(await check_company(asker, looks, repeats))
        add(await check_prefix(asker, probe))
        add(await check_throughput(asker, probe))
        return done(probe.name)
