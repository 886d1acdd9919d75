"""How many questions a second does the server answer, one at a time and many at once?

Only failed calls are a fault. Speed is shown without a judgment, because it depends on the machine's load.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.images import mosaic
from fieldscope.service.doctor.probes import Probe

NAME = "throughput"
CALLS = {1: 8, 8: 32, 32: 96}
"""Calls in flight at once -> the largest number of calls that measure it."""

PATIENCE = 10.0
"""Seconds after which a measurement starts no further call."""


@dataclass(frozen=True)
class _Rate:
    calls: int
    failed: int
    error: str | None
    seconds: float

    @property
    def per_second(self) -> float:
        return (self.calls - self.failed) / self.seconds


async def check_throughput(asker: Asker, probe: Probe) -> Finding:
    """Measure with a new image for every question, so that nothing is cached."""
    question = probe.known[0].question
    rates = {at_once: await _measure(asker, question, at_once, calls) for at_once, calls in CALLS.items()}
    seen = "; ".join(f"{rate.per_second:.1f} calls/s with {at_once} at once" for at_once, rate in rates.items())
    failed = [rate for rate in rates.values() if rate.failed]
    if failed:
        lost, calls = sum(rate.failed for rate in failed), sum(rate.calls for rate in rates.values())
        meaning = f"{lost} of {calls} calls failed ({failed[0].error}); after several attempts, they are unknown"
        return Finding(NAME, "warn", seen, meaning, "use a lower --concurrency")
    most = max(rates)
    alone, many = rates[min(rates)].per_second, rates[most].per_second
    meaning = f"1,000 calls about new images take {_span(1000 / max(many, alone))}"
    return Finding(NAME, "ok", seen, f"{meaning}; {most} at once are {many / alone:.1f} times as fast as one at a time")


async def _measure(asker: Asker, question: str, at_once: int, calls: int) -> _Rate:
    requests = [await asker.question(question, asker.images.add(mosaic())) for _ in range(calls)]
    errors: list[str] = []
    started = time.perf_counter()

    async def work() -> None:
        while requests:
            reading = await asker.read(requests.pop())
            if reading.error:
                errors.append(reading.error)
            if time.perf_counter() - started >= PATIENCE:
                break

    await asyncio.gather(*(work() for _ in range(at_once)))
    seconds = time.perf_counter() - started
    return _Rate(calls - len(requests), len(errors), errors[0] if errors else None, seconds)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
