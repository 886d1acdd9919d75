"""The real server: what it shows, and runs over FieldNotes that end with the command line's rankings."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import RerankResult
from tests.studio.server import LANGGRAPH, ROOT, Studio, documented, environment

pytestmark = [
    pytest.mark.studio,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not LANGGRAPH.exists(), reason="Studio's environment is another one: make test-studio"),
]

FIELDSCOPE = Path(os.environ.get("FIELDSCOPE", ROOT / ".venv" / "bin" / "fieldscope"))
QUERY = "two red crabs on a beach in the rain"
YES_NO: dict[str, Any] = {"strategy": "yes-no", "max_calls": 20}
AGENT: dict[str, Any] = {"strategy": "agent", "max_calls": 1000}  # more than it needs


def post(studio: Studio, path: str, **body: Any) -> dict[str, Any]:
    reply = studio.http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def get(studio: Studio, path: str, **query: str) -> dict[str, Any]:
    reply = studio.http.get(path, params=query)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def run(studio: Studio, text: str = QUERY, **context: Any) -> RerankResult:
    """One run without a thread, to its end."""
    answer = post(studio, "/runs/wait", assistant_id="rerank", input={"text": text}, context=context)
    assert "__error__" not in answer, answer
    return RerankResult.model_validate(answer["result"])


def failure(studio: Studio, text: str = QUERY, **context: Any) -> str:
    """The error that ends a run."""
    answer = post(studio, "/runs/wait", assistant_id="rerank", input={"text": text}, context=context)
    return str(answer["__error__"]["message"])


def same_as_command_line(studio: Studio, result: RerankResult, context: dict[str, Any]) -> None:
    (index,) = (studio.cache / "fieldnotes").glob("index-test-*")
    options = ["--strategy", context["strategy"], "--max-calls", str(context["max_calls"])]
    done = subprocess.run(
        [str(FIELDSCOPE), "search", "--index", str(index), "--query", QUERY, "--rerank", "--json", *options],
        env=environment(studio.cache),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = json.loads(done.stdout)
    assert [ranked.image_id for ranked in result.ranking] == [entry["image"] for entry in expected["ranking"]]
    for ranked, entry in zip(result.ranking, expected["ranking"], strict=True):
        assert ranked.score == pytest.approx(entry["score"], abs=1e-4)
        assert ranked.p_match == pytest.approx(entry["p_match"], abs=1e-4)
        assert ranked.prior == pytest.approx(entry["prior"], abs=1e-4)
    reasons = {entry["image"]: entry["reason"] for entry in expected["ranking"] if entry["reason"]}
    assert {reason.image_id: reason.text for reason in result.reasons if reason.text} == reasons
    assert len(result.asked) == expected["cost"]["calls"]
    assert result.ended == expected["ended"]


def test_the_documented_command_needs_no_leave_to_block() -> None:
    _, words = documented()
    assert words[0] == str(LANGGRAPH.relative_to(ROOT)) and "--allow-blocking" not in words


def test_the_forms_are_served(studio: Studio) -> None:
    (assistant,) = studio.http.post("/assistants/search", json={}).json()
    schemas = get(studio, f"/assistants/{assistant['assistant_id']}/schemas")
    assert set(schemas["context_schema"]["properties"]) == {"strategy", "max_calls", "max_tokens", "deadline"}
    assert schemas["context_schema"]["properties"]["strategy"]["default"] == "agent"
    assert schemas["input_schema"]["required"] == ["text"]
    assert set(schemas["input_schema"]["properties"]) == {"text", "id"}
    assert "result" in schemas["output_schema"]["properties"]


def test_the_stages_are_drawn(studio: Studio) -> None:
    drawing = get(studio, "/assistants/rerank/graph", xray="true")
    stages = {node["id"].removeprefix("rerank:") for node in drawing["nodes"]}
    assert stages >= {"synthesize", "retrieve", "decompose", "plan", "verify", "assess", "compare", "rank", "explain"}


def test_a_run_ends_with_the_command_lines_ranking(studio: Studio) -> None:
    result = run(studio, **YES_NO)
    assert len(result.ranking) == load_strategy("yes-no", prompts="fieldnotes").retrieve.top_k
    assert len(result.asked) == YES_NO["max_calls"] and result.ended == "verify"
    assert [event.kind for event in result.trace][:2] == ["started", "retrieved"]
    assert result.trace[-1].kind == "ranked"
    same_as_command_line(studio, result, YES_NO)


def test_two_runs_in_a_row_have_budgets_of_their_own(studio: Studio) -> None:
    first, second = run(studio, **YES_NO), run(studio, **YES_NO)
    assert len(first.asked) == len(second.asked) == YES_NO["max_calls"]
    assert first.ranking == second.ranking


def test_the_agent_runs_in_a_thread_stage_by_stage(studio: Studio) -> None:
    thread = post(studio, "/threads")["thread_id"]
    for context in (AGENT | {"max_calls": 60}, AGENT):  # the second run starts from nothing, too
        stages: list[str] = []
        body = {"assistant_id": "rerank", "input": {"text": QUERY, "id": "crabs"}, "context": context}
        streaming = {"stream_mode": ["updates"], "stream_subgraphs": True}
        with studio.http.stream("POST", f"/threads/{thread}/runs/stream", json=body | streaming) as events:
            for line in events.iter_lines():
                if line.startswith("data: ") and "run_id" not in (data := json.loads(line[6:])):
                    stages += data
        assert stages[:3] == ["synthesize", "retrieve", "decompose"]
        assert stages[-3:] == ["rank", "explain", "rerank"]
        result = RerankResult.model_validate(get(studio, f"/threads/{thread}/state")["values"]["result"])
        assert result.query_id == "crabs" and result.strategy == "agent"
        assert stages.count("verify") == sum(event.kind == "verified" for event in result.trace) > 0
        assert len(result.asked) <= context["max_calls"]
        assert (result.ended is None) == (context is AGENT)
    assert len(result.ranking) >= load_strategy("agent", prompts="fieldnotes").retrieve.top_k
    assert all(reason.text for reason in result.reasons) and result.reasons
    same_as_command_line(studio, result, AGENT)


def test_what_can_not_be_run_says_why(studio: Studio) -> None:
    assert failure(studio, strategy="yesno").startswith("unknown strategy 'yesno' (did you mean 'yes-no'?); known: ")
    assert failure(studio, max_call=5) == "context: unknown key 'max_call' (did you mean 'max_calls'?)"
    assert "has never seen this word: 'unicorn'" in failure(studio, "a unicorn on a beach")


def test_nothing_blocked_and_nothing_left_this_machine(studio: Studio) -> None:
    run(studio, **YES_NO)
    log = studio.log.read_text(encoding="utf-8", errors="replace")
    assert "BlockingError" not in log and "Deserializing unregistered type" not in log
    assert studio.elsewhere == []
