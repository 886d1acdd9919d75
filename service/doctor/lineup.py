"""Can several pictures be shown at once, and does the model know which is which?"""

from __future__ import annotations

from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe

NAME = "several images"
_LIMIT = "serve with --limit-mm-per-prompt '{\"image\":4}' (fieldscope lmm serve sets it)"


async def check_lineup(asker: Asker, probe: Probe) -> Finding:
    """Two pictures in both orders, each described in turn; then four, with the described one in each place."""
    (first, a), (second, b), *_ = probe.lineup
    pairs = [(first, [a, b]), (first, [b, a]), (second, [a, b]), (second, [b, a])]
    two, refusal = await _right(asker, pairs, dict(probe.lineup))
    if refusal:
        return _refused("two pictures", refusal)
    pictures = [picture for _, picture in probe.lineup]
    turns = [(first, pictures[-turn:] + pictures[:-turn]) for turn in range(len(pictures))]
    four, refusal = await _right(asker, turns, dict(probe.lineup))
    if refusal:
        return _refused("two pictures are taken, four", refusal)
    seen = f"the right one of two in {two} of {len(pairs)} showings, of four in {four} of {len(turns)}"
    if two == len(pairs) and four == len(turns):
        return Finding(NAME, "ok", seen, "pictures are told apart by their place, so comparisons mean something")
    if two <= len(pairs) // 2 or four <= 1:
        meaning = "it can't tell which picture is which, and comparisons are noise"
        change = (
            "check that the server keeps the order of text and pictures (vLLM: --chat-template-content-format openai), "
            "or use a strategy without the stage compare"
        )
        return Finding(NAME, "fail", seen, meaning, change)
    meaning = "the order is understood, but now and then one picture is mistaken for another"
    return Finding(
        NAME, "warn", seen, meaning, "compare two at a time (mode: pair), and calibrate: it weighs errors down"
    )


async def _right(asker: Asker, showings: list[tuple[str, list[str]]], truth: dict[str, str]) -> tuple[int, str | None]:
    """How many showings were answered right, and the first error."""
    right = 0
    for description, shown in showings:
        place, error = await asker.best(description, shown)
        if error:
            return right, error
        right += place is not None and shown[place] == truth[description]
    return right, None


def _refused(what: str, error: str) -> Finding:
    meaning = "candidates can't be compared side by side, nor with a reference image"
    return Finding(NAME, "fail", f"{what}: {error}", meaning, _LIMIT)
