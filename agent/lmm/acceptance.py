"""Whether a response can be used as the answer to its request: one test for new answers and remembered ones."""

from __future__ import annotations

from functools import cache

from pydantic import BaseModel

from fieldscope.agent.lmm.base import LMMRequest, LMMResponse
from fieldscope.agent.lmm.joint_answer import answers_fault
from fieldscope.agent.lmm.json_text import read_json
from fieldscope.agent.lmm.logprobs import logprobs_fault
from fieldscope.agent.lmm.thinking import is_marked
from fieldscope.agent.schemas import AnswersAnswer, PredicatesAnswer, StatedAnswer, SynthesisAnswer
from fieldscope.core.fingerprint import canonical_json

_FILTERED = {
    "blocklist", "content_filter", "content_filtered", "guardrail_intervened", "prohibited_content", "recitation",
    "refusal", "safety", "sensitive", "spii",
}  # fmt: skip
"""What servers call the end of an answer that a filter stopped."""


def fault(request: LMMRequest, response: LMMResponse) -> str | None:
    """Why a response, new or remembered, is no answer to the request; None where it is one.

    It is none where a filter stopped it, where its log-probabilities are missing or can't be any, where its JSON can't
    be read, where it is empty, and where it ends before the text after which the answer was to start.
    """
    if was_filtered(response.finish_reason):
        return f"a content filter stopped the answer (it ended with {response.finish_reason!r})"
    if request.top_logprobs and (wrong := _logprobs_fault(request, response)):
        return wrong
    if request.json_schema is not None:
        schema = _schemas().get(canonical_json(request.json_schema), _AnyObject)
        try:
            read_json(response.text, schema)
        except ValueError as error:
            return f"the answer can't be read as JSON: {error}"
    if request.top_logprobs:
        return None
    if not response.text.strip():
        return "the answer is empty"
    if request.answer_after is not None and not (response.thought or is_marked(response.text, request.answer_after)):
        return f"the answer does not contain {request.answer_after!r}"
    return None


def _logprobs_fault(request: LMMRequest, response: LMMResponse) -> str | None:
    if request.logprobs_of == "all":
        return answers_fault(response, request.top_logprobs)
    return logprobs_fault(response.answer_logprobs, request.top_logprobs)


def was_filtered(finish_reason: str) -> bool:
    """Whether a server's word for the end of an answer says that a filter stopped it."""
    return finish_reason.casefold() in _FILTERED


class _AnyObject(BaseModel):
    """What is known of an answer whose schema is not one of ours."""


@cache
def _schemas() -> dict[str, type[BaseModel]]:
    """The models that read answers, by the schema that a request carries."""
    models: tuple[type[BaseModel], ...] = (AnswersAnswer, PredicatesAnswer, StatedAnswer, SynthesisAnswer)
    return {canonical_json(model.model_json_schema()): model for model in models}
