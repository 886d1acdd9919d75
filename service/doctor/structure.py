"""Is a JSON schema honoured?"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from fieldscope.agent.call import ask, image_parts, messages
from fieldscope.agent.lmm.base import LMMRequest, TextPart
from fieldscope.agent.lmm.json_text import read_json
from fieldscope.agent.schemas import AnswersAnswer
from fieldscope.prompts.prompt import load_prompt
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe

NAME = "JSON schema"
_ANSWERS = 3
_MAX_TOKENS = 96
_SHOWN = 60
_MEANING = "thinking about a query, predicates and joint answers need JSON of a given shape"


async def check_structure(asker: Asker, probe: Probe, *pictures: str) -> Finding:
    """A plain question whose answer only the schema makes JSON; where that fails, one that asks for JSON in words.

    What is shown is beside the point: `pictures` are whatever the model takes.
    """
    questions = [known.question for known in probe.known[:_ANSWERS]]
    plain = await _answer(asker, pictures, "ask_predicate", question=questions[0])
    if _fits(plain):
        return Finding(NAME, "ok", f"a plain question is answered with {_short(plain)}", f"{_MEANING}; it is enforced")
    if _holds(plain):
        seen = f"it stands among other text: {_short(plain)}"
        change = "switch off what the server adds to the answer; the object is found among other text all the same"
        return Finding(NAME, "warn", seen, f"{_MEANING}; other programs could not read it", change)
    listed = " ".join(f"{number}. {question}" for number, question in enumerate(questions, start=1))
    asked = await _answer(asker, pictures, "ask_joint", questions=listed)
    change = "use a server with guided decoding, such as vLLM, with its structured outputs left on"
    if _holds(asked):
        seen = f"followed where the words ask for JSON, else {_short(plain)}"
        return Finding(NAME, "warn", seen, f"{_MEANING}; this model writes it by itself, at times wrongly", change)
    return Finding(NAME, "fail", f"{_short(asked)} in place of an object with {_ANSWERS} answers", _MEANING, change)


async def _answer(asker: Asker, pictures: Sequence[str], prompt_name: str, **values: str) -> str:
    prompt = load_prompt(prompt_name)
    shown = await image_parts(asker.images, pictures)
    request = LMMRequest(
        messages=messages(prompt, *shown, TextPart(text=prompt.render(**values))),
        max_tokens=_MAX_TOKENS,
        json_schema=_schema(),
    )
    asker.calls += 1
    answer = await ask(asker.lmm, request)
    return answer.response.text if answer.response else answer.error or answer.state


def _schema() -> dict[str, object]:
    """That of joint answers, for exactly so many."""
    schema = AnswersAnswer.model_json_schema()
    schema["properties"]["answers"] |= {"minItems": _ANSWERS, "maxItems": _ANSWERS}
    return schema


def _fits(text: str) -> bool:
    try:
        return len(AnswersAnswer.model_validate_json(text).answers) == _ANSWERS
    except ValidationError:
        return False


def _holds(text: str) -> bool:
    """Whether it can be read, as the strategies read it."""
    try:
        return len(read_json(text, AnswersAnswer).answers) == _ANSWERS
    except ValueError:
        return False


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= _SHOWN else line[:_SHOWN] + "...") if text else "nothing"
