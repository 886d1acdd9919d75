"""Does the encoder see the whole of a picture that is not square?"""

from __future__ import annotations

from fieldscope.service.doctor.edges import NAME
from fieldscope.service.doctor.encoder.subject import ROUNDING, Subject, distance
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.images import long_pictures


def check_edges(subject: Subject) -> Finding:
    """Encode a wide and a tall picture, each with two different ends, beside which all is blank."""
    if not subject.comparable or distance(subject.images[0], subject.images[1]) <= ROUNDING:
        return Finding(NAME, "unknown", "no two vectors that can be compared", "see the check 'vectors'")
    apart = {}
    for shape, pictures in long_pictures(*subject.pictures[:2]).items():
        one, other = (subject.encode([picture]) for picture in pictures)
        apart[shape] = distance(one, other)
    seen = "vectors of " + " and ".join(f"{shape} pictures with two ends are {apart[shape]:.2g}" for shape in apart)
    if min(apart.values()) > ROUNDING:
        return Finding(NAME, "ok", f"{seen} apart", "the whole picture is seen")
    meaning = "the encoder is shown the middle of a picture only, so that a subject near its edge is not found"
    change = "use an encoder that scales pictures and does not crop them, or index tiles, too (index --tiles)"
    return Finding(NAME, "warn", f"{seen} apart", meaning, change)
