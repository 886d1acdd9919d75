"""Does the encoder see the whole of a picture that is not square?"""

from __future__ import annotations

from fieldscope.service.doctor.encoder.subject import ROUNDING, Subject, distance
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.images import with_end
from fieldscope.service.doctor.probes import BLANK

NAME = "edges seen"


def check_edges(subject: Subject) -> Finding:
    """Encode a wide and a tall picture, each with two different ends, beside which all is blank."""
    first, second, *_ = subject.pictures
    beside, apart = subject.probe.images[BLANK], {}
    for shape, across in (("wide", True), ("tall", False)):
        ends = (subject.encode([with_end(end, beside, across)]) for end in (first, second))
        apart[shape] = distance(*ends)
    seen = "vectors of " + " and ".join(f"{shape} pictures with two ends are {apart[shape]:.2g}" for shape in apart)
    if min(apart.values()) > ROUNDING:
        return Finding(NAME, "ok", f"{seen} apart", "the whole picture is seen")
    meaning = "the encoder is shown the middle of a picture only, so that a subject near its edge is not found"
    change = "use an encoder that scales pictures and does not crop them, or index tiles, too (index --tiles)"
    return Finding(NAME, "warn", f"{seen} apart", meaning, change)
