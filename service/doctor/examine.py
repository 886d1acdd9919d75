"""Runs all checks on a model, one after another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fieldscope.agent.roles import ROLES, Role
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.retrieval.progress import Report
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.context import check_context
from fieldscope.service.doctor.edges import NAME as EDGES
from fieldscope.service.doctor.edges import check_edges
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.form import check_form
from fieldscope.service.doctor.images import Drawn
from fieldscope.service.doctor.joint import check_joint
from fieldscope.service.doctor.lineup import NAME as LINEUP
from fieldscope.service.doctor.lineup import check_lineup
from fieldscope.service.doctor.logprobs import grant, judge_logprobs, judge_top_logprobs
from fieldscope.service.doctor.modes import check_modes
from fieldscope.service.doctor.parameters import check_parameters
from fieldscope.service.doctor.prefix import check_prefix
from fieldscope.service.doctor.probes import fieldnotes, shapes
from fieldscope.service.doctor.server import check_server
from fieldscope.service.doctor.sight import NAME as SIGHT
from fieldscope.service.doctor.sight import choose_probe, is_seen, judge_sight, unseen
from fieldscope.service.doctor.spelling import judge_spellings
from fieldscope.service.doctor.steadiness import NAME as REPEATS
from fieldscope.service.doctor.steadiness import check_company, check_repeats
from fieldscope.service.doctor.strategy_prompts import check_strategy
from fieldscope.service.doctor.structure import check_structure
from fieldscope.service.doctor.subject import Check, Subject
from fieldscope.service.doctor.throughput import check_throughput
from fieldscope.service.wiring.models import open_bare_lmm
from fieldscope.service.wiring.prompts import prompts_for
from fieldscope.service.wiring.settings import Settings


@dataclass(frozen=True)
class Examination:
    """The findings about the model `identity`, made with the set of images `probe`, in `calls` and `seconds`.

    If the server does not answer, that is the only finding, and `probe` is None. `roles` are those of the model; none
    for one that has all.
    """

    identity: str
    probe: str | None
    findings: tuple[Finding, ...]
    calls: int
    seconds: float
    roles: tuple[Role, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether no check failed."""
        return all(finding.state != "fail" for finding in self.findings)


async def examine_all(
    settings: Settings, report: Report, strategy: Strategy | None = None
) -> dict[Settings, Examination]:
    """Examine the model of each role, one after the other, and then every prompt of a strategy, asked as it asks and of
    the model that has its role; what that finds stands with the verifier. Raises what `examine` raises."""
    models = settings.by_model(ROLES)
    if len(models) == 1:
        examinations = {chosen: await examine(chosen, report) for chosen in models}
    else:
        examinations = {chosen: await examine(chosen, report, roles) for chosen, roles in models.items()}
    verifier = settings.of("verifier")
    examined = examinations[verifier]
    if strategy is not None and all(examination.probe for examination in examinations.values()):
        started = time.perf_counter()
        probe = next(each for each in (shapes(), fieldnotes()) if each.name == examined.probe)
        findings, calls = await check_strategy(settings, strategy, probe, report)
        contexts, shown = await check_context(settings, strategy)
        examinations[verifier] = replace(
            examined,
            findings=(*examined.findings, *findings, *contexts),
            calls=examined.calls + calls + shown,
            seconds=examined.seconds + time.perf_counter() - started,
        )
    return examinations


async def examine(settings: Settings, report: Report, roles: tuple[Role, ...] = ()) -> Examination:
    """Examine the model of these settings, which has these roles, or all, without the response cache.

    A server is asked about plain shapes, and about FieldNotes' animals if it fails on shapes; the bundled LMM knows
    only the animals. A model that only reasons is shown no image. Raises `ConfigError` if no model is configured.
    """
    checks = TEXT_CHECKS if roles == ("reasoner",) else CHECKS
    probe = shapes() if settings.lmm_url else fieldnotes()
    images = Drawn(probe.images)
    started = time.perf_counter()
    async with open_bare_lmm(settings, images) as lmm:
        subject = Subject(settings, Asker(lmm, images, prompts_for(settings)), probe)
        report(0, len(checks))
        answers = True
        for number, check in enumerate(checks, start=1):
            found = await check(subject)
            subject.findings |= {finding.name: finding for finding in found}
            answers = check is not _server or found[0].state != "fail"
            if not answers:
                break
            report(number, len(checks))
        return Examination(
            lmm.identity,
            subject.probe.name if answers else None,
            tuple(subject.findings.values()),
            subject.asker.calls,
            time.perf_counter() - started,
            roles,
        )


async def _server(subject: Subject) -> Sequence[Finding]:
    return [await check_server(subject.asker, subject.probe)]


async def _logprobs(subject: Subject) -> Sequence[Finding]:
    subject.granted = await grant(subject.asker, subject.probe)
    return judge_logprobs(subject.granted), judge_top_logprobs(subject.granted)


async def _looks(subject: Subject) -> Sequence[Finding]:
    """Ask about all images of the probe, which later checks build on. What they are judged by comes later."""
    other = fieldnotes if subject.settings.lmm_url else None
    subject.probe, subject.looks = await choose_probe(subject.asker, subject.probe, other)
    return ()


async def _form(subject: Subject) -> Sequence[Finding]:
    return [await check_form(subject.asker, subject.probe, *subject.accepted_images)]


async def _sight(subject: Subject) -> Sequence[Finding]:
    readings = [reading for look in subject.looks for _, reading in look.readings]
    return judge_spellings(readings), judge_sight(subject.probe, subject.looks)


async def _edges(subject: Subject) -> Sequence[Finding]:
    if not is_seen(subject.findings[SIGHT]):
        return [unseen(EDGES)]
    return [await check_edges(subject.asker, subject.probe)]


async def _lineup(subject: Subject) -> Sequence[Finding]:
    if not is_seen(subject.findings[SIGHT]):
        return [unseen(LINEUP)]
    return [await check_lineup(subject.asker, subject.probe)]


async def _structure(subject: Subject) -> Sequence[Finding]:
    return [await check_structure(subject.asker, subject.probe, *subject.accepted_images)]


async def _joint(subject: Subject) -> Sequence[Finding]:
    return [await check_joint(subject.asker, subject.probe, *subject.accepted_images)]


async def _parameters(subject: Subject) -> Sequence[Finding]:
    return [check_parameters(subject.asker)]


async def _modes(subject: Subject) -> Sequence[Finding]:
    return [await check_modes(subject.asker, subject.probe, *subject.accepted_images)]


async def _repeats(subject: Subject) -> Sequence[Finding]:
    return [await check_repeats(subject.asker, subject.looks)]


async def _company(subject: Subject) -> Sequence[Finding]:
    return [await check_company(subject.asker, subject.looks, subject.findings[REPEATS])]


async def _prefix(subject: Subject) -> Sequence[Finding]:
    return [await check_prefix(subject.asker, subject.probe)]


async def _throughput(subject: Subject) -> Sequence[Finding]:
    return [await check_throughput(subject.asker, subject.probe)]


CHECKS: tuple[Check, ...] = (
    _server,
    _logprobs,
    _looks,
    _form,
    _sight,
    _edges,
    _lineup,
    _structure,
    _modes,
    _joint,
    _parameters,
    _repeats,
    _company,
    _prefix,
    _throughput,
)
"""In this order: later ones build on what earlier ones left in the `Subject`. If the first fails, no other runs."""

TEXT_CHECKS: tuple[Check, ...] = (_server, _structure, _parameters)
"""Those of a model that is never shown an image."""
