"""The model under examination, and what the checks so far have found out about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.logprobs import Granted
from fieldscope.service.doctor.probes import Probe
from fieldscope.service.doctor.sight import Look
from fieldscope.service.wiring.settings import Settings


@dataclass
class Subject:
    """What a check needs, and what it leaves for later checks.

    `asker` asks the model of the `settings`, `probe` has images with known answers. `granted` says which
    log-probabilities the server returns, `looks` are the first answers about the probe's images, and `findings` those
    of earlier checks, by name.
    """

    settings: Settings
    asker: Asker
    probe: Probe
    granted: Granted = field(default_factory=lambda: Granted(0, 0))
    looks: Sequence[Look] = ()
    findings: dict[str, Finding] = field(default_factory=dict)

    @property
    def accepted_images(self) -> tuple[str, ...]:
        """The id of an image that the model accepts; empty where it accepts none."""
        return tuple(look.known.right for look in self.looks[:1] if look.right.error is None)


Check = Callable[[Subject], Awaitable[Sequence[Finding]]]
"""Asks the model something, and says what it found: one finding or several, always under the same names."""
