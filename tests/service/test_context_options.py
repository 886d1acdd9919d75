"""A model whose context is too short is found before the run where its server says so, else at the first refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import CRABS, Run, Server, World, completion, redness
from tests.service.test_evaluate import parquet

TOO_LONG = json.dumps({"error": {"message": "This model's maximum context length is 64 tokens."}})


@pytest.fixture
def quiz(photos: Path, tmp_path: Path) -> Path:
    """Two photographs in INQUIRE-Rerank's shape, and one query."""
    images = {name: (photos / name).read_bytes() for name in ("blue.png", "red.png")}
    return parquet(tmp_path / "quiz", images, {"a red crab": ["red.png"]})


def told(context: object) -> tuple[int, str]:
    return 200, json.dumps({"data": [{"id": "other", "max_model_len": 1}, {"id": "vl", "max_model_len": context}]})


@pytest.mark.parametrize("command", ["eval", "rerank", "search"])
def test_a_context_that_can_t_do_is_refused_before_any_question(
    run: Run,
    world: World,
    server: Server,
    photos: Path,
    quiz: Path,
    command: str,
) -> None:
    server.models = told(64)
    lines: dict[str, list[object]] = {
        "eval": ["eval", quiz],
        "rerank": ["rerank", "--query", "red", "--images", photos],
        "search": ["search", "--index", "index", "--query", CRABS, "--rerank"],
    }
    if command == "search":
        assert run("index", world.pictures, "-o", "index").exit_code == 0
    result = run(*lines[command], "--strategy", "agent", "--lmm", server.url, "--model", "vl")
    assert result.exit_code == 1
    assert "the model's context has 64 tokens, and the stage 'synthesize' of agent needs more" in result.stderr
    assert "--max-model-len" in result.stderr
    assert result.stderr.count("\n") == 1
    assert server.bodies == []


@pytest.mark.parametrize("context", [4096, None, "much", -1, True])
def test_a_context_that_may_do_and_one_that_is_not_told(
    run: Run, server: Server, photos: Path, context: object
) -> None:
    server.models = told(context)
    line = ["rerank", "--query", "red", "--images", photos / "red.png", "--strategy", "yes-no", "--lmm", server.url]
    assert run(*line, "--model", "vl").exit_code == 0


def test_the_first_refusal_ends_the_run_with_one_sentence(
    run: Run,
    server: Server,
    quiz: Path,
) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, str]:
        images = sum(part["type"] == "image_url" for part in body["messages"][-1]["content"] if isinstance(part, dict))
        if images > 1:
            return 400, TOO_LONG
        return redness(body) if images else (200, completion("{}"))

    server.answer = answer
    line = ["eval", quiz, "--strategy", "pairwise", "--lmm", server.url, "--model", "vl", "--concurrency", 1]
    result = run(*line, "--out", quiz / "runs")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {server.url}/v1 answered 400: This model's maximum context length is 64")
    assert result.stderr.count("\n") == 1
    refused = [body for body in server.bodies if answer(body)[0] == 400]
    assert 0 < len(refused) <= 4  # of each query that is at work
