"""A benchmark of any size without pictures, and a model that answers at once: what is left is the agent's own time."""

from __future__ import annotations

import math
import random
from hashlib import sha256

from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, TokenLogprob, Tokens
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.runs.replay import RecordedImages
from fieldscope.eval.types import Benchmark

_OTHERS = (" yes", " no", "YES", "NO", "True", "False", *(f"word{n}" for n in range(12)))


def answer(request: LMMRequest) -> LMMResponse:
    """Twenty alternatives, as a server gives them; which are likely depends on image and question alone."""
    drawn = sha256(f"{[part.sha256 for part in request.images]}{request.text}".encode()).hexdigest()
    share = int(drawn, 16) % 997 / 1000 + 0.001
    spoken = {"Yes": math.log(0.9 * share), "No": math.log(0.9 * (1 - share))}
    spoken |= {word: -6.0 - n for n, word in enumerate(_OTHERS)}
    ordered = sorted(spoken.items(), key=lambda token: -token[1])
    top = tuple(TokenLogprob(token=token, logprob=value) for token, value in ordered)
    return LMMResponse(text=top[0].token, answer_logprobs=top, usage=Tokens(prompt_tokens=100, completion_tokens=1))


def made_benchmark(queries: int, candidates: int, collection: int = 2000) -> Benchmark:
    """Queries with candidates drawn from a collection of images, of which only the hashes are known."""
    chance = random.Random(0)
    ids = [str(number) for number in range(max(collection, candidates))]
    asked = tuple(Query(id=f"q{n:03}", text=f"a red animal, number {n}") for n in range(queries))
    given = {q.id: tuple(Candidate(i, chance.random()) for i in chance.sample(ids, candidates)) for q in asked}
    judged = {query: {c.image_id: int(n % 9 == 0) for n, c in enumerate(found)} for query, found in given.items()}
    images = RecordedImages({image_id: sha256(image_id.encode()).hexdigest() for image_id in ids})
    return Benchmark("synthetic", "validation", asked, judged, images, given)
