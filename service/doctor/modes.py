"""In which ways can P(yes) be had from this server, and which of them should a strategy use?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fieldscope.agent.call import ask, image_parts, messages
from fieldscope.agent.lmm.base import LMMRequest, TextPart
from fieldscope.agent.requests import SAMPLED_AT
from fieldscope.agent.schemas import StatedAnswer
from fieldscope.agent.strategies.verification import Mode
from fieldscope.agent.types import Draw
from fieldscope.agent.verdicts import one_line_of, read_draw
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe

NAME = "ways to P(yes)"
SAMPLES = 8
"""How many plain answers are recommended for a question."""

_TRIED = 4  # questions for each way
_MAX_TOKENS = 32
_MOST_UNREADABLE = 0.25
_MEANING = "a strategy reads P(yes) from log-probabilities, as the share of plain answers, or as the model states it"
_CHANGES: dict[Mode, str] = {
    "samples": f"in a strategy of your own, set verify.samples: {SAMPLES}, verify.max_tokens: 16 and "
    "compare.top_logprobs: 0, and fit it with `fieldscope calibrate`",
    "stated": "in a strategy of your own, set verify.prompt: state_predicate and verify.whole: state_yes_no, leave "
    "`compare` out, and fit it with `fieldscope calibrate`",
}


@dataclass(frozen=True)
class Tried:
    """How one way went: the share of answers that could not be read, and why the last of these could not."""

    unreadable: float
    error: str = ""

    @property
    def works(self) -> bool:
        return self.unreadable <= _MOST_UNREADABLE


async def check_modes(asker: Asker, probe: Probe, *images: str) -> Finding:
    """Try the ways that need no log-probabilities, and recommend one. The asker requests log-probabilities where there
    are usable ones.

    `images` are the ids of images that the model accepts, if any; their content does not matter.
    """
    samples = await _try(asker, [await _sampled(asker, probe, number, images) for number in range(_TRIED)], "samples")
    stated = await _try(asker, [await _stated(asker, probe, number, images) for number in range(_TRIED)], "stated")
    works: dict[Mode, bool] = {"logprobs": asker.top_logprobs > 0, "samples": samples.works, "stated": stated.works}
    names: dict[Mode, str] = {
        "logprobs": "log-probabilities", "samples": "plain answers (samples)", "stated": "stated probabilities",
    }  # fmt: skip
    seen = ", ".join(f"{names[mode]}: {'yes' if can else 'no'}" for mode, can in works.items())
    best = next((mode for mode, can in works.items() if can), None)
    if best == "logprobs":
        return Finding(NAME, "ok", seen, f"{_MEANING}; log-probabilities are the best and need one call")
    if best is not None:
        return Finding(NAME, "warn", seen, f"{_MEANING}; without log-probabilities, use {names[best]}", _CHANGES[best])
    why = one_line_of(samples.error or stated.error)
    return Finding(NAME, "fail", f"{seen} ({why})", _MEANING, "use another model or server, or allow more max_tokens")


async def _try(asker: Asker, requests: Sequence[LMMRequest], mode: Mode) -> Tried:
    draws: list[Draw] = []
    for request in requests:
        asker.calls += 1
        draws.append(read_draw(await ask(asker.lmm, request), mode))
    errors = [draw.error or draw.state for draw in draws if draw.state != "answered"]
    return Tried(len(errors) / len(draws), errors[-1] if errors else "")


async def _sampled(asker: Asker, probe: Probe, number: int, images: Sequence[str]) -> LMMRequest:
    request = await asker.question(probe.known[number % len(probe.known)].question, *images)
    plain = {"top_logprobs": 0, "temperature": SAMPLED_AT, "sample": number, "max_tokens": _MAX_TOKENS}
    return request.model_copy(update=plain)


async def _stated(asker: Asker, probe: Probe, number: int, images: Sequence[str]) -> LMMRequest:
    prompt = asker.prompts.load("state_predicate")
    text = TextPart(text=prompt.render(question=probe.known[number % len(probe.known)].question))
    return LMMRequest(
        messages=messages(prompt, *await image_parts(asker.images, images), text),
        max_tokens=_MAX_TOKENS,
        json_schema=StatedAnswer.model_json_schema(),
    )
