"""A dry run says where its tokens come from: measured by one question, a family's rule, or a rule of thumb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Answer, Run, Server


def counting(body: dict[str, Any]) -> Answer:
    """300 tokens a picture, and one for four characters."""
    pictures = str(body["messages"]).count("'type': 'image_url'")
    words = sum(len(part.get("text", "")) for message in body["messages"] for part in message["content"])
    message = {"role": "assistant", "content": "Yes"}
    usage = {"prompt_tokens": 300 * pictures + words // 4, "completion_tokens": 1}
    return 200, json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})


def dry(run: Run, photos: Path, server: Server | str, *more: str, model: str = "vl") -> tuple[dict[str, Any], str]:
    url = server if isinstance(server, str) else server.url
    line = ["rerank", "--query", "red", "--images", photos, "--strategy", "yes-no", "--lmm", url, "--model", model]
    result = run(*line, "--dry-run", "--json", *more)
    assert result.exit_code == 0, result.output
    (told,) = json.loads(result.stdout)["runs"]
    return told, result.stderr


def test_the_server_measures_one_picture(run: Run, photos: Path, server: Server) -> None:
    server.answer = counting
    told, said = dry(run, photos, server)
    assert len(server.bodies) == 1
    assert "309 for a picture of 1,024 x 768 pixels" in told["tokens_by"] and "measured" in told["tokens_by"]
    assert "measured" in said
    thumb, _ = dry(run, photos, server, "--no-probe")
    assert len(server.bodies) == 1
    fewer = (thumb["prompt_tokens"] - told["prompt_tokens"]) / told["calls"]
    assert fewer == pytest.approx(600 - 300, abs=1)  # the words are counted alike


def test_no_probe_asks_nothing_and_names_the_family_s_rule(run: Run, photos: Path, server: Server) -> None:
    told, said = dry(run, photos, server, "--no-probe", model="Qwen/Qwen3-VL-8B-Instruct")
    assert server.bodies == []
    assert told["tokens_by"] == "Qwen3-VL's rule, 768 for a picture of 1,024 x 768 pixels"
    assert "Qwen3-VL's rule" in said
    smaller, _ = dry(run, photos, server, "--no-probe", "--max-side", "512", model="Qwen/Qwen3-VL-8B-Instruct")
    assert "192 for a picture of 512 x 384 pixels" in smaller["tokens_by"]
    assert smaller["prompt_tokens"] < told["prompt_tokens"]


def test_an_unknown_family_has_the_rule_of_thumb_named_as_such(run: Run, photos: Path, server: Server) -> None:
    told, _ = dry(run, photos, server, "--no-probe")
    assert "a rule of thumb, 600 for a picture" in told["tokens_by"]


@pytest.mark.parametrize("answers", [False, True])
def test_a_server_that_can_not_measure_is_told_of(
    run: Run, photos: Path, server: Server, nobody: str, answers: bool
) -> None:
    server.answer = lambda body: (200, json.dumps({"choices": [{"message": {"role": "assistant", "content": "Yes"}}]}))
    told, said = dry(run, photos, server if answers else nobody)
    assert "The server did not measure a picture" in said
    assert ("does not count" in said) is answers
    assert "a rule of thumb" in told["tokens_by"]


def test_no_probe_goes_with_a_dry_run(run: Run, photos: Path) -> None:
    result = run("rerank", "--query", "red", "--images", photos, "--no-probe")
    assert result.exit_code == 2 and "--no-probe needs --dry-run" in result.stderr
