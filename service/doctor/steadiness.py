"""Are answers the same when a request is repeated, and in a batch?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fieldscope.service.doctor.asker import Asker, Reading
from fieldscope.service.doctor.finding import Finding, State
from fieldscope.service.doctor.sight import Look

NAME = "same on repeat"
REPEATS = 6
COMPANY = 32
_ROUNDING = 0.01
_OTHER = 0.05
_LOST = 0.10  # as many calls in flight as a run may lose before it counts as failed


async def check_repeats(asker: Asker, looks: Sequence[Look]) -> Finding:
    """Repeat a few requests several times, one at a time."""
    asked = [(each.known, each.right) for each in looks if each.right.error is None][:4]
    if not asked:
        return Finding(NAME, "unknown", "no question about an image was answered", "see the check 'image seen'")
    pairs = [(await asker.yes_no(known.question, known.right), first) for _ in range(REPEATS) for known, first in asked]
    worst, errors = _compare(pairs)
    seen = f"P(yes) differs by at most {worst:.3f} over {REPEATS} repeats of {len(asked)} questions{_said(errors)}"
    if worst <= _ROUNDING and not errors:
        return Finding(NAME, "ok", seen, "a ranking is reproducible")
    if worst <= _ROUNDING:
        meaning = "some calls fail; a call that still fails after several attempts is unknown"
        state: State = "fail" if len(errors) > _LOST * len(pairs) else "warn"
        return Finding(NAME, state, seen, meaning, "check the server's log")
    meaning = "one request has different answers at temperature 0, so rankings are not reproducible"
    change = (
        "serve with --generation-config vllm, so that only the request sets the decoding parameters; check that all "
        "servers behind that address serve the same model"
    )
    return Finding(NAME, "fail" if worst > _OTHER else "warn", seen, meaning, change)


async def check_company(asker: Asker, looks: Sequence[Look], repeats: Finding) -> Finding:
    """Send all earlier questions again, all at once."""
    name = "same in a batch"
    alone = [(each.known.question, image, first) for each in looks for image, first in each.readings]
    alone = [one for one in alone if one[2].error is None]
    if not alone:
        return Finding(name, "unknown", "no question about an image was answered", "see the check 'image seen'")
    if repeats.state == "fail":
        return Finding(name, "unknown", "single requests change or fail, too", "see the check 'same on repeat'")
    asked = (alone * (COMPANY // len(alone) + 1))[:COMPANY]
    again = await asyncio.gather(*(asker.yes_no(question, image) for question, image, _ in asked))
    worst, errors = _compare([(now, first) for now, (_, _, first) in zip(again, asked, strict=True)])
    seen = f"P(yes) differs by at most {worst:.3f} between {COMPANY} calls at once and the same calls alone"
    seen += _said(errors)
    if worst <= _ROUNDING and not errors:
        return Finding(name, "ok", seen, "an answer does not depend on other requests")
    meaning = (
        "an answer depends on other requests at the same time: the server mixes up answers, or its numbers are coarse"
    )
    change = "serve with --dtype float32 or VLLM_BATCH_INVARIANT=1, use a lower --concurrency, or update the server"
    if worst <= _ROUNDING:
        meaning = "calls fail under load; a call that still fails after several attempts is unknown"
        change = "use a lower --concurrency"
    failed = worst > _OTHER or len(errors) > _LOST * COMPANY
    return Finding(name, "fail" if failed else "warn", seen, meaning, change)


def _compare(pairs: Sequence[tuple[Reading, Reading]]) -> tuple[float, list[str]]:
    """The largest difference between later and first answers, and the errors of failed calls."""
    worst = max((later.strays(first) for later, first in pairs if later.error is None), default=0.0)
    return worst, [later.error for later, _ in pairs if later.error is not None]


def _said(errors: Sequence[str]) -> str:
    return f"; {len(errors)} of these calls failed: {errors[0]}" if errors else ""
