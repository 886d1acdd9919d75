"""A verification audited, with tables made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from fieldscope.agent.types import Predicate, RankedCandidate, RerankResult, Verdict
from fieldscope.eval.measures.audit import ALL, Contradiction, audit, find_contradictions, overtaken
from fieldscope.eval.measures.truth import AnswerKey
from fieldscope.eval.runs.annotations import Target

SUBJECT = Predicate(id="s", question="is there a fish?", kind="subject", words="fish")
COLOUR = Predicate(id="c", question="is the fish red?", kind="colour", words="red")
BARE = Predicate(id="n", question="is the fish in a net?", expected="no", kind="absence", words="without a net")
WHOLE = Predicate(id="query", question="a red fish without a net?", words="a red fish without a net")


class Scenes:
    """Who shows what: the names of the predicates that hold of each image."""

    source = "oracle"
    shows = {"a": "s c n", "b": "s n", "c": "", "d": "s c n"}  # noqa: RUF012

    def holds(self, predicate: Predicate, image_id: str) -> bool | None:
        shown = self.shows.get(image_id)
        return None if shown is None else predicate.id in shown.split()


def verdict(image_id: str, predicate: str, p_yes: float | None, expected: str = "yes", **more: Any) -> Verdict:
    p = p_yes if p_yes is None or expected == "yes" else 1 - p_yes
    state = "answered" if p is not None else "unknown"
    values = {"predicate": predicate, "image_id": image_id, "state": state, "p_yes": p_yes, "p_expected": p}
    return Verdict.model_validate(values | more)


def ranked(*rows: tuple[str, int], contributions: dict[str, dict[str, float]] | None = None) -> Any:
    """(image, rank by prior), best first."""
    return tuple(
        RankedCandidate(
            image_id=image_id,
            rank=rank,
            score=-rank,
            prior=-prior_rank,
            prior_rank=prior_rank,
            contributions=(contributions or {}).get(image_id, {}),
        )
        for rank, (image_id, prior_rank) in enumerate(rows, start=1)
    )


def result(ranking: Any, verdicts: list[Verdict], *predicates: Predicate, query_id: str = "q") -> RerankResult:
    return RerankResult(
        query_id=query_id,
        query_text="a red fish without a net",
        strategy="agent",
        ranking=ranking,
        predicates=predicates,
        verdicts=tuple(verdicts),
    )


VERDICTS = [
    # a is relevant: the fish is seen, its colour missed, the net rightly not seen.
    verdict("a", "s", 0.9), verdict("a", "c", 0.3), verdict("a", "n", 0.1, "no"),
    # b is a fish of another colour, which is refused, and is said to be in a net, which it is not.
    verdict("b", "s", 0.7), verdict("b", "c", 0.4), verdict("b", "n", 0.8, "no"),
    # c shows nothing of it, but all of it is said to be there.
    verdict("c", "s", 0.6), verdict("c", "c", None), verdict("c", "n", 0.2, "no"),
    # of e nobody knows anything; d was never asked about.
    verdict("e", "s", 0.99), verdict("d", "s", None, state="not_asked"),
]  # fmt: skip
RANKING = ranked(("b", 2), ("a", 1), ("c", 3), ("d", 4), ("e", 5))
JUDGMENTS = {"q": {"a": 1, "b": 0, "c": 0, "d": 1}}


def test_a_confusion_table_by_hand() -> None:
    found = audit({"q": result(RANKING, VERDICTS, SUBJECT, COLOUR, BARE)}, AnswerKey(JUDGMENTS, Scenes()))
    table = {
        row.kind: (row.seen, row.missed, row.refused, row.passed, row.untold, row.unknown, row.not_asked)
        for row in (*found.kinds, found.total)
    }
    assert table == {
        "absence": (1, 1, 0, 1, 0, 0, 0),
        "colour": (0, 1, 1, 0, 0, 1, 0),
        "subject": (2, 0, 0, 1, 1, 0, 1),
        ALL: (3, 2, 1, 2, 1, 1, 1),
    }
    assert found.total.seen_share == 3 / 5
    assert found.total.refused_share == 1 / 3
    assert {row.source for row in found.kinds} == {"oracle"}
    assert [row.predicates for row in found.kinds] == [1, 1, 1]


def test_relevance_counts_only_what_was_missed_on_relevant_images() -> None:
    key = AnswerKey(JUDGMENTS)
    verdicts = [*VERDICTS, verdict("a", "query", 0.9), verdict("b", "query", 0.2), verdict("c", "query", 0.8)]
    found = audit({"q": result(RANKING, verdicts, WHOLE, SUBJECT, COLOUR, BARE)}, key)
    table = {row.kind: (row.seen, row.missed, row.refused, row.passed, row.untold) for row in found.kinds}
    assert table == {
        "absence": (1, 0, None, None, 2),
        "colour": (0, 1, None, None, 1),
        "subject": (1, 0, None, None, 3),
        "query": (1, 0, 1, 1, 0),
    }
    assert (found.total.seen, found.total.missed, found.total.refused, found.total.refused_share) == (3, 1, None, None)
    assert {row.source for row in found.kinds} == {"relevance"}
    assert [row.refused_share for row in found.kinds] == [None, None, None, 1 / 2]


def test_what_people_marked_goes_before_what_is_known() -> None:
    # Somebody finds that a is not red after all, that b is in a net, and that e is no fish. Nothing was said of d.
    told = {("a", "c"): False, ("b", "n"): False, ("e", "s"): False, ("d", "s"): True, ("x", "s"): True}
    marks = {Target("q", *place): holds for place, holds in told.items()}
    results = {"q": result(RANKING, VERDICTS, SUBJECT, COLOUR, BARE)}
    found = audit(results, AnswerKey(JUDGMENTS, Scenes(), marks))
    table = {
        row.kind: (row.seen, row.missed, row.refused, row.passed, row.untold, row.marked, row.marked_wrong)
        for row in (*found.kinds, found.total)
    }
    assert table == {
        "absence": (1, 0, 1, 1, 0, 1, 0),
        "colour": (0, 0, 2, 0, 0, 1, 0),
        "subject": (2, 0, 0, 2, 0, 1, 1),
        ALL: (3, 0, 3, 3, 0, 3, 1),
    }
    # Where only relevance is known, a mark is all that can tell of a part that it fails.
    rows = {row.kind: (row.refused, row.passed) for row in audit(results, AnswerKey(JUDGMENTS, None, marks)).kinds}
    assert rows == {"absence": (1, 0), "colour": (1, 0), "subject": (0, 1)}


def test_who_sank_relevant_images() -> None:
    shares = {
        "a": {"base": -9.0, "prior": -5.0, "s": 1.0, "c": -2.0, "n": -0.5},
        "d": {"base": -9.0, "prior": -5.0, "s": 0.0},
    }
    found = audit(
        {"q": result(ranked(("b", 2), ("a", 1), ("c", 3), ("d", 4), contributions=shares), VERDICTS, SUBJECT, COLOUR)},
        AnswerKey(JUDGMENTS, Scenes()),
    )
    (sunk,) = found.sunk
    assert (sunk.query_id, sunk.image_id, sunk.predicate, sunk.question) == ("q", "a", "c", "is the fish red?")
    assert (sunk.p_expected, sunk.contribution, sunk.holds) == (0.3, -2.0, True)
    assert (sunk.prior_rank, sunk.rank) == (1, 2)
    # d stands below b and c, but nothing was said against it.
    assert (found.relevant, found.sunk_otherwise) == (2, 1)
    assert {row.kind: row.sank for row in found.kinds} == {"colour": 1, "subject": 0}


def test_without_contributions_the_least_probable_answer_counts() -> None:
    found = audit({"q": result(RANKING, VERDICTS, SUBJECT, COLOUR, BARE)}, AnswerKey(JUDGMENTS, Scenes()))
    (sunk,) = found.sunk
    assert (sunk.predicate, sunk.contribution) == ("c", pytest.approx(-0.8473, abs=1e-4))


def test_a_question_that_the_query_did_not_ask_is_told_apart() -> None:
    wrong = AnswerKey({"q": {"b": 1}}, Scenes())  # b is relevant, though it is not red: the question was wrong
    found = audit({"q": result(ranked(("a", 2), ("b", 1)), VERDICTS, SUBJECT, COLOUR)}, wrong)
    assert [(sunk.image_id, sunk.holds) for sunk in found.sunk] == [("b", False)]


def test_overtaken() -> None:
    def names(relevant: str, *rows: tuple[str, int]) -> str:
        return "".join(each.image_id for each in overtaken(ranked(*rows), frozenset(relevant)))

    assert names("ab", ("a", 1), ("b", 2), ("c", 3)) == ""
    assert names("ab", ("b", 2), ("a", 1), ("c", 3)) == "a"  # it lost a rank, if only to another relevant one
    assert names("ab", ("a", 3), ("c", 1), ("b", 2)) == "b"
    assert names("ab", ("c", 1), ("a", 3), ("b", 2)) == "ab"  # a rose, and still stands below c
    assert names("ab", ("a", 1), ("b", 2)) == ""
    assert names("", ("a", 2), ("b", 1)) == ""


def test_contradictions() -> None:
    verdicts = [
        # No fish, yet a red one; and the whole query is said to match.
        verdict("a", "s", 0.1), verdict("a", "c", 0.9), verdict("a", "query", 0.95),
        # All parts, but not the whole.
        verdict("b", "s", 0.9), verdict("b", "c", 0.9), verdict("b", "n", 0.1, "no"), verdict("b", "query", 0.05),
        # Not clear enough.
        verdict("c", "s", 0.3), verdict("c", "c", 0.7), verdict("c", "query", 0.6),
        # Asked together and alone, with two answers; the second one counts, and agrees with the rest.
        verdict("d", "s", 0.05, joint=True), verdict("d", "s", 0.9),
        # A net around no fish: the question expects no, and says nothing of the fish.
        verdict("e", "s", 0.1), verdict("e", "n", 0.9, "no"),
    ]  # fmt: skip
    found = find_contradictions(result(ranked(*((i, n) for n, i in enumerate("abcde", 1))), verdicts, WHOLE, SUBJECT,
                                       COLOUR, BARE))  # fmt: skip
    assert found == [
        Contradiction("q", "a", "subject", "colour", ("c", "s")),
        Contradiction("q", "a", "whole", "query", ("query", "s")),
        Contradiction("q", "b", "whole", "query", ("query", "s", "c", "n")),
        Contradiction("q", "d", "repeated", "subject", ("s",)),
    ]
    counted = audit({"q": result((), verdicts, WHOLE, SUBJECT, COLOUR, BARE)}, AnswerKey({}))
    assert {row.kind: row.contradictions for row in counted.kinds} == {
        "absence": 0, "colour": 1, "subject": 1, "query": 2,
    }  # fmt: skip
    assert counted.contradictions == tuple(found)


def test_a_starfish_is_no_fish() -> None:
    star = Predicate(id="t", question="is the starfish red?", kind="colour", words="red")
    said = [verdict("a", "s", 0.1), verdict("a", "t", 0.9)]
    assert find_contradictions(result((), said, SUBJECT, star)) == []


def test_a_predicate_that_was_given_up_counts_no_more() -> None:
    found = audit({"q": result(RANKING, VERDICTS, SUBJECT)}, AnswerKey(JUDGMENTS, Scenes()))
    assert [row.kind for row in found.kinds] == ["subject"]
    assert found.sunk == ()


def test_queries_add_up() -> None:
    one = {"q": result(RANKING, VERDICTS, SUBJECT, COLOUR, BARE)}
    two = one | {"r": result(RANKING, VERDICTS, SUBJECT, COLOUR, BARE, query_id="r")}
    key = AnswerKey(JUDGMENTS | {"r": JUDGMENTS["q"]}, Scenes())
    single, double = audit(one, key), audit(two, key)
    assert double.total.seen == 2 * single.total.seen
    assert [sunk.query_id for sunk in double.sunk] == ["q", "r"]


def test_a_run_without_questions() -> None:
    found = audit({"q": result(RANKING, [])}, AnswerKey(JUDGMENTS))
    assert found.kinds == ()
    assert found.total.seen_share is None
    assert (found.relevant, found.sunk_otherwise) == (2, 2)
