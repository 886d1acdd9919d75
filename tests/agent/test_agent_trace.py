"""Traces: written and read back without loss, and shown without believing what is in them."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from agent.trace import render_trace, result_from_json, result_to_json
from agent.types import Predicate, RankedCandidate, RerankResult, TraceEvent, Verdict
from core.errors import ConfigError

finite = st.floats(allow_nan=False, allow_infinity=False)


def a_result(
    text: str = "two crabs", answer: str = "Yes", prior: float = 0.5, error: str = "no server"
) -> RerankResult:
    return RerankResult(
        query_id="q1",
        query_text=text,
        strategy="yes-no",
        ranking=(
            RankedCandidate(image_id="a.png", rank=1, score=0.9, prior=prior, prior_rank=2, p_match=0.9),
            RankedCandidate(image_id="b.png", rank=2, score=0.4, prior=0.7, prior_rank=1),
            RankedCandidate(image_id="c.png", rank=3, score=0.1, prior=0.1, prior_rank=3),
        ),
        predicates=(Predicate(id="query", question=f"is it {text}?", words=text),),
        verdicts=(
            Verdict(
                predicate="query",
                image_id="a.png",
                state="answered",
                p_yes=0.9,
                p_expected=0.9,
                answer=answer,
                request_key="f" * 64,
                prompt_tokens=40,
                completion_tokens=1,
                latency=0.125,
            ),
            Verdict(predicate="query", image_id="b.png", state="unknown", error=error),
            Verdict(predicate="query", image_id="c.png", state="not_asked"),
        ),
        trace=(
            TraceEvent(kind="started", at=0.0, data={"model": "e" * 64, "prompts": {"match_yes_no": "d" * 64}}),
            TraceEvent(kind="verified", at=0.2, data={"image_id": "a.png", "state": "answered"}),
            TraceEvent(kind="verified", at=0.3, data={"image_id": "b.png", "state": "unknown"}),
            TraceEvent(kind="ranked", at=0.4, data={"answered": 1}),
        ),
        flags=("1 of 2 verdicts are unknown",),
    )


def shown(renderable: RenderableType, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@given(st.text(), st.text(), finite)
def test_a_result_survives_its_line(text: str, answer: str, prior: float) -> None:
    result = a_result(text, answer, prior)
    line = result_to_json(result)
    assert "\n" not in line
    assert result_from_json(line) == result


def test_the_smallest_step_between_scores_survives() -> None:
    result = a_result(prior=math.nextafter(0.1 + 0.2, 1.0))
    assert result_from_json(result_to_json(result)).ranking[0].prior == math.nextafter(0.1 + 0.2, 1.0)


def test_a_cut_off_line_and_a_foreign_one_are_errors_in_one_line() -> None:
    line = result_to_json(a_result())
    for bad in (line[:-20], "", "[]", line.replace('"flags"', '"flgs"')):
        with pytest.raises(ConfigError, match="not a rerank result of this version") as caught:
            result_from_json(bad)
        assert "\n" not in str(caught.value)


def test_the_table_tells_ranks_moves_answers_and_failures() -> None:
    text = shown(render_trace(a_result()))
    row = {line.split()[6]: line for line in text.splitlines() if ".png" in line}
    assert "↑1" in row["a.png"]
    assert "0.9000" in row["a.png"]
    assert "Yes" in row["a.png"]
    assert "↓1" in row["b.png"]
    assert "unknown: no server" in row["b.png"]
    assert "not asked" in row["c.png"]
    assert "1 answered (0 from the cache), 1 unknown, 1 not asked; 41 tokens" in text
    assert "1 of 2 verdicts are unknown" in text
    assert "is it two crabs?" in text
    assert "1 answered, 1 unknown" in text
    assert "e" * 12 in text
    assert "e" * 13 not in text


def test_one_image_tells_its_whole_call() -> None:
    text = shown(render_trace(a_result(), "a.png"))
    for told in ("1 of 3; the prior had it at 2", "is it two crabs?", "Yes", "0.9000", "40 read, 1 written", "f" * 64):
        assert told in text
    assert "b.png" not in text
    assert "unknown: no server" in shown(render_trace(a_result(), "b.png"))


def test_an_image_that_is_not_ranked_is_an_error_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'a.jpg' \(did you mean 'a.png'\?\)"):
        render_trace(a_result(), "a.jpg")


def test_markup_and_control_characters_are_shown_and_not_obeyed() -> None:
    evil = "[bold red]x[/bold red] \x1b[2Jgone \u202eflipped \rback"
    for image_id in (None, "a.png", "b.png"):
        text = shown(render_trace(a_result(text=evil, answer=evil, error=evil), image_id), width=400)
        assert "[bold red]x[/bold red]" in text
        assert "\\x1b[2Jgone" in text
        assert not {"\x1b", "\u202e", "\r"} & set(text)
