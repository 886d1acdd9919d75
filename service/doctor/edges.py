"""Does the model see the whole of a picture that is not square? Many processors cut it to its middle square."""

from __future__ import annotations

from fieldscope.service.doctor.asker import Asker, Reading
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.images import long_pictures
from fieldscope.service.doctor.probes import Probe

NAME = "edges seen"
_SAME = 1e-3  # of a log-probability; two pictures that look alike to a model are one request to it


async def check_edges(asker: Asker, probe: Probe) -> Finding:
    """Ask about a wide and a tall picture, each with two different ends, beside which all is blank."""
    known, told = probe.known[0], {}
    for shape, pictures in long_pictures(probe.images[known.right], probe.images[known.wrong]).items():
        one, other = [await asker.yes_no(known.question, asker.images.add(picture)) for picture in pictures]
        told[shape] = _differ(one, other)
    lost = [shape for shape, differ in told.items() if differ is False]
    if lost:
        seen = f"the same answer whatever the end of a {' or a '.join(lost)} picture shows"
        meaning = "the model is shown the middle of a picture only, so that a subject near its edge is not there for it"
        change = (
            "let the checkpoint's image processor scale pictures and not crop them (do_center_crop), cut your pictures "
            "square, or use the strategy agent, which looks at regions of large photographs"
        )
        return Finding(NAME, "warn", seen, meaning, change)
    if None in told.values():
        return Finding(NAME, "unknown", "no two answers that can be compared", "see the check 'image seen'")
    return Finding(NAME, "ok", "answers depend on the ends of wide and of tall pictures", "the whole picture is seen")


def _differ(one: Reading, other: Reading) -> bool | None:
    """Whether two answers differ at all; None where that can't be told: an answer is missing, or words alone agree."""
    if one.error or other.error:
        return None
    if one.alternatives and other.alternatives:
        first, second = ({each.token: each.logprob for each in read.alternatives} for read in (one, other))
        same = first.keys() & second.keys()
        return not same or max(abs(first[token] - second[token]) for token in same) > _SAME
    return True if one.apart(other) > _SAME else None
