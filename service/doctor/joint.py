"""Can P(yes) of several answers be read from one structured answer, and do the log-probabilities come before or after
the mask of the server's grammar?"""

from __future__ import annotations

import math

from fieldscope.agent.call import ask, image_parts, messages
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, TextPart
from fieldscope.agent.lmm.joint_answer import read_answers
from fieldscope.agent.lmm.json_text import read_json
from fieldscope.agent.requests import questions_text
from fieldscope.agent.schemas import AnswersAnswer
from fieldscope.agent.types import Predicate
from fieldscope.prompts.prompt import Prompt
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe

NAME = "joint answers"
_QUESTIONS = 3
_MAX_TOKENS = 96
_ALTERNATIVES = 5
_SURE = 0.99  # a share of the first token above which a grammar, and not the model, wants JSON
_MEANING = "with `joint` a strategy asks all questions about an image in one call"
_CHANGE = "leave `joint` out of strategies for this server; questions are then asked one at a time"


async def check_joint(asker: Asker, probe: Probe, *images: str) -> Finding:
    """Ask some questions at once and read each answer at its own place; then ask one plainly, and see how probable the
    JSON is that the schema forces. `images` are the ids of images that the model accepts, if any."""
    if not asker.top_logprobs:
        return Finding(NAME, "unknown", "there are no valid log-probabilities", f"{_MEANING}; P(yes) can't be read")
    known = probe.known[:_QUESTIONS]
    questions = [Predicate(id=str(at), question=each.question, kind="subject") for at, each in enumerate(known)]
    prompt = asker.prompts.load("ask_joint")
    together = await _answer(asker, prompt, images, questions=questions_text(questions, prompt))
    if isinstance(together, str):
        return Finding(NAME, "warn", together, f"{_MEANING}; here such calls fail", _CHANGE)
    try:
        said = read_json(together.text, AnswersAnswer).answers
    except ValueError as error:
        return Finding(NAME, "warn", f"no answers: {error}", f"{_MEANING}; here such calls fail", _CHANGE)
    readings = read_answers(together.tokens, said)
    if unread := [reading.reason for reading in readings if reading.p_yes is None]:
        seen = f"P(yes) of {len(unread)} of {len(said)} answers can't be read: {unread[0]}"
        return Finding(NAME, "warn", seen, f"{_MEANING}; these are asked again, one at a time", _CHANGE)
    seen = f"P(yes) of each of {len(said)} answers was read at its own place"
    plain = await _answer(asker, asker.prompts.load("ask_predicate"), images, question=questions[0].question)
    return Finding(NAME, "ok", seen, f"{_MEANING}; {_mask(plain)}")


def _mask(plain: LMMResponse | str) -> str:
    """Whether log-probabilities are those before or after the grammar's mask, by the answer to a plain question, which
    no model would answer in JSON of its own accord."""
    if isinstance(plain, str) or not plain.tokens or not plain.text.lstrip().startswith("{"):
        return "no grammar forces the JSON, so the log-probabilities are the model's own"
    first = plain.tokens[0]
    share = sum(math.exp(each.logprob) for each in first.alternatives if each.token.strip(" \n\t▁Ġ")[:1] in ("{", ""))
    if share >= _SURE:
        return (
            "log-probabilities come after the grammar's mask: at an answer they are shares of what it allows, yes and "
            "no, and can be used as such"
        )
    return "log-probabilities come before the grammar's mask: they are the model's own"


async def _answer(asker: Asker, prompt: Prompt, images: tuple[str, ...], **values: str) -> LMMResponse | str:
    """The answer, or why there is none."""
    text = TextPart(text=prompt.render(**values))
    request = LMMRequest(
        messages=messages(prompt, *await image_parts(asker.images, images), text),
        max_tokens=_MAX_TOKENS,
        json_schema=AnswersAnswer.model_json_schema(),
        top_logprobs=min(asker.top_logprobs, _ALTERNATIVES),
        logprobs_of="all",
    )
    asker.calls += 1
    answer = await ask(asker.lmm, request)
    return answer.response or answer.error or answer.state
