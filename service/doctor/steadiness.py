"""Is the answer the same on repeat, and the same alone and in company?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fieldscope.service.doctor.asker import Asker, Reading
from fieldscope.service.doctor.finding import Finding, State
from fieldscope.service.doctor.sight import Look

REPEATS = 6
COMPANY = 32
_ROUNDING = 0.01
_OTHER = 0.05
_LOST = 0.10  # as many calls in flight as a run may lose before it counts as failed


async def check_repeats(asker: Asker, looks: Sequence[Look]) -> Finding:
    """The same few requests again and again, one at a time."""
    name = "same on repeat"
    asked = [(each.known, each.right) for each in looks if each.right.error is None][:4]
    if not asked:
        return Finding(name, "unknown", "no question about a picture is answered", "see image seen")
    pairs = [(await asker.yes_no(known.question, known.right), first) for _ in range(REPEATS) for known, first in asked]
    worst, errors = _compare(pairs)
    seen = f"P(yes) differs by at most {worst:.3f} over {REPEATS} repeats of {len(asked)} questions{_said(errors)}"
    if worst <= _ROUNDING and not errors:
        return Finding(name, "ok", seen, "a ranking can be made again")
    if worst <= _ROUNDING:
        meaning = "calls fail now and then, and what stays failed after some more attempts is unknown"
        state: State = "fail" if len(errors) > _LOST * len(pairs) else "warn"
        return Finding(name, state, seen, meaning, "look into the server's log")
    meaning = "one request has several answers at temperature 0: a ranking depends on when it was made"
    change = (
        "serve with --generation-config vllm, so that the request alone decides how to decode; check that all servers "
        "behind that address hold the same model"
    )
    return Finding(name, "fail" if worst > _OTHER else "warn", seen, meaning, change)


async def check_company(asker: Asker, looks: Sequence[Look], repeats: Finding) -> Finding:
    """All that was asked alone, asked again at once."""
    name = "same in a batch"
    alone = [(each.known.question, picture, first) for each in looks for picture, first in each.readings]
    alone = [one for one in alone if one[2].error is None]
    if not alone:
        return Finding(name, "unknown", "no question about a picture is answered", "see image seen")
    if repeats.state == "fail":
        return Finding(name, "unknown", "answers change, or fail, when they are asked alone, too", "see same on repeat")
    asked = (alone * (COMPANY // len(alone) + 1))[:COMPANY]
    again = await asyncio.gather(*(asker.yes_no(question, picture) for question, picture, _ in asked))
    worst, errors = _compare([(now, first) for now, (_, _, first) in zip(again, asked, strict=True)])
    seen = f"P(yes) differs by at most {worst:.3f} between {COMPANY} calls at once and the same calls alone"
    seen += _said(errors)
    if worst <= _ROUNDING and not errors:
        return Finding(name, "ok", seen, "an answer does not depend on what else is asked")
    meaning = "an answer depends on what else is asked at that time: images get each other's answers, or coarse numbers"
    change = "serve with --dtype float32 or VLLM_BATCH_INVARIANT=1, try a lower --concurrency, update the server"
    if worst <= _ROUNDING:
        meaning = "calls fail under load, and what stays failed after some more attempts is unknown"
        change = "use a lower --concurrency"
    failed = worst > _OTHER or len(errors) > _LOST * COMPANY
    return Finding(name, "fail" if failed else "warn", seen, meaning, change)


def _compare(pairs: Sequence[tuple[Reading, Reading]]) -> tuple[float, list[str]]:
    """How far the later answers stray from the first ones at most, and the errors of those that did not come."""
    worst = max((later.strays(first) for later, first in pairs if later.error is None), default=0.0)
    return worst, [later.error for later, _ in pairs if later.error is not None]


def _said(errors: Sequence[str]) -> str:
    return f"; {len(errors)} of these calls failed: {errors[0]}" if errors else ""
