"""Is the server there, does it serve the model, and does it answer at all?"""

from __future__ import annotations

from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.core.errors import LMMError
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe
from fieldscope.service.wiring.models import check_served

NAME = "server"
_MEANING = "nothing else can be told without a server that answers under this name"


async def check_server(asker: Asker, probe: Probe) -> Finding:
    """One picture, else words alone: a server that takes no pictures is one that answers."""
    lmm = asker.lmm
    if not isinstance(lmm, OpenAILMM):
        return Finding(NAME, "ok", "the bundled LMM, in this process", "no server is needed")
    try:
        listed = (await check_served(lmm)).listed
    except LMMError as error:
        return Finding(NAME, "fail", str(error), _MEANING, "start the server, or correct --lmm and --model")
    asker.top_logprobs = 0
    first = probe.known[0]
    reading = await asker.yes_no(first.question, first.right)
    if reading.error is not None:
        reading = await asker.yes_no(first.question)
    if reading.error is not None:
        change = "do what the message says; the server's log may say more. FIELDSCOPE_API_KEY holds the key, if any"
        return Finding(NAME, "fail", f"{lmm.url} serves {lmm.model}, but: {reading.error}", _MEANING, change)
    if not listed:
        seen = f"{lmm.url} answers, and has no list of models that can be read"
        meaning = "the model's name is taken on trust: some servers answer under any name"
        return Finding(NAME, "warn", seen, meaning, "check that the name is that of the model you mean")
    return Finding(NAME, "ok", f"{lmm.url} serves {lmm.model}, and it answers", "the model can be asked")
