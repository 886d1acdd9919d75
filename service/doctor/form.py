"""Do answers have the form that the protocol gives them?"""

from __future__ import annotations

from fieldscope.agent.lmm.completion import read_oddities
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.core.errors import LMMError
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe

NAME = "answer format"


async def check_form(asker: Asker, probe: Probe, *pictures: str) -> Finding:
    """One answer, as the server wrote it. `pictures` are whatever the model takes."""
    if not isinstance(asker.lmm, OpenAILMM):
        return Finding(NAME, "ok", "the bundled LMM, in this process", "nothing has to be read from a server's JSON")
    asker.calls += 1
    try:
        _, body = await asker.lmm.exchange(await asker.question(probe.known[0].question, *pictures))
    except LMMError as error:
        return Finding(NAME, "unknown", str(error), "no answer could be looked at")
    odd = read_oddities(body)
    if not odd:
        return Finding(NAME, "ok", "as the protocol has it", "nothing of an answer is passed over")
    meaning = "these fields are passed over; the answer is read without them"
    return Finding(NAME, "warn", "; ".join(odd), meaning, "update the server, or report it to its makers")
