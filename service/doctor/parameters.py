"""Which parameters of a request does the server take?"""

from __future__ import annotations

from typing import get_args

from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.agent.lmm.server_profile import Parameter, ServerProfile
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding

NAME = "parameters"
_WORSE: dict[Parameter, str] = {
    "temperature": "answers are drawn at the server's own temperature, so a text may differ when it is asked for again",
    "seed": "answers that are drawn can't be repeated, except from the response cache",
    "response_format": "JSON is asked for in words alone; it is checked all the same, and repaired or unknown where it "
    "is wrong",
}


def check_parameters(asker: Asker) -> Finding:
    """Say what earlier checks found out; asks nothing."""
    if not isinstance(asker.lmm, OpenAILMM):
        return Finding(NAME, "ok", "the model runs in this process", "a request is read as it is")
    known = asker.lmm.profile
    changed = [name for name in get_args(Parameter) if getattr(known.profile, name) != getattr(ServerProfile(), name)]
    if not changed:
        return Finding(NAME, "ok", "the server takes every parameter", "requests are sent as the protocol has them")
    seen = "; ".join(_seen(known.profile, name, known.words.get(name)) for name in changed)
    losses = [loss for name in changed if (loss := _loss(name, known.profile))]
    if not losses:
        return Finding(NAME, "ok", seen, "requests are sent as the server takes them, and answers are read as ever")
    change = (
        "use a server that takes them, such as vLLM; where the server is misunderstood, set the profile yourself "
        "([profile] in fieldscope.toml, or extra_body in the strategy)"
    )
    return Finding(NAME, "warn", seen, "; ".join(losses), change)


def _seen(profile: ServerProfile, name: Parameter, words: str | None) -> str:
    sent = {
        "token_limit": f"max_tokens is sent as {profile.token_limit}",
        "min_tokens": f"at least {profile.min_tokens} output tokens are allowed",
        "top_logprobs": f"at most {profile.top_logprobs} log-probabilities are requested"
        if profile.top_logprobs
        else "no log-probabilities are requested",
    }
    return sent.get(name, f"{name} is not sent") + (f" ({words})" if words else " (as set)")


def _loss(name: Parameter, profile: ServerProfile) -> str | None:
    if name == "top_logprobs":
        return "P(yes) of sure answers is less exact" if profile.top_logprobs else "P(yes) can't be read"
    return _WORSE.get(name)
