from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldscope.core.types import Run
from fieldscope.eval.runs.trec import escape, qrels_lines, run_lines


def scores_of(scores: list[float]) -> list[float]:
    ranking = tuple((f"i{rank}", score) for rank, score in enumerate(scores))
    return [float(line.split()[4]) for line in run_lines(Run("s", {"q": ranking}))]


def test_files_are_read_back_as_they_were(tmp_path: Path) -> None:
    run = Run("yes-no", {"q 1": (("dir/a b.jpg", 0.5), ("c%20d", 0.25)), "q2": (("é", 3.0),)})
    (tmp_path / "run").write_text("".join(run_lines(run)), encoding="utf-8")
    (tmp_path / "qrels").write_text("".join(qrels_lines({"q 1": {"dir/a b.jpg": 1, "c%20d": 0}})), encoding="utf-8")
    docs = list(ir_measures.read_trec_run(str(tmp_path / "run")))  # type: ignore[no-untyped-call]
    assert [(unquote(doc.query_id), unquote(doc.doc_id), doc.score) for doc in docs] == [
        ("q 1", "dir/a b.jpg", 0.5),
        ("q 1", "c%20d", 0.25),
        ("q2", "é", 3.0),
    ]
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels")))  # type: ignore[no-untyped-call]
    assert [(unquote(qrel.doc_id), qrel.relevance) for qrel in qrels] == [("dir/a b.jpg", 1), ("c%20d", 0)]


def test_a_line_has_trecs_six_fields() -> None:
    (line,) = run_lines(Run("yes-no", {"q1": (("i", 0.125),)}))
    assert line == "q1 Q0 i 1 0.125 yes-no\n"
    assert list(qrels_lines({"q1": {"i": 1}})) == ["q1 0 i 1\n"]


@settings(deadline=None)
@given(st.text(min_size=1).filter(lambda text: text.isprintable() or "\n" in text))
def test_an_id_is_one_field_and_comes_back(identifier: str) -> None:
    assert escape(identifier).split() == [escape(identifier)]
    assert unquote(escape(identifier)) == identifier


doubles = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.lists(doubles, min_size=1, max_size=30, unique=True))
def test_scores_fall_strictly_in_single_precision(scores: list[float]) -> None:
    written = np.array(scores_of(sorted(scores, reverse=True)), dtype=np.float32)
    assert (np.diff(written) < 0).all()
    assert np.isfinite(written).all()


def test_scores_that_differ_below_single_precision_stay_close_and_in_order() -> None:
    written = scores_of([1.0, 1.0 - 1e-12, 1.0 - 2e-12, 0.5])
    assert written[0] > written[1] > written[2] > written[3]
    assert written == pytest.approx([1.0, 1.0, 1.0, 0.5], abs=1e-6)
