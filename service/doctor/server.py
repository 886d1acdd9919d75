"""Does the server run, serve the model, and answer?"""

from __future__ import annotations

from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.core.errors import LMMError
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe
from fieldscope.service.wiring.models import check_served

NAME = "server"
_MEANING = "without a server that answers for this model, nothing else can be checked"


async def check_server(asker: Asker, probe: Probe) -> Finding:
    """Ask about one image, or without an image if that fails: a server that refuses images does answer."""
    lmm = asker.lmm
    if not isinstance(lmm, OpenAILMM):
        return Finding(NAME, "ok", "the model runs in this process", "no server is needed")
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
        change = "follow the message, and look into the server's log. If the server needs a key, set FIELDSCOPE_API_KEY"
        return Finding(
            NAME, "fail", f"{lmm.url} serves {lmm.model}, but a question failed: {reading.error}", _MEANING, change
        )
    if not listed:
        seen = f"{lmm.url} answers, but its list of models can't be read"
        meaning = "the model's name can't be verified; some servers answer for any name"
        return Finding(NAME, "warn", seen, meaning, "check that --model names the model you want")
    return Finding(NAME, "ok", f"{lmm.url} serves {lmm.model}, and it answers", "the model can be asked")
