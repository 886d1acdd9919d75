"""Can a request have several images, and does the model know which is which?"""

from __future__ import annotations

from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe

NAME = "several images"
_LIMIT = "serve with --limit-mm-per-prompt '{\"image\":4}' (fieldscope lmm serve sets it)"


async def check_lineup(asker: Asker, probe: Probe) -> Finding:
    """Show two images in both orders, each described in turn; then four, with the described one in each place."""
    (first, a), (second, b), *_ = probe.lineup
    pairs = [(first, [a, b]), (first, [b, a]), (second, [a, b]), (second, [b, a])]
    two, refusal = await _right(asker, pairs, dict(probe.lineup))
    if refusal:
        return _refused("two images in one request are refused", refusal)
    images = [image for _, image in probe.lineup]
    turns = [(first, images[-turn:] + images[:-turn]) for turn in range(len(images))]
    four, refusal = await _right(asker, turns, dict(probe.lineup))
    if refusal:
        return _refused("two images in one request are accepted, four are refused", refusal)
    seen = f"of two images the right one in {two} of {len(pairs)} requests, of four in {four} of {len(turns)}"
    if two == len(pairs) and four == len(turns):
        return Finding(NAME, "ok", seen, "the model knows which image is which, so comparisons are meaningful")
    if two <= len(pairs) // 2 or four <= 1:
        meaning = "the model can't tell which image is which, so comparisons are noise"
        change = (
            "check that the server keeps the order of text and images (vLLM: --chat-template-content-format openai), "
            "or use a strategy without the stage 'compare'"
        )
        return Finding(NAME, "fail", seen, meaning, change)
    meaning = "the model understands the order, but sometimes mistakes one image for another"
    return Finding(
        NAME,
        "warn",
        seen,
        meaning,
        "compare two images at a time (mode: pair), and run fieldscope calibrate, which gives errors less weight",
    )


async def _right(asker: Asker, showings: list[tuple[str, list[str]]], truth: dict[str, str]) -> tuple[int, str | None]:
    """The number of right answers, and the first error."""
    right = 0
    for description, shown in showings:
        place, error = await asker.best(description, shown)
        if error:
            return right, error
        right += place is not None and shown[place] == truth[description]
    return right, None


def _refused(what: str, error: str) -> Finding:
    meaning = "candidates can't be compared with each other or with a reference image"
    return Finding(NAME, "fail", f"{what}: {error}", meaning, _LIMIT)
