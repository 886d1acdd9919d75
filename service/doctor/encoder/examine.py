"""Runs all checks on an encoder, one after another."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fieldscope.core.errors import ConfigError, LMMError
from fieldscope.retrieval.encoder import Encoder
from fieldscope.retrieval.progress import Report
from fieldscope.service.doctor.edges import NAME as EDGES
from fieldscope.service.doctor.encoder.edges import check_edges
from fieldscope.service.doctor.encoder.parts import INSTRUCTION, REFERENCE, check_instruction, check_reference
from fieldscope.service.doctor.encoder.repeats import BATCHED, REPEATED, check_batches, check_repeats
from fieldscope.service.doctor.encoder.space import NAME as SPACE
from fieldscope.service.doctor.encoder.space import judge_space, similarities
from fieldscope.service.doctor.encoder.subject import Check, Subject
from fieldscope.service.doctor.encoder.vectors import NAME as VECTORS
from fieldscope.service.doctor.encoder.vectors import judge_vectors
from fieldscope.service.doctor.examine import Examination
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import fieldnotes, shapes

_SERVER = "encoder"
_MEANING = "without vectors of texts and images, nothing else can be checked"


def examine_encoder(encoder: Encoder, name: str, report: Report) -> Examination:
    """Examine the encoder that the user calls `name`.

    It is asked about plain shapes, and about FieldNotes' animals, the only images that the bundled CLIP knows, where it
    does not find all shapes. Where it encodes no texts or no images, that is the only finding, and no `probe` was used.
    """
    started = time.perf_counter()
    findings: dict[str, Finding] = {}
    subject, identity, probe = Subject(encoder, shapes()), name, None
    try:
        identity = encoder.fingerprint
        _encode(subject)
    except (LMMError, ConfigError) as error:
        change = "follow the message, and check the address, the model's name after # and the key"
        findings[_SERVER] = Finding(_SERVER, "fail", str(error), _MEANING, change)
    else:
        findings[_SERVER] = Finding(_SERVER, "ok", "texts and images have vectors", "the encoder can be asked")
        subject = _better(subject)
        probe = subject.probe.name
        checks: tuple[tuple[str, Check], ...] = (
            (VECTORS, judge_vectors),
            (SPACE, judge_space),
            (EDGES, check_edges),
            (REPEATED, check_repeats),
            (BATCHED, lambda subject: check_batches(subject, findings[REPEATED])),
            (INSTRUCTION, check_instruction),
            (REFERENCE, check_reference),
        )
        for number, (check_name, check) in enumerate(checks, start=1):
            findings[check_name] = _guarded(check_name, check, subject)
            report(number, len(checks))
    seconds = time.perf_counter() - started
    return Examination(identity, probe, tuple(findings.values()), subject.calls, seconds)


def _encode(subject: Subject) -> None:
    subject.queries = np.stack([subject.query(text) for text in subject.descriptions])
    subject.images = np.concatenate([subject.encode([picture]) for picture in subject.pictures])


def _better(subject: Subject) -> Subject:
    """The subject with the set of images that the encoder understands better."""
    if not subject.comparable or similarities(subject).correct == 1:
        return subject
    other = replace(subject, probe=fieldnotes())
    _encode(other)
    better = similarities(other).correct > similarities(subject).correct
    subject.calls = other.calls
    return other if better else subject


def _guarded(name: str, check: Callable[[Subject], Finding], subject: Subject) -> Finding:
    try:
        return check(subject)
    except (LMMError, ConfigError) as error:
        change = "follow the message, and look into the server's log"
        return Finding(name, "fail", str(error), "the encoder stopped answering, so the check could not finish", change)
