"""Does the server enforce a JSON schema?"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from fieldscope.agent.call import ask, image_parts, messages
from fieldscope.agent.lmm.base import LMMRequest, TextPart
from fieldscope.agent.lmm.json_text import read_json
from fieldscope.agent.schemas import AnswersAnswer
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe

NAME = "JSON schema"
_ANSWERS = 3
_MAX_TOKENS = 96
_SHOWN = 60
_MEANING = "synthesis, predicates and joint answers need JSON of a given schema"


async def check_structure(asker: Asker, probe: Probe, *images: str) -> Finding:
    """Ask a plain question with a schema; if that fails, one whose prompt asks for JSON.

    `images` are the ids of images that the model accepts, if any; their content does not matter.
    """
    questions = [known.question for known in probe.known[:_ANSWERS]]
    plain = await _answer(asker, images, "ask_predicate", question=questions[0])
    if _fits(plain):
        return Finding(
            NAME, "ok", f"a plain question is answered with {_short(plain)}", f"{_MEANING}; the server enforces it"
        )
    if _holds(plain):
        seen = f"the JSON is surrounded by other text: {_short(plain)}"
        change = "turn off what the server adds to answers; Fieldscope finds the JSON in the text"
        return Finding(NAME, "warn", seen, f"{_MEANING}; other programs may not be able to read it", change)
    listed = " ".join(f"{number}. {question}" for number, question in enumerate(questions, start=1))
    asked = await _answer(asker, images, "ask_joint", questions=listed)
    change = "use a server with guided decoding, such as vLLM with structured outputs"
    if _holds(asked):
        seen = f"JSON only if the prompt asks for it, else {_short(plain)}"
        return Finding(NAME, "warn", seen, f"{_MEANING}; this model writes it unaided, and may make mistakes", change)
    return Finding(NAME, "fail", f"{_short(asked)} instead of an object with {_ANSWERS} answers", _MEANING, change)


async def _answer(asker: Asker, images: Sequence[str], prompt_name: str, **values: str) -> str:
    prompt = asker.prompts.load(prompt_name)
    shown = await image_parts(asker.images, images)
    request = LMMRequest(
        messages=messages(prompt, *shown, TextPart(text=prompt.render(**values))),
        max_tokens=_MAX_TOKENS,
        json_schema=_schema(),
    )
    asker.calls += 1
    answer = await ask(asker.lmm, request)
    return answer.response.text if answer.response else answer.error or answer.state


def _schema() -> dict[str, object]:
    """The schema of joint answers, with the number of answers fixed."""
    schema = AnswersAnswer.model_json_schema()
    schema["properties"]["answers"] |= {"minItems": _ANSWERS, "maxItems": _ANSWERS}
    return schema


def _fits(text: str) -> bool:
    try:
        return len(AnswersAnswer.model_validate_json(text).answers) == _ANSWERS
    except ValidationError:
        return False


def _holds(text: str) -> bool:
    """Whether a strategy could read the text."""
    try:
        return len(read_json(text, AnswersAnswer).answers) == _ANSWERS
    except ValueError:
        return False


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= _SHOWN else line[:_SHOWN] + "...") if text else "nothing"
