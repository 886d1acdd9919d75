"""Does the model see the image? Known questions about a right image, a wrong one, and a blank one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from fieldscope.service.doctor.asker import Asker, Reading
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import BLANK, Known, Probe

NAME = "image seen"
_SAME = 0.05
_WEAK = 0.2
_CLEAR = 0.5


@dataclass(frozen=True)
class Look:
    """One question with its three answers."""

    known: Known
    right: Reading
    wrong: Reading
    blank: Reading

    @property
    def readings(self) -> tuple[tuple[str, Reading], ...]:
        """Each answer with the id of its image."""
        return (self.known.right, self.right), (self.known.wrong, self.wrong), (BLANK, self.blank)

    @property
    def correct(self) -> bool:
        """Whether the answer is yes for the right image and no for the wrong one."""
        p = _values([self.right]) + _values([self.wrong])
        return len(p) == 2 and p[0] > 0.5 > p[1]


async def look(asker: Asker, probe: Probe) -> list[Look]:
    """Ask each question once about each image, one call at a time, so that neither load nor repeats matter."""
    looks = []
    for known in probe.known:
        readings = [await asker.yes_no(known.question, each) for each in (known.right, known.wrong, BLANK)]
        looks.append(Look(known, *readings))
    return looks


async def choose_probe(asker: Asker, probe: Probe, other: Callable[[], Probe] | None) -> tuple[Probe, list[Look]]:
    """`probe` if the model answers it well, else the one of both with the larger `separation`."""
    looks = await look(asker, probe)
    if other is None or (all(each.correct for each in looks) and separation(looks) > _CLEAR):
        return probe, looks
    second = other()
    asker.images.show(second.images)
    seconds = await look(asker, second)
    return (second, seconds) if separation(seconds) > separation(looks) else (probe, looks)


def separation(looks: Sequence[Look]) -> float:
    """Mean P(yes) of the right images minus that of the wrong ones, in [-1, 1]; 0 if no answer can be read."""
    right, wrong = _values([each.right for each in looks]), _values([each.wrong for each in looks])
    return fmean(right) - fmean(wrong) if right and wrong else 0.0


def is_seen(finding: Finding) -> bool:
    """Whether checks that need the model to see images can run."""
    return finding.state in ("ok", "warn")


def unseen(name: str) -> Finding:
    """What a check of this name finds where it can't run, since the model sees no image."""
    return Finding(name, "unknown", "the model does not see a single image", "see the check 'image seen'")


def judge_sight(probe: Probe, looks: Sequence[Look]) -> Finding:
    right, wrong, blank = (
        _values(each) for each in zip(*((one.right, one.wrong, one.blank) for one in looks), strict=True)
    )
    if not right or not wrong:
        return _unreadable([reading for each in looks for _, reading in each.readings])
    seen = f"P(yes) {fmean(right):.2f} for the right image, {fmean(wrong):.2f} for a wrong one"
    seen += f", {fmean(blank):.2f} for a blank one" if blank else ""
    seen += f" (means of {len(looks)} questions, {probe.name})"
    as_wrong = all(each.right.apart(each.wrong) < _SAME for each in looks)
    as_blank = all(each.right.apart(each.blank) < _SAME for each in looks)
    if as_wrong or as_blank:
        meaning = "the answer is the same for every image: images do not reach the model, and the ranking is noise"
        change = "serve a vision model with its own chat template (no --chat-template), and check its log for images"
        return Finding(NAME, "fail", seen, meaning, change)
    if separation(looks) < _WEAK:
        meaning = "images change the answers, but not towards the truth: the ranking is noise, or worse"
        change = "use a stronger model; check its chat template and image preprocessing, and --max-side"
        return Finding(NAME, "fail", seen, meaning, change)
    missed = [each.known.question for each in looks if not each.correct]
    if missed:
        meaning = f"the model sees images, but answers simple questions wrongly: {' '.join(missed)}"
        return Finding(NAME, "warn", seen, meaning, "use a stronger model, or a larger --max-side")
    return Finding(NAME, "ok", seen, "answers depend on the image")


def _unreadable(readings: Sequence[Reading]) -> Finding:
    errors = [reading.error for reading in readings if reading.error]
    if errors:
        meaning = "the server refuses images, so every question about an image would be unknown"
        change = "serve a vision model; for vLLM with --limit-mm-per-prompt '{\"image\":4}'"
        return Finding(NAME, "fail", errors[0], meaning, change)
    return Finding(NAME, "unknown", "no answer is yes or no", "see the check 'yes/no spellings'")


def _values(readings: Sequence[Reading]) -> list[float]:
    return [reading.p for reading in readings if reading.p is not None]
