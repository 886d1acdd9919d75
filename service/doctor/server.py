"""Is the server there, does it serve the model, and does it answer at all?"""

from __future__ import annotations

from agent.lmm.openai import OpenAILMM
from core.errors import LMMError
from service.doctor.asker import Asker
from service.doctor.finding import Finding
from service.doctor.probes import Probe
from service.wiring import check_served

NAME = "server"
_MEANING = "nothing else can be told without a server that answers under this name"


async def check_server(asker: Asker, probe: Probe) -> Finding:
    """One picture, else words alone: a server that takes no pictures is one that answers."""
    lmm = asker.lmm
    if not isinstance(lmm, OpenAILMM):
        return Finding(NAME, "ok", "the bundled LMM, in this process", "no server is needed")
    try:
        await check_served(lmm)
    except LMMError as error:
        return Finding(NAME, "fail", str(error), _MEANING, "start the server, or correct --lmm and --model")
    asker.top_logprobs = 0
    first = probe.known[0]
    reading = await asker.yes_no(first.question, first.right)
    if reading.error is not None:
        reading = await asker.yes_no(first.question)
    if reading.error is not None:
        change = "look into the server's log; FIELDSCOPE_API_KEY holds the key, where it wants one"
        return Finding(NAME, "fail", f"{lmm.url} serves {lmm.model}, but: {reading.error}", _MEANING, change)
    return Finding(NAME, "ok", f"{lmm.url} serves {lmm.model}, and it answers", "the model can be asked")
