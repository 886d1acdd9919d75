"""Does the server return log-probabilities, how many, and are they valid?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from fieldscope.agent.call import one_line
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.core.errors import LMMError, LMMResponseError
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe

WANTED = 20
_FEWER = (10, 5, 4, 3, 2, 1)
_TOO_FEW = 3
_USE_VLLM = "use a server that returns the model's own log-probabilities, such as vLLM (fieldscope lmm serve MODEL)"
_OR_NONE = f"{_USE_VLLM}, or the mode `samples` or `stated` (see the check 'ways to P(yes)')"


@dataclass(frozen=True)
class Granted:
    """`accepted` is the largest number that can be requested, `returned` how many came back, and `refusal` what the
    server says to 20. `errors` are those of `asked` answers with `accepted` log-probabilities that can't be used."""

    accepted: int
    returned: int
    refusal: str | None = None
    asked: int = 0
    errors: tuple[str, ...] = ()


async def grant(asker: Asker, probe: Probe) -> Granted:
    """Find out, and make the asker request that many from now on; 0 if there are no valid ones."""
    first, refusal = probe.known[0], None
    asker.top_logprobs = 0
    sees = (await asker.yes_no(first.question, first.right)).error is None  # without images it may still return some
    for number in (WANTED, *_FEWER):
        asker.top_logprobs = number
        asker.calls += 1
        returned = 0
        try:
            response = await asker.lmm.generate(await asker.question(first.question, *([first.right] if sees else [])))
            returned = len(response.answer_logprobs)
        except LMMResponseError:
            pass  # it accepts the number, and returns nothing valid
        except LMMError as error:
            refusal = refusal or one_line(error)
            continue
        asked = [(known.question, image) for known in probe.known for image in (known.right, known.wrong)]
        readings = [await asker.yes_no(question, *([image] if sees else [])) for question, image in asked]
        errors = tuple(reading.error for reading in readings if reading.error)
        asker.top_logprobs = 0 if errors or not returned else number
        if isinstance(asker.lmm, OpenAILMM):  # which sends what the server takes
            refusal = refusal or asker.lmm.profile.words.get("top_logprobs")
        return Granted(number, returned, refusal, len(asked), errors)
    asker.top_logprobs = 0
    return Granted(0, 0, refusal)


def judge_logprobs(granted: Granted) -> Finding:
    name = "log-probabilities"
    if granted.errors:
        (error, _), *_ = Counter(granted.errors).most_common(1)
        seen = f"{len(granted.errors)} of {granted.asked} answers can't be used: {error}"
        return Finding(
            name, "fail", seen, "their questions would be unknown, and the other answers are doubtful", _USE_VLLM
        )
    if granted.returned:
        return Finding(name, "ok", "the server returns them", "P(yes) is read from them, and images are ranked by it")
    meaning = "P(yes) can't be read, so every yes/no question and every comparison would be unknown"
    said = granted.refusal or "the answer has none"
    return Finding(name, "fail", f"no usable ones: {said}", meaning, _OR_NONE)


def judge_top_logprobs(granted: Granted) -> Finding:
    name = "top log-probabilities"
    if not granted.returned:
        return Finding(name, "unknown", "the server returned none", "see the check 'log-probabilities'")
    few = min(granted.accepted, granted.returned)
    if few >= WANTED:
        return Finding(name, "ok", f"{few} of {WANTED}", "they are likely to include every spelling of yes and no")
    seen = f"{few} of {WANTED}" + (f": {granted.refusal}" if granted.refusal else "")
    meaning = (
        "a yes or no that is not among them can only be bounded, so the certainty of sure answers can't be compared"
    )
    change = f"serve with --max-logprobs {WANTED} (fieldscope lmm serve sets it)"
    if granted.refusal:
        meaning = f"the server refuses more, so only {few} are requested; {meaning}"
    return Finding(name, "fail" if few <= _TOO_FEW else "warn", seen, meaning, change)
