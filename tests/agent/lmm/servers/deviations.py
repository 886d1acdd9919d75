"""What servers do that the protocol does not foresee, each in a few lines. Add one here, and both tests drive it.

A deviation is `unknown` where every question has to end as an unknown verdict with these words, and None where the
ranking has to be the truthful server's. `doctor` is the finding that names it, and its words; None where it leaves
nothing to be found. A `harmless` one is named in a finding that is ok.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.agent.lmm.conftest import Reply
from tests.agent.lmm.servers.truthful import JSON_ANSWER, Body, Change, alternatives, body_of, reply

Top = list[Any]
"""Alternatives, as they stand in a body: the most probable first."""


@dataclass(frozen=True)
class Deviation:
    """See above. `max_tokens` is the strategy's; `models` is what the server lists."""

    change: Change | None = None
    unknown: str | None = None
    doctor: tuple[str, str] | None = None
    models: Any = None
    max_tokens: int = 1
    harmless: bool = False


def tops(change: Callable[[Top], Top | None]) -> Change:
    """Another list of alternatives at every token; what was written has the same number as in the list."""

    def changed(body: Body, request: Body) -> Body:
        for position in (body["choices"][0]["logprobs"] or {}).get("content", []):
            position["top_logprobs"] = change(position["top_logprobs"])
            for each in position["top_logprobs"] or []:
                if each and each["token"] == position["token"]:
                    position["logprob"] = each["logprob"]
        return body

    return changed


def values(change: Callable[[float], float]) -> Change:
    """Other numbers."""
    return tops(lambda top: [each | {"logprob": change(each["logprob"])} for each in top])


def one_hot(filler: Any) -> Change:
    """What is left after temperature 0."""
    return tops(lambda top: [each | {"logprob": filler if n else 0.0} for n, each in enumerate(top)])


def choice(**fields: Any) -> Change:
    """Other fields of the first choice."""
    return lambda body, request: body | {"choices": [body["choices"][0] | fields]}


def message(**fields: Any) -> Change:
    """Other fields of the message."""
    return lambda body, request: choice(message=body["choices"][0]["message"] | fields)(body, request)


def thought_alone(body: Body, request: Body) -> Body:
    """The thought apart, and log-probabilities of its tokens only."""
    body = before(*THOUGHT, shown="", apart="reasoning")(body, request)
    if body["choices"][0]["logprobs"]:
        del body["choices"][0]["logprobs"]["content"][-1]
    return body


def before(*tokens: str, shown: str | None = None, apart: str | None = None) -> Change:
    """Tokens before the answer's. `shown` is what of them the text shows, all where None; `apart` is a field of the
    message with the thought in it."""

    def changed(body: Body, request: Body) -> Body:
        said = body["choices"][0]
        text = said["message"]["content"]
        if text != JSON_ANSWER and said["logprobs"]:
            extra = body_of([(t, alternatives({t: 12.0, "No": 8.0}, t)[:20]) for t in tokens])["choices"][0]["logprobs"]
            said["logprobs"]["content"] = extra["content"] + said["logprobs"]["content"]
        said["message"]["content"] = ("".join(tokens) if shown is None else shown) + text
        if apart:
            said["message"][apart] = "".join(tokens).replace("<think>", "").replace("</think>", "")
        return body

    return changed


def cut_off(field: str | None = None, opening: str = "") -> Change:
    """The answer ends while the model thinks; `field` is where the server puts that."""

    def changed(body: Body, request: Body) -> Body:
        thought = f"{opening}No wait"
        tokens = [(token, alternatives({token: 12.0}, token)[:20]) for token in [opening, "No", " wait"] if token]
        made = body_of(tokens if request.get("top_logprobs") else [(t, []) for t, _ in tokens])
        made["choices"][0]["finish_reason"] = "length"
        if field:
            made["choices"][0]["message"] |= {"content": None, field: thought}
        return made

    return changed


def halves(body: Body, request: Body) -> Body:
    """Yes and no are two tokens each."""
    said = body["choices"][0]
    if said["logprobs"] is None or said["logprobs"]["content"][0]["token"] not in ("Yes", "No"):
        return body
    position = said["logprobs"]["content"][0]
    word, half = position["token"], {"Yes": "Y", "No": "N"}
    for each in (position, *position["top_logprobs"]):
        each["token"] = half.get(each["token"], each["token"])
    position["top_logprobs"] = [
        t for t in position["top_logprobs"] if t["token"].strip().casefold() not in ("yes", "no")
    ]
    if request["max_tokens"] == 1:
        said["message"]["content"] = half[word]
    else:
        ending = body_of([(word[1:], alternatives({word[1:]: 20.0}, word)[:20])])["choices"][0]["logprobs"]
        ending["content"][0]["logprob"] = -0.001
        said["logprobs"]["content"] += ending["content"]
    return body


def braces(body: Body, request: Body) -> Body:
    """JSON among other text in braces."""
    if "response_format" in request:
        body["choices"][0]["message"]["content"] = f"{{thinking}} of {{}} it: {JSON_ANSWER} {{done}}"
    return body


def at_first(failure: Body) -> Change:
    """Every question fails when it is asked for the first time."""
    asked: Counter[str] = Counter()

    def changed(body: Body, request: Body) -> Body:
        asked[str(request)] += 1
        return body if asked[str(request)] > 1 else copy.deepcopy(failure)

    return changed


def refusing(field: str, error: Any, status: int = 400, above: int | None = None, below: int | None = None) -> Change:
    """A field that is refused: always, or with a number `above` or `below` another."""

    def changed(body: Body, request: Body) -> Body | Reply:
        value = request.get(field)
        if value is None or (above is not None and value <= above) or (below is not None and value >= below):
            return body
        return reply(error, status)

    return changed


def all_of(*changes: Change) -> Change:
    """Several deviations at once; the first that refuses ends it."""

    def changed(body: Body, request: Body) -> Body | Reply:
        for change in changes:
            made = change(body, request)
            if isinstance(made, tuple):
                return made
            body = made
        return body

    return changed


def longer(body: Body, request: Body) -> Body:
    """A model that talks on for as long as it may."""
    said = body["choices"][0]
    allowed = request.get("max_tokens", request.get("max_completion_tokens"))
    if allowed == 1 or said["message"]["content"] == JSON_ANSWER:
        return body
    rest = [" There", " is", " no", " other", ".", " Yes", "!"][: allowed - 1]
    more = body_of([(t, alternatives({t: 12.0, "No": 8.0}, t)[: request.get("top_logprobs", 0)]) for t in rest])
    said["message"]["content"] += "".join(rest)
    if said["logprobs"]:
        said["logprobs"]["content"] += more["choices"][0]["logprobs"]["content"]
    return body


def openai_error(message: str, param: str | None = None, code: str | None = None) -> Body:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def fastapi_error(field: str, message: str = "Extra inputs are not permitted") -> Body:
    return {"detail": [{"type": "extra_forbidden", "loc": ["body", field], "msg": message, "input": 0}]}


def google_error(message: str) -> Any:
    return [{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}]


def failed(code: Any) -> Body:
    return {"error": {"message": "the upstream gave up", "code": code}}


def failed_choice(code: Any) -> Body:
    return {"choices": [{"finish_reason": "error", "message": {"content": ""}, **failed(code)}]}


def unsupported(field: str, instead: str = "") -> Body:
    words = f"Unsupported parameter: '{field}' is not supported with this model.{instead}"
    return openai_error(words, field, "unsupported_parameter")


COMPLETION_TOKENS = refusing("max_tokens", unsupported("max_tokens", " Use 'max_completion_tokens' instead."))
NO_TEMPERATURE = refusing(
    "temperature",
    openai_error(
        "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is allowed.",
        "temperature",
        "unsupported_value",
    ),
)
NO_SEED = refusing("seed", fastapi_error("seed"), 422)
AT_MOST_5 = refusing(
    "top_logprobs", openai_error("Requested sample logprobs of 20, which is greater than max allowed: 5"), above=5
)
NO_LOGPROBS = openai_error("You are not allowed to request logprobs from this model")
NO_SCHEMA = refusing("response_format", openai_error("This response_format type is unavailable now"))
SAMPLES = "can't be read.*`samples` or `stated`"
PARAMETERS = "parameters"

THOUGHT = ("<think>", "No", " red", " here", "?", " There", " is", ".", "</think>", "\n\n")
LOGPROBS, FORM, SERVER = "log-probabilities", "answer format", "server"
AFTER_ZERO = "after temperature 0.*--logprobs-mode raw_logprobs"
THINKING = "still thinking.*enable_thinking: false"
THINKS = (FORM, "thinks before it answers")

DEVIATIONS: dict[str, Deviation] = {
    # Numbers that are no log-probabilities
    "after temperature 0, the least float": Deviation(one_hot(-3.4e38), AFTER_ZERO, (LOGPROBS, AFTER_ZERO)),
    "after temperature 0, vLLM's filler": Deviation(one_hot(-9999.0), AFTER_ZERO, (LOGPROBS, AFTER_ZERO)),
    "after temperature 0, minus infinity": Deviation(one_hot(-math.inf), AFTER_ZERO, (LOGPROBS, AFTER_ZERO)),
    "after temperature 0, nulls": Deviation(one_hot(None), AFTER_ZERO, (LOGPROBS, AFTER_ZERO)),
    "after temperature 0, a small filler": Deviation(one_hot(-23.026), AFTER_ZERO, (LOGPROBS, AFTER_ZERO)),
    "after temperature 0, the chosen alone": Deviation(
        tops(lambda top: [top[0] | {"logprob": 0.0}]), AFTER_ZERO, (LOGPROBS, AFTER_ZERO)
    ),
    "probabilities": Deviation(values(math.exp), "probabilities in place of", (LOGPROBS, "probabilities in place of")),
    "base 10": Deviation(values(lambda v: v / math.log(10)), "base-10", (LOGPROBS, "base-10")),
    "sums over 1": Deviation(values(lambda v: min(v + 0.5, 0.0)), "sum to 1", (LOGPROBS, "sum to 1")),
    "without a sign": Deviation(values(abs), "greater than 0", (LOGPROBS, "greater than 0")),
    "not a number": Deviation(values(lambda v: math.nan), "no log-probability", (LOGPROBS, "no log-probability")),
    "none at all": Deviation(
        choice(logprobs=None), "no log-probabilities.*`samples` or `stated`", (LOGPROBS, "no log-probabilities")
    ),
    "an empty object of them": Deviation(choice(logprobs={}), "no log-probabilities", (LOGPROBS, "no log-prob")),
    "lists of tokens, as Together has them": Deviation(
        choice(logprobs={"tokens": ["Yes"], "token_logprobs": [-0.1], "token_ids": [9]}),
        "no log-probabilities.*`samples` or `stated`",
        (LOGPROBS, "no log-probabilities"),
    ),
    # Alternatives
    "every alternative twice": Deviation(tops(lambda top: [t for t in top for _ in "12"]), None, (FORM, "comes twice")),
    "the chosen one once more": Deviation(tops(lambda top: [*top[:1], *top]), None, (FORM, "comes twice")),
    "null in place of the list": Deviation(tops(lambda top: None), None, ("top log-probabilities", "1 of 20")),
    "null in place of the last": Deviation(tops(lambda top: [*top[:-1], None]), None, (FORM, "an alternative is null")),
    "null in place of the first": Deviation(tops(lambda top: [None, *top[1:]]), None, (FORM, "an alternative is null")),
    "one that is not a number": Deviation(
        tops(lambda top: [*top[:-1], *(t | {"logprob": math.nan} for t in top[-1:])]), None, (FORM, "without a number")
    ),
    "half-words": Deviation(halves, "in pieces: '[YN]'", ("yes/no spellings", "in pieces")),
    "half-words that are finished": Deviation(halves, None, ("yes/no spellings", "in pieces"), max_tokens=4),
    # Parameters that are refused
    "max_completion_tokens": Deviation(
        COMPLETION_TOKENS, None, (PARAMETERS, "sent as max_completion_tokens"), harmless=True
    ),
    "max_completion_tokens, said with status 200": Deviation(
        lambda body, request: (
            reply(failed(400) | {"error": unsupported("max_tokens")["error"] | {"code": 400}})
            if "max_tokens" in request
            else body
        ),
        None,
        (PARAMETERS, "sent as max_completion_tokens"),
        harmless=True,
    ),
    "no temperature": Deviation(NO_TEMPERATURE, None, (PARAMETERS, "temperature is not sent .Unsupported value")),
    "no seed": Deviation(NO_SEED, None, (PARAMETERS, "seed is not sent .body.seed")),
    "no seed, says Google": Deviation(
        refusing("seed", google_error('Invalid JSON payload received. Unknown name "seed": Cannot find field.')),
        None,
        (PARAMETERS, "seed is not sent"),
    ),
    "no response_format": Deviation(NO_SCHEMA, None, (PARAMETERS, "response_format is not sent")),
    "response_format of another type": Deviation(
        refusing("response_format", openai_error("'response_format.type' must be 'json_object' or 'text'")),
        None,
        (PARAMETERS, "response_format is not sent"),
    ),
    "at most 5 alternatives": Deviation(AT_MOST_5, None, (PARAMETERS, "at most 5 log-probabilities")),
    "at most 5 alternatives, by pydantic": Deviation(
        refusing(
            "top_logprobs", fastapi_error("top_logprobs", "Input should be less than or equal to 5"), 422, above=5
        ),
        None,
        ("top log-probabilities", "5 of 20"),
    ),
    "fewer alternatives, without a number": Deviation(
        refusing("top_logprobs", openai_error("top_logprobs is too large"), above=7), None, (PARAMETERS, "at most 5")
    ),
    "at least 16 tokens": Deviation(
        all_of(
            refusing(
                "max_tokens",
                openai_error(
                    "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 1 "
                    "instead.",
                    "max_output_tokens",
                    "integer_below_min_value",
                ),
                below=16,
            ),
            longer,
        ),
        None,
        (PARAMETERS, "at least 16 output tokens"),
        harmless=True,
    ),
    "no log-probabilities, forbidden": Deviation(
        refusing("logprobs", NO_LOGPROBS, 403), f"not allowed to request.*{SAMPLES}", (LOGPROBS, "not allowed to req")
    ),
    "no log-probabilities, unsupported": Deviation(
        refusing("logprobs", unsupported("logprobs")), f"not supported.*{SAMPLES}", (LOGPROBS, "not supported")
    ),
    "no log-probabilities, says Google": Deviation(
        refusing("logprobs", google_error("Logprobs is not enabled for models/gemini-2.5-pro")),
        f"not enabled.*{SAMPLES}",
        (LOGPROBS, "not enabled"),
    ),
    "a reasoning model of OpenAI's, with log-probabilities": Deviation(
        all_of(COMPLETION_TOKENS, NO_TEMPERATURE, NO_SEED, NO_SCHEMA, AT_MOST_5),
        None,
        (PARAMETERS, "max_completion_tokens.*at most 5.*temperature is not sent.*seed.*response_format"),
    ),
    "a refusal that names a parameter, but is about the key": Deviation(
        lambda body, request: reply(openai_error("Invalid key; see 'logprobs' in the manual: not allowed"), 401),
        "answered 401: Invalid key",
        (SERVER, "Invalid key"),
    ),
    # Thinking
    "a thought apart, then the answer": Deviation(before(*THOUGHT, shown="", apart="reasoning_content"), None, THINKS),
    "a thought apart under its new name": Deviation(before(*THOUGHT, shown="\n\n", apart="reasoning"), None, THINKS),
    "log-probabilities of the thought alone": Deviation(
        thought_alone, "not those of the answer.*enable_thinking: false", (LOGPROBS, "not those of the answer")
    ),
    "a thought in the text": Deviation(before(*THOUGHT), None, THINKS),
    "a thought that the template opened": Deviation(before(*THOUGHT[1:]), None, THINKS),
    "a thought in other marks": Deviation(before("[THINK]", "No", " red", "?", "[/THINK]"), None, THINKS),
    "a thought cut off, apart": Deviation(cut_off("reasoning"), THINKING, (SERVER, THINKING)),
    "a thought cut off, under its old name": Deviation(cut_off("reasoning_content"), THINKING, (SERVER, THINKING)),
    "a thought cut off in the text": Deviation(cut_off(opening="<think>"), THINKING, (SERVER, THINKING)),
    "no text": Deviation(message(content=None), "no text.*enable_thinking: false", (SERVER, "no text")),
    # Odd fields
    "no usage": Deviation(lambda body, request: body | {"usage": None}, None, (FORM, "usage is missing")),
    "fractional usage": Deviation(
        lambda body, request: body | {"usage": {"prompt_tokens": 700.5, "completion_tokens": None}},
        None,
        (FORM, "usage"),
    ),
    "content in parts": Deviation(
        lambda body, request: message(content=[{"type": "text", "text": body["choices"][0]["message"]["content"]}])(
            body, request
        ),
        None,
        (FORM, "content comes in parts"),
    ),
    "an object as finish_reason": Deviation(
        choice(finish_reason={"type": "stop", "matched": 2}), None, (FORM, "finish_reason is dict")
    ),
    "models by their names alone": Deviation(models={"data": ["vl"]}, doctor=(SERVER, "list of models can't be read")),
    "no data in the list of models": Deviation(
        models={"data": None, "detail": "x"}, doctor=(SERVER, "list of models can't be read")
    ),
    "no list of models": Deviation(models=(404, {}, b"no such page"), doctor=(SERVER, "list of models can't be read")),
    "a null among the models": Deviation(models={"data": [None, {"id": "vl"}, {"id": 7}]}),
    # Failures
    "an error in 200": Deviation(
        lambda body, request: failed(400), "an error .400.: the upstream gave up", (SERVER, "the upstream gave up")
    ),
    "an error in 200 that passes": Deviation(at_first(failed(503))),
    "an error in a choice": Deviation(
        lambda body, request: failed_choice("403"), "an error .403.: the upstream gave up", (SERVER, "the upstream")
    ),
    "an error in a choice that passes": Deviation(at_first(failed_choice(502))),
    "an error in a choice, spelled out": Deviation(at_first(failed_choice("rate_limit_exceeded"))),
    "FastAPI's detail": Deviation(
        lambda body, request: reply({"detail": [{"msg": "Field required"}]}, 422),
        "Field required",
        (SERVER, "Field req"),
    ),
    "a refusal": Deviation(
        message(content=None, refusal="I can't help with that."),
        "refused to answer: I can't help",
        (SERVER, "refused to answer"),
    ),
    "a content filter": Deviation(
        choice(finish_reason="content_filter"), "content filter stopped", (SERVER, "content filter stopped")
    ),
    # Texts
    "a newline first": Deviation(before("\n"), None, (FORM, "white space or empty")),
    "an empty token first": Deviation(before(""), None, (FORM, "white space or empty")),
    "JSON among braces": Deviation(braces, None, ("JSON schema", "by other text")),
}
