"""Do log-probabilities come back, and how many?"""

from __future__ import annotations

from dataclasses import dataclass

from agent.asking import ask
from service.doctor.asker import Asker
from service.doctor.finding import Finding
from service.doctor.probes import Probe

WANTED = 20
_FEWER = (10, 5, 4, 3, 2, 1)
_TOO_FEW = 5
_USE_VLLM = "use a server that returns them, such as vLLM (fieldscope lmm serve MODEL)"


@dataclass(frozen=True)
class Granted:
    """`accepted` is the most that could be asked for without an error, `returned` how many came, and `refusal` what
    the server said to 20."""

    accepted: int
    returned: int
    refusal: str | None = None


async def grant(asker: Asker, probe: Probe) -> Granted:
    """Find out, and let the asker ask for that many from now on: 0 where there are none."""
    first, refusal = probe.known[0], None
    pictures = [first.right]
    asker.top_logprobs = 0
    if (await asker.yes_no(first.question, first.right)).error is not None:
        pictures = []  # it takes no pictures, but may give log-probabilities
    for number in (WANTED, *_FEWER):
        asker.top_logprobs = number
        asker.calls += 1
        answer = await ask(asker.lmm, await asker.question(first.question, *pictures))
        if answer.response is not None:
            return Granted(number, len(answer.response.answer_logprobs), refusal)
        refusal = refusal or answer.error
    asker.top_logprobs = 0
    return Granted(0, 0, refusal)


def judge_logprobs(granted: Granted) -> Finding:
    name = "log-probabilities"
    if granted.returned:
        return Finding(name, "ok", "they come with the answer", "P(yes) is read from them, and images are ranked by it")
    meaning = "P(yes) can't be read, so every yes/no question and every comparison would be unknown"
    said = granted.refusal or "the answer came without them"
    return Finding(name, "fail", f"none came: {said}", meaning, _USE_VLLM)


def judge_top_logprobs(granted: Granted) -> Finding:
    name = "top log-probabilities"
    if not granted.returned:
        return Finding(name, "unknown", "none came", "see log-probabilities")
    few = min(granted.accepted, granted.returned)
    if few >= WANTED:
        return Finding(name, "ok", f"{few} of {WANTED}", "every spelling of yes and no is likely to be among them")
    seen = f"{few} of {WANTED}" + (f": {granted.refusal}" if granted.refusal else "")
    meaning = "a yes or no that is not among them can only be bounded, so sure answers can't be told apart"
    change = f"serve with --max-logprobs {WANTED} (fieldscope lmm serve sets it)"
    if granted.refusal:
        meaning = f"a question that asks for {WANTED}, as the shipped strategies' do, is refused; with fewer, {meaning}"
        change += f", or set top_logprobs: {few} in a strategy of your own"
    return Finding(name, "fail" if few <= _TOO_FEW else "warn", seen, meaning, change)
