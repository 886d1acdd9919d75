"""Do answers have the format of the protocol?"""

from __future__ import annotations

from fieldscope.agent.lmm.completion import read_oddities
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.core.errors import LMMError
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe

NAME = "answer format"


async def check_form(asker: Asker, probe: Probe, *images: str) -> Finding:
    """Look at one answer as the server wrote it. `images` are the ids of images that the model accepts, if any."""
    if not isinstance(asker.lmm, OpenAILMM):
        return Finding(NAME, "ok", "the model runs in this process", "no JSON from a server has to be read")
    asker.calls += 1
    try:
        _, body = await asker.lmm.exchange(await asker.question(probe.known[0].question, *images))
    except LMMError as error:
        return Finding(NAME, "unknown", str(error), "no answer could be examined")
    odd = read_oddities(body)
    if not odd:
        return Finding(NAME, "ok", "as in the protocol", "every field of an answer is read")
    meaning = "these fields are ignored; the answer is read without them"
    return Finding(NAME, "warn", "; ".join(odd), meaning, "update the server, or report it to its developers")
