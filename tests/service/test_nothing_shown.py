"""That nothing matches, as a terminal, a notebook, a Python program and JSON have it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console, Group

from fieldscope.agent.trace_diff import diff
from fieldscope.agent.types import NothingMatches, Predicate, RankedCandidate, RerankResult, TraceEvent, Verdict
from fieldscope.retrieval.collection import FilesCollection
from fieldscope.service.cli.tables.nothing import nothing_lines
from fieldscope.service.cli.tables.ranking import ranking_table
from fieldscope.service.cli.tables.trace import render_trace
from fieldscope.service.cli.tables.trace_diff import render_diff
from fieldscope.service.workflows.ranking import Ranking

FOX, SNOW = "is there a fox?", "was this photo taken in the snow?"
SENTENCES = (
    "No image seems to match (best P(match) 0.07, threshold 0.30).",
    f"No image shows: in the snow ({SNOW}).",
)
RELATIVE = "P(match) is relative to this list of images"


def result(**known: Any) -> RerankResult:
    """A fox in the snow was looked for; one image shows a fox, and none shows snow."""
    answers = {"a.png": (0.9, 0.1), "b.png": (0.2, 0.1)}
    return RerankResult(
        query_id="q",
        query_text="a fox in the snow",
        strategy="agent",
        ranking=tuple(
            RankedCandidate(image_id=image, rank=n, score=-n, prior=0.0, prior_rank=n, p_match=0.07 / n)
            for n, image in enumerate(answers, start=1)
        ),
        predicates=(
            Predicate(id="fox", question=FOX, kind="subject", words="a fox"),
            Predicate(id="snow", question=SNOW, kind="habitat", words="in the snow"),
        ),
        verdicts=tuple(
            Verdict(predicate=name, image_id=image, state="answered", p_yes=p, p_expected=p)
            for image, own in answers.items()
            for name, p in zip(("fox", "snow"), own, strict=True)
        ),
        trace=(TraceEvent(kind="ranked", at=1.0),),
        **known,
    )


NOTHING = NothingMatches(statistic=0.07, threshold=0.3, judged=2, failing=("snow",), nearest=("a.png",))


@pytest.fixture
def ranking() -> Ranking:
    return Ranking(result(nothing=NOTHING), FilesCollection({}))


def printed(*things: Any) -> str:
    console = Console(width=200, record=True)
    console.print(Group(*things))
    return console.export_text()


def test_a_terminal_has_the_sentences_and_the_nearest_images(ranking: Ranking) -> None:
    text = printed(*nothing_lines(ranking.nothing))
    assert all(sentence in text for sentence in SENTENCES)
    assert "Nearest by parts that hold:" in text
    (row,) = (line for line in text.splitlines() if "a.png" in line)
    assert "1 of 2" in row and SNOW in row and FOX not in row
    assert printed(*nothing_lines(None)).strip() == ""


def test_a_python_program_has_it_as_values(ranking: Ranking) -> None:
    assert ranking.nothing is not None
    assert ranking.nothing.sentences == SENTENCES
    assert "no image seems to match" in repr(ranking)
    assert Ranking(result(), FilesCollection({})).nothing is None


def test_a_notebook_says_it(ranking: Ranking) -> None:
    html = ranking._repr_html_()
    assert "No image seems to match" in html and "in the snow" in html
    assert "No image seems" not in Ranking(result(), FilesCollection({}))._repr_html_()


def test_json_has_it(ranking: Ranking) -> None:
    told = json.loads(json.dumps(ranking.payload()))["nothing"]
    assert told["sentences"] == list(SENTENCES)
    assert told["failing"] == [
        {"predicate": "snow", "question": SNOW, "words": "in the snow", "expected": "yes", "asked": 2}
    ]
    assert told["nearest"] == [
        {"image": "a.png", "rank": 1, "p_match": 0.07, "holds": [FOX], "fails": [SNOW], "open": []}
    ]
    assert Ranking(result(), FilesCollection({})).payload()["nothing"] is None


def test_a_trace_says_it_and_so_do_two_side_by_side(ranking: Ranking) -> None:
    trace = printed(render_trace(ranking.result))
    assert all(sentence in trace for sentence in SENTENCES) and "a.png (1 of 2 parts)" in trace
    other = diff(result(), ranking.result)
    assert (other.a.nothing, other.b.nothing) == (None, SENTENCES[0])
    assert SENTENCES[0] in printed(render_diff(other))


def test_a_relative_probability_is_said_to_be_once() -> None:
    relative = Ranking(result(relative=True), FilesCollection({}))
    assert relative.relative and relative.payload()["relative"] is True
    for text in (printed(ranking_table(relative)), relative._repr_html_(), printed(render_trace(relative.result))):
        assert text.count(RELATIVE) == 1
    plain = Ranking(result(), FilesCollection({}))
    assert RELATIVE not in printed(ranking_table(plain)) + plain._repr_html_() + printed(render_trace(plain.result))
