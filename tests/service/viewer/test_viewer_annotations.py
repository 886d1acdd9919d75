"""Marks: kept as lines, taken back, exported without formulas, and read by the audit."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.core.errors import ConfigError
from fieldscope.eval.runs.annotations import (
    LONGEST_NOTE,
    NAME,
    Annotation,
    Target,
    annotate,
    marked_truth,
    read_annotations,
)
from fieldscope.eval.runs.jsonlines import JsonLines
from fieldscope.service.viewer.runs.annotations import TAKE_BACK, as_csv, markable, marked, take
from fieldscope.service.viewer.runs.run import Run
from tests.service.conftest import Run as CommandLine
from tests.service.viewer.shelves import Made


def opened(made: Made, name: str = "agent") -> Run:
    run = made.shelf().run(name)
    assert run is not None
    return run


def first_answer(run: Run) -> tuple[str, str, str, str]:
    """Query, image, predicate, and what was said of it, of an answer to a part of the query."""
    for query_id in run.digests:
        result = run.result(query_id)
        for ranked in result.ranking:
            for row in markable(run, result, ranked.image_id):
                if row.predicate is not None and row.predicate.kind != "query":
                    return query_id, ranked.image_id, row.predicate.id, str(row.said)
    raise AssertionError("no answer")


marks = st.builds(
    Annotation,
    query_id=st.sampled_from("qr"),
    image_id=st.sampled_from("ab"),
    predicate=st.sampled_from([None, "p"]),
    mark=st.sampled_from([None, "right", "wrong"]),
    note=st.text(max_size=20),
)


@given(st.lists(marks))
def test_the_last_mark_of_a_target_counts(tmp_path_factory: pytest.TempPathFactory, made: list[Annotation]) -> None:
    folder = tmp_path_factory.mktemp("run")
    last: dict[Target, Annotation] = {}
    for each in made:
        annotate(folder, each)
        last[each.target] = each
    assert {each.target: each for each in read_annotations(folder)} == {
        target: each for target, each in last.items() if each.mark is not None
    }


def test_a_cut_off_and_a_damaged_line_cost_only_themselves(tmp_path: Path) -> None:
    first = Annotation(query_id="q", image_id="a", mark="right")
    annotate(tmp_path, first)
    with (tmp_path / NAME).open("a") as file:
        file.write('{"query_id": 1}\nno json\n{"query_id": "q", "image')
    assert read_annotations(tmp_path) == [first]
    second = Annotation(query_id="q", image_id="b", mark="wrong")
    annotate(tmp_path, second)
    assert read_annotations(tmp_path) == [first, second]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    other = JsonLines(tmp_path / NAME)
    with pytest.raises(ConfigError, match="another process"):
        annotate(tmp_path, Annotation(query_id="q", image_id="a", mark="right"))
    other.close()


@pytest.mark.parametrize(
    ("said", "mark", "holds"),
    [("holds", "right", True), ("holds", "wrong", False), ("fails", "right", False), ("fails", "wrong", True)],
)
def test_what_a_mark_says_of_the_image(said: str, mark: str, holds: bool) -> None:
    told = Annotation.model_validate({"query_id": "q", "image_id": "a", "predicate": "p", "said": said, "mark": mark})
    image = Annotation(query_id="q", image_id="a", mark="wrong")
    assert marked_truth([told, image]) == {Target("q", "a", "p"): holds}


def test_a_form_is_taken_and_taken_back(small: Made) -> None:
    run = opened(small)
    query_id, image_id, predicate, said = first_answer(run)
    take(run, query_id, image_id, {"predicate": predicate, "said": said, "mark": "wrong", "note": " no net \n"})
    take(run, query_id, image_id, {"mark": "right", "note": "clear"})
    rows = {row.name: row for row in markable(run, run.result(query_id), image_id)}
    on_answer, on_image = rows[predicate].mark, rows[""].mark
    assert on_answer is not None
    assert on_image is not None
    assert (on_answer.mark, on_answer.note, on_answer.said) == ("wrong", "no net", said)
    assert (on_image.mark, on_image.note, on_image.said, on_image.predicate) == ("right", "clear", None, None)
    assert [each.annotation.mark for each in marked(run)] == ["right", "wrong"]
    take(run, query_id, image_id, {"mark": TAKE_BACK})
    assert [each.annotation.predicate for each in marked(run)] == [predicate]
    assert len((run.folder / NAME).read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"predicate": "p-none", "mark": "right"}, "no such answer"),
        ({"mark": "perhaps"}, "right or wrong"),
        ({}, "right or wrong"),
        ({"said": "holds", "mark": "right"}, "has changed"),
        ({"mark": "right", "note": "x" * (LONGEST_NOTE + 1)}, "at most 4,000 characters"),
    ],
)
def test_a_form_that_is_none_of_the_page_changes_nothing(small: Made, form: dict[str, str], words: str) -> None:
    run = opened(small)
    query_id, image_id, *_ = first_answer(run)
    with pytest.raises(ConfigError, match=words):
        take(run, query_id, image_id, form)
    assert not (run.folder / NAME).exists()


def test_the_table_has_no_formulas(small: Made) -> None:
    run = opened(small)
    query_id, image_id, predicate, said = first_answer(run)
    note = '=HYPERLINK("http://x","y"), 2\nlines'
    take(run, query_id, image_id, {"predicate": predicate, "said": said, "mark": "right", "note": note})
    (row,) = csv.DictReader(io.StringIO(as_csv(run)))
    assert row["note"] == f"'{note}"
    assert (row["query_id"], row["image_id"], row["predicate"], row["mark"]) == (query_id, image_id, predicate, "right")
    assert row["query"] == run.digests[query_id].text
    assert row["question"].startswith("is there")
    assert row["said"] == said


def test_a_mark_about_what_is_gone_is_still_listed(small: Made) -> None:
    run = opened(small)
    annotate(run.folder, Annotation(query_id="gone", image_id="x.png", predicate="p-x", said="holds", mark="right"))
    (row,) = marked(run)
    assert (row.query_text, row.predicate, row.rank) == (None, None, None)
    assert as_csv(run).splitlines()[1].startswith("gone,,x.png,p-x,,,holds,right,,")


def test_the_audit_holds_verdicts_against_marks(small: Made, run: CommandLine) -> None:
    viewed = opened(small)

    def audited() -> dict[str, object]:
        shown = run("measure", "audit", viewed.folder, "--json")
        (told,) = json.loads(shown.stdout)["runs"]
        assert isinstance(told, dict)
        return told

    before = audited()
    assert before["marks"] == {
        "verdicts": 0, "verdicts_wrong": 0, "without_verdict": 0, "images": 0, "images_against_judgments": 0,
    }  # fmt: skip
    # An answer whose truth nobody knew: a part of the query, about an image that is not relevant.
    query_id, image_id, row = next(
        (query_id, ranked.image_id, row)
        for query_id in viewed.digests
        for ranked in viewed.result(query_id).ranking
        if ranked.image_id not in (viewed.relevant(query_id) or ())
        for row in markable(viewed, viewed.result(query_id), ranked.image_id)
        if row.predicate is not None and row.predicate.kind != "query" and row.said == "holds"
    )
    take(viewed, query_id, image_id, {"predicate": row.name, "said": "holds", "mark": "wrong"})
    take(viewed, query_id, image_id, {"mark": "right"})
    annotate(viewed.folder, Annotation(query_id="gone", image_id="x", predicate="p", said="holds", mark="right"))
    after = audited()
    assert after["marks"] == {
        "verdicts": 1, "verdicts_wrong": 1, "without_verdict": 1, "images": 1, "images_against_judgments": 1,
    }  # fmt: skip
    assert row.predicate is not None

    def kind(told: dict[str, object]) -> dict[str, int | None]:
        kinds = told["kinds"]
        assert isinstance(kinds, list)
        return next(each for each in kinds if row.predicate and each["kind"] == row.predicate.kind)

    old, new = kind(before), kind(after)
    assert (old["passed"], new["passed"]) == (None, 1)
    assert (old["marked"], new["marked"], new["marked_wrong"]) == (0, 1, 1)
    assert old["untold"] is not None
    assert new["untold"] == old["untold"] - 1
    shown = run("measure", "audit", viewed.folder).stdout
    assert "verdicts marked by people: 1, 1 of them wrong; the marks count" in shown
    assert "marks on verdicts that this run no longer has: 1" in shown
    assert "images marked by people: 1, 1 of them against the judgments" in shown
