"""A context too small for a strategy's pictures is found before the run, by what the server reads of one of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.service.doctor.context import check_context
from fieldscope.service.wiring.settings import Settings
from tests.service.conftest import Answer, Run, Server
from tests.service.test_evaluate import parquet

EACH = 700


@pytest.fixture
def quiz(photos: Path, tmp_path: Path) -> Path:
    """Two photographs in INQUIRE-Rerank's shape, and one query."""
    images = {name: (photos / name).read_bytes() for name in ("blue.png", "red.png")}
    return parquet(tmp_path / "quiz", images, {"a red crab": ["red.png"]})


def counting(server: Server, context: int, limit: int | None = None) -> None:
    """A server with a context, that counts 700 tokens a picture, and refuses more than `limit` pictures' worth."""
    server.models = 200, json.dumps({"data": [{"id": "vl", "max_model_len": context}]})

    def answer(body: dict[str, Any]) -> Answer:
        pictures = str(body["messages"]).count("'type': 'image_url'")
        if limit is not None and pictures > limit:
            return 400, json.dumps({"error": {"message": f"This model's maximum context length is {context} tokens."}})
        logprobs = {"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": [
            {"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -3.0}]}]}  # fmt: skip
        message = {"role": "assistant", "content": "Yes"}
        choice = {"message": message, "finish_reason": "stop", "logprobs": logprobs if "logprobs" in body else None}
        return 200, json.dumps(
            {"choices": [choice], "usage": {"prompt_tokens": EACH * pictures, "completion_tokens": 1}}
        )

    server.answer = answer


def pairwise(run: Run, server: Server, photos: Path, quiz: Path, command: str) -> Any:
    lines: dict[str, list[object]] = {
        "eval": ["eval", quiz, "--out", quiz / "runs"],
        "rerank": ["rerank", "--query", "red", "--images", photos],
    }
    return run(*lines[command], "--strategy", "pairwise", "--lmm", server.url, "--model", "vl")


@pytest.mark.parametrize("command", ["eval", "rerank"])
def test_two_pictures_that_the_context_has_no_room_for(
    run: Run,
    server: Server,
    photos: Path,
    quiz: Path,
    command: str,
) -> None:
    counting(server, 1000)
    result = pairwise(run, server, photos, quiz, command)
    assert result.exit_code == 1
    assert "the model's context has 1,000 tokens, and the stage 'compare' of pairwise needs more" in result.stderr
    assert "2 images among it" in result.stderr
    assert len(server.bodies) == 1


def test_the_server_s_own_words(run: Run, server: Server, photos: Path, quiz: Path) -> None:
    counting(server, 1000, limit=1)
    result = pairwise(run, server, photos, quiz, "eval")
    assert result.exit_code == 1
    assert "the stage 'compare' of pairwise shows 2 images at once, and vl can't read so many" in result.stderr
    assert "maximum context length is 1000" in result.stderr and len(server.bodies) == 1


def test_a_large_context_is_not_asked_about(run: Run, server: Server, photos: Path, quiz: Path) -> None:
    counting(server, 100_000)
    pairwise(run, server, photos, quiz, "eval")
    assert not any("is this a photograph" in str(body) for body in server.bodies)


@pytest.mark.parametrize(
    ("context", "limit", "state", "words"),
    [
        (1000, None, "fail", "the stage 'compare' of pairwise needs more"),
        (1000, 1, "fail", "vl can't read 2 images of 1,024 x 768 pixels .compare.: .*maximum context length"),
        (100_000, None, "ok", "vl reads 1,400 tokens of 2 images of 1,024 x 768 pixels .compare., of 100,000"),
    ],
)
async def test_the_doctor_shows_as_many_pictures_as_the_strategy(
    server: Server, context: int, limit: int | None, state: str, words: str
) -> None:
    counting(server, context, limit)
    (finding,), calls = await check_context(Settings(lmm_url=server.url, model="vl"), load_strategy("pairwise"))
    assert finding.name == "context" and finding.state == state
    assert re.search(words, finding.seen), finding.seen
    assert calls == len(server.bodies) == 1


async def test_the_bundled_lmm_has_no_context_to_examine() -> None:
    assert await check_context(Settings(), load_strategy("pairwise")) == ([], 0)
