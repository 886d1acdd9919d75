"""Is the scorer there, and does it score an image and a text?"""

from __future__ import annotations

from fieldscope.core.errors import ConfigError, LMMError
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.advice import VISION
from fieldscope.service.doctor.scorer.subject import KINDS, Subject

NAME = "server"
_MEANING = "without a scorer that answers, nothing else can be checked"


def check_server(subject: Subject) -> Finding:
    """Ask which model it is, and score one image and one text. What is refused goes to the subject's refusals."""
    change = (
        "follow the message, and check the address, the model's name after # and the key; in an answer each result "
        "needs an `index`, from 0, and a finite `relevance_score` or `score`"
    )
    try:
        subject.identity = subject.asker.scorer.fingerprint
    except LMMError as error:
        subject.refusals = dict.fromkeys(KINDS, str(error))
        return Finding(NAME, "fail", str(error), _MEANING, change)
    scored = []
    for kind in KINDS:
        try:
            pair = subject.asker.ask(subject.queries[0], subject.documents(kind)[:1])[0]
        except (LMMError, ConfigError) as error:
            subject.refusals[kind] = str(error)
            continue
        if pair.value is None:
            subject.refusals[kind] = pair.error or "it gets no score"
        else:
            scored.append(kind)
    if not scored:
        return Finding(NAME, "fail", subject.refusals["images"], _MEANING, change)
    if "images" not in scored:
        seen = f"texts get scores, an image does not: {subject.refusals['images']}"
        return Finding(NAME, "fail", seen, "images can't be ranked with this scorer", VISION)
    if "texts" not in scored:
        seen = f"images get scores, a text does not: {subject.refusals['texts']}"
        return Finding(NAME, "ok", seen, "images can be scored; documents that are texts can't")
    return Finding(NAME, "ok", "an image and a text get scores", "the scorer can be asked")
