"""Do texts and images lie in one space, where a description is nearest to its image?"""

from __future__ import annotations

from fieldscope.service.doctor.encoder.subject import Subject
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.grid import Grid

NAME = "one space"
_GOOD = 0.75
_ADVICE = (
    "check that texts and images are encoded by the same model, with its own preprocessing and template; SigLIP's "
    "texts are padded to their full length"
)


def similarities(subject: Subject) -> Grid:
    """The similarity of each description and each image."""
    return Grid(subject.queries.astype("float64") @ subject.images.T.astype("float64"))


def judge_space(subject: Subject) -> Finding:
    """Compare each description's similarity to its image with that to the others."""
    if not subject.comparable:
        return Finding(NAME, "unknown", "vectors can't be compared", "see the check 'vectors'")
    grid = similarities(subject)
    seen = (
        f"a description is nearer to its image than to another in {grid.correct:.0%} of comparisons "
        f"({subject.probe.name}); similarity {grid.right.mean():.3f} to its image, {grid.wrong.mean():.3f} to others"
    )
    if grid.correct == 1:
        return Finding(NAME, "ok", seen, "a text finds its image")
    if grid.correct >= _GOOD:
        return Finding(NAME, "warn", seen, "a text finds its image, but not always", "use a stronger model")
    meaning = "texts and images are not in one space, so a search by words is noise"
    return Finding(NAME, "fail", seen, meaning, _ADVICE)
