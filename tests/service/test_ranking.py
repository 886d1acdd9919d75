"""A ranking with several verdicts an image: for people, programs and spreadsheets."""

from __future__ import annotations

import csv
import io
import json

from rich.console import Console

from fieldscope.agent.types import NothingMatches
from fieldscope.retrieval.collection import FilesCollection
from fieldscope.service.cli.tables.ranking import ranking_table
from fieldscope.service.workflows.ranking import COLUMNS, Ranking
from tests.agent.traced import agentic, single


def ranking(result: object) -> Ranking:
    return Ranking(result, FilesCollection({}))  # type: ignore[arg-type]


def shown(made: Ranking) -> dict[str, str]:
    console = Console(file=io.StringIO(), width=120)
    console.print(ranking_table(made))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    return {word: line for line in lines for word in line.split() if word.endswith(".png")}


def test_the_table_names_what_counts_most_against_an_image() -> None:
    lines = shown(ranking(agentic()))
    assert "0.02 is the crab red?" in lines["blue.png"]
    assert "0.96 is there a net?" in lines["fine.png"]
    assert lines["net.png"].split()[5:7] == ["1", "0.90"]
    assert "↓2" in lines["blue.png"]


def test_of_a_single_question_the_answer_is_told() -> None:
    lines = shown(ranking(single()))
    assert "Yes" in lines["a.png"]
    assert "unknown: no server" in lines["b.png"]
    assert "not asked" in lines["c.png"]
    assert "is it two crabs?" not in lines["a.png"]


def test_without_any_question_there_is_the_prior_only() -> None:
    bare = single().model_copy(update={"predicates": (), "verdicts": ()})
    assert shown(ranking(bare))["a.png"].split() == ["1", "0.500", "a.png"]


def test_programs_get_every_verdict_the_reason_and_the_interval() -> None:
    payload = json.loads(json.dumps(ranking(agentic()).payload(top=2)))
    first, second = payload["ranking"]
    assert {name: v["p_expected"] for name, v in first["verdicts"].items()} == {"p1": 0.97, "p2": 0.96}
    assert (first["weakest"], first["p_expected"], first["p_yes"]) == ("is there a net?", 0.96, 1 - 0.96)
    assert (first["rank_low"], first["rank_high"], first["reason"]) == (1, 2, "it is red.")
    assert second["reason"] == "no, it is blue."
    assert [p["id"] for p in payload["predicates"]] == ["p1", "p2"]
    assert payload["ended"] == "compare"
    # 1 synthesis, 8 verdicts, 5 comparisons, 2 reasons.
    assert (payload["cost"]["calls"], payload["cost"]["cache_hits"]) == (16, 4)
    assert (payload["cost"]["prompt_tokens"], payload["cost"]["completion_tokens"]) == (550, 97)


def test_what_could_not_be_judged_is_counted_and_never_a_zero() -> None:
    last = ranking(agentic()).payload()["ranking"][-1]
    assert (last["unknown"], last["verdicts"]["p2"]["p_expected"]) == (1, None)
    unknown = ranking(single()).payload()["ranking"][1]
    assert (unknown["p_yes"], unknown["p_expected"], unknown["answer"]) == (None, None, "unknown: no server")


def test_a_spreadsheet_keeps_its_first_columns() -> None:
    assert COLUMNS[:10] == (
        *("rank", "image", "path", "p_match", "p_yes", "answer", "prior", "prior_rank", "score", "query"),
    )
    rows = list(csv.DictReader(io.StringIO(ranking(agentic()).csv())))
    assert tuple(rows[0]) == COLUMNS
    blue = rows[2]
    assert (blue["weakest"], blue["p_expected"], blue["unknown"], blue["reason"]) == (
        "is the crab red?",
        "0.02",
        "0",
        "",
    )
    assert (blue["rank_low"], blue["rank_high"]) == ("2", "4")


def test_a_spreadsheet_says_that_nothing_matches() -> None:
    nothing = NothingMatches(statistic=0.01, threshold=0.3, judged=4)
    for said, word in ((None, "False"), (nothing, "True")):
        rows = csv.DictReader(io.StringIO(ranking(agentic().model_copy(update={"nothing": said})).csv()))
        assert {row["nothing_matches"] for row in rows} == {word}
