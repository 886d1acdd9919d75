"""Marks are only added to, the last one counts, and every process sees them; a ranking is refitted to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fieldscope.agent.types import Predicate, RankedCandidate, RerankResult, Verdict
from fieldscope.core.errors import ConfigError
from fieldscope.eval.labels.relearn import relearn
from fieldscope.eval.runs.marks import Mark, Marks, judgments_of

ODDS = (2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.8, 0.6)


def ranking(odds: tuple[float, ...] = ODDS, holds: tuple[float | None, ...] = ()) -> RerankResult:
    """Images `a`, `b` ... with falling log-odds, and perhaps one predicate's answers about them."""
    ranked = tuple(
        RankedCandidate(
            image_id="abcdefgh"[at],
            rank=at + 1,
            score=value,
            prior=1.0 - at / 10,
            prior_rank=at + 1,
            p_match=float(1.0 / (1.0 + np.exp(-value))),
            contributions={"base": value},
        )
        for at, value in enumerate(odds)
    )
    verdicts = tuple(
        Verdict(state="unknown" if p is None else "answered", predicate="p-1", image_id="abcdefgh"[at], p_expected=p)
        for at, p in enumerate(holds)
    )
    predicates = (Predicate(id="p-1", question="is it red?", kind="colour"),) if holds else ()
    return RerankResult(
        query_id="q", query_text="a red crab", strategy="s", ranking=ranked, predicates=predicates, verdicts=verdicts
    )


def test_the_last_mark_counts_and_none_takes_it_back(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    assert marks.of("q") == {} and not marks.path.exists()
    marks.put("q", {"a": "accepted", "b": "rejected", "c": "unsure"}, by="Ana")
    marks.put("q", {"b": None, "c": "accepted"}, by="Ben")
    marks.put("other", {"a": "rejected"})
    assert Marks(tmp_path).of("q") == {"a": "accepted", "c": "accepted"}
    assert marks.of("q", by="Ana") == {"a": "accepted", "b": "rejected", "c": "unsure"}
    assert marks.by_query() == {"q": {"a": "accepted", "c": "accepted"}, "other": {"a": "rejected"}}
    assert marks.people() == ["Ana", "Ben", ""] and len(marks.history()) == 6
    assert judgments_of({"a": "accepted", "b": "rejected", "c": "unsure"}) == {"a": 1, "b": 0}


def test_a_damaged_file_of_marks_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    marks.path.write_bytes(b"no database at all, but long enough to have a header" * 100)
    with pytest.raises(ConfigError, match="can't be read or written"):
        marks.of("q")


def test_images_like_the_accepted_ones_rise() -> None:
    """Of six other images the last two lie where the accepted ones do."""
    crab, dune = [1.0, 0.1, 0.0], [0.0, 0.1, 1.0]
    vectors = np.array([crab, dune, dune, dune, dune, dune, crab, crab], dtype=np.float32)
    marks: dict[str, Mark] = {"a": "accepted", "b": "rejected", "d": "unsure"}
    refitted = relearn(ranking(), marks, vectors)
    assert set(refitted.order) == set("cdefgh") and refitted.order[:2] == ("g", "h")
    assert refitted.moved == {"g": 4, "h": 4, "c": -2, "d": -2, "e": -2, "f": -2}
    assert list(refitted.p_match.values()) == sorted(refitted.p_match.values(), reverse=True)
    assert any("like the accepted ones rise" in sentence for sentence in refitted.changes)
    assert any("g rises most" in sentence for sentence in refitted.changes)
    without = relearn(ranking(), marks, None)
    assert without.order == tuple("cdefgh") and any("no vectors" in sentence for sentence in without.changes)


def test_a_predicate_that_the_marks_contradict_counts_less() -> None:
    """All three accepted images were said not to be red, and the rejected one to be."""
    holds = (0.02, 0.98, 0.03, 0.02, 0.97, 0.04, 0.98, None)
    marks: dict[str, Mark] = {"a": "accepted", "b": "rejected", "c": "accepted", "d": "accepted"}
    refitted = relearn(ranking(holds=holds), marks, None)
    (weight,) = [weight for weight in refitted.weights if weight.source == "p-1"]
    assert weight.by < 0 and any("“is it red?” counts less" in sentence for sentence in refitted.changes)
    assert refitted.order.index("f") < refitted.order.index("e")


def test_without_a_judgment_nothing_is_refitted() -> None:
    for marks in ({}, {"a": "unsure"}, {"elsewhere": "accepted"}):
        with pytest.raises(ConfigError, match="mark some first"):
            relearn(ranking(), marks, None)  # type: ignore[arg-type]
