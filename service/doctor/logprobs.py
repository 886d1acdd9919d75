"""Do log-probabilities come back, how many, and are they such?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from fieldscope.agent.call import one_line
from fieldscope.core.errors import LMMError, LMMResponseError
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe

WANTED = 20
_FEWER = (10, 5, 4, 3, 2, 1)
_TOO_FEW = 5
_USE_VLLM = "use a server that returns the model's own log-probabilities, such as vLLM (fieldscope lmm serve MODEL)"


@dataclass(frozen=True)
class Granted:
    """`accepted` is the most that could be asked for without an error, `returned` how many came, and `refusal` what
    was wrong with 20. Of `asked` answers with so many, `errors` says what is wrong with those that can't be used."""

    accepted: int
    returned: int
    refusal: str | None = None
    asked: int = 0
    errors: tuple[str, ...] = ()


async def grant(asker: Asker, probe: Probe) -> Granted:
    """Find out, and let the asker ask for that many from now on: for 0 where there are none that can be believed."""
    first, refusal = probe.known[0], None
    asker.top_logprobs = 0
    sees = (await asker.yes_no(first.question, first.right)).error is None  # else it may give log-probabilities yet
    for number in (WANTED, *_FEWER):
        asker.top_logprobs = number
        asker.calls += 1
        returned = 0
        try:
            response = await asker.lmm.generate(await asker.question(first.question, *([first.right] if sees else [])))
            returned = len(response.answer_logprobs)
        except LMMResponseError:
            pass  # it takes the number, and gives nothing that can be used
        except LMMError as error:
            refusal = refusal or one_line(error)
            continue
        asked = [(known.question, picture) for known in probe.known for picture in (known.right, known.wrong)]
        readings = [await asker.yes_no(question, *([picture] if sees else [])) for question, picture in asked]
        errors = tuple(reading.error for reading in readings if reading.error)
        asker.top_logprobs = 0 if errors or not returned else number
        return Granted(number, returned, refusal, len(asked), errors)
    asker.top_logprobs = 0
    return Granted(0, 0, refusal)


def judge_logprobs(granted: Granted) -> Finding:
    name = "log-probabilities"
    if granted.errors:
        (error, _), *_ = Counter(granted.errors).most_common(1)
        seen = f"{len(granted.errors)} of {granted.asked} answers can't be used: {error}"
        return Finding(name, "fail", seen, "their questions would be unknown, and the others are in doubt", _USE_VLLM)
    if granted.returned:
        return Finding(name, "ok", "they come with the answer", "P(yes) is read from them, and images are ranked by it")
    meaning = "P(yes) can't be read, so every yes/no question and every comparison would be unknown"
    said = granted.refusal or "the answer came without them"
    return Finding(name, "fail", f"none that can be used: {said}", meaning, _USE_VLLM)


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
