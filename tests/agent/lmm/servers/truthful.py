"""A server that sees the doctor's pictures and answers from a truthful distribution over a vocabulary."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.agent.lmm.conftest import Reply
from tests.service.test_doctor import Fake, split

Body = dict[str, Any]
"""The JSON of a chat completion, or of a request for one."""

Change = Callable[[Body, Body], Body | Reply]
"""What a server does to a truthful answer (first) to a request (second): another body, or another reply."""

MODEL = "vl"
JSON_ANSWER = '{"answers": ["yes", "yes", "yes"]}'
P_MATCH = {
    "red circle": 0.97, "yellow circle": 0.85, "blue square": 0.6, "green triangle": 0.3, "two dots": 0.12,
    "three dots": 0.04,
}  # fmt: skip
"""P(yes) of each picture for a question about the whole query, whatever its words."""

_OTHERS = [a + b + c for a in "kmprs" for b in ("ar", "el", "im", "og", "un", "oo") for c in "bdgklmprtz"]
_VOCABULARY = ["Yes", " Yes", "yes", "No", " No", "no", *"abcd", "The", "It", "</s>", *_OTHERS]
_SPELLINGS = (0.0, -2.0, -4.0)  # log-odds of a word's spellings
_SAID = 9.0  # logits of what the model has a mind to say; others have about 0


class Truthful:
    """Answers chat completions. `change` is what this server does to its answers, `models` its list or reply."""

    def __init__(self, change: Change | None = None, models: Any = None) -> None:
        self._change = change or (lambda body, request: body)
        self._models = {"data": [{"id": MODEL}]} if models is None else models
        self._eyes = Fake()

    def __call__(self, number: int, request: Body) -> Reply:
        if "path" in request:
            return self._models if isinstance(self._models, tuple) else reply(self._models)
        changed = self._change(self.answer(request), request)
        return changed if isinstance(changed, tuple) else reply(changed)

    def answer(self, request: Body) -> Body:
        """The truth, as vLLM would write it."""
        text, urls = split(request)
        seen = [self._eyes.look(url) for url in urls]
        if "response_format" in request:
            return json_answer(request.get("top_logprobs", 0))
        if len(seen) > 1:
            logits = dict.fromkeys("abcd", _SAID - 4.0)
            logits["abcd"[next((place for place, thing in enumerate(seen) if thing in text), 0)]] = _SAID
        else:
            whole = "does this image match" in text
            p = P_MATCH.get(seen[0], 0.02) if whole and seen else self._eyes.p_yes(text, seen)
            odds = math.log(p / (1 - p)) / 2
            logits = {
                spelling: _SAID + side + less
                for side, word in ((odds, ("Yes", " Yes", "yes")), (-odds, ("No", " No", "no")))
                for spelling, less in zip(word, _SPELLINGS, strict=True)
            }
        top = alternatives(logits, f"{text} {seen}")
        return body_of([(top[0][0], top[: request.get("top_logprobs", 0)])])


def json_answer(most: int) -> Body:
    """The JSON, each answer a token of its own whose alternatives are those of an answer in words."""
    tokens = re.findall("yes|[^y]+", JSON_ANSWER)
    logits = [{"yes": _SAID, "no": _SAID - 3.0} if token == "yes" else {token: 20.0} for token in tokens]
    return body_of([(t, alternatives(each, t)[:most]) for t, each in zip(tokens, logits, strict=True)])


def alternatives(logits: dict[str, float], seed: str) -> list[tuple[str, float]]:
    """The whole vocabulary with its log-probabilities, the most probable first: random logits but for those given."""
    chance = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8]))
    tokens = list(dict.fromkeys([*_VOCABULARY, *logits]))
    drawn = chance.normal(0.0, 2.0, len(tokens))
    values = np.array([logits.get(token, value) for token, value in zip(tokens, drawn, strict=True)])
    values -= np.logaddexp.reduce(values)
    return sorted(zip(tokens, values.tolist(), strict=True), key=lambda each: -each[1])


def body_of(tokens: list[tuple[str, list[tuple[str, float]]]], text: str | None = None) -> Body:
    """A completion whose text is its tokens, each with its alternatives, the first of which was written."""
    content = [
        {
            "token": token,
            "logprob": top[0][1] if top else 0.0,
            "top_logprobs": [{"token": each, "logprob": value} for each, value in top],
        }
        for token, top in tokens
    ]
    message = {"role": "assistant", "content": "".join(token for token, _ in tokens) if text is None else text}
    logprobs = {"content": content} if any(top for _, top in tokens) else None
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}],
        "usage": {
            "prompt_tokens": 700,
            "completion_tokens": len(tokens),
            "prompt_tokens_details": {"cached_tokens": 640},
        },
    }


def reply(body: Any, status: int = 200) -> Reply:
    return status, {}, json.dumps(body).encode()
