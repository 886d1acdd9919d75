"""Which predicate sank an image, which raised it, and what stands between it and its neighbours."""

from __future__ import annotations

import pytest

from fieldscope.agent.trace_why import Part, extremes, why
from fieldscope.agent.types import Predicate
from fieldscope.core.errors import ConfigError
from tests.agent.traced import agentic, single, verdict


def test_what_sank_an_image_is_named_with_its_answer() -> None:
    found = why(agentic(), "blue.png")
    assert found.sentence == 'ranked 3 (prior 1): sunk by "is the crab red?" (P(yes) 0.02)'
    assert found.parts[0].source == "p1"
    assert found.parts[0].log_odds == -4.0
    assert found.parts[0].verdict is not None
    assert found.exact


def test_a_part_is_named_before_the_whole_query() -> None:
    result = agentic()
    whole = Predicate(id="query", question="is it a red crab?")
    sunk = result.ranking[2].model_copy(update={"contributions": {"query": -9.0, "p1": -4.0}})
    verdicts = (verdict("query", "blue.png", 0.001), verdict("p1", "blue.png", 0.02))
    told = {"ranking": (*result.ranking[:2], sunk, result.ranking[3]), "predicates": (whole, *result.predicates)}
    assert "is the crab red?" in why(agentic(**told, verdicts=verdicts), "blue.png").sentence
    assert "is it a red crab?" in why(agentic(**told, verdicts=verdicts[:1]), "blue.png").sentence


def part(source: str, log_odds: float | None, kind: str = "other") -> Part:
    told = verdict(source, "a.png", 0.5, p_yes=0.5) if log_odds is not None and source != "comparisons" else None
    predicate = None if source in ("base", "prior", "comparisons") else Predicate(id=source, question="?", kind=kind)
    return Part(source=source, log_odds=log_odds, predicate=predicate, verdict=told)


def test_extremes_are_of_what_is_the_images_own() -> None:
    shared = [part("base", -9.0), part("prior", 9.0)]
    low, high, silent = part("p1", -1.0), part("p2", 2.0), part("p3", None)
    assert extremes([*shared, low, high, silent]) == (low, high)
    assert extremes([*shared, high]) == (high, high)
    assert extremes([*shared, silent]) == (None, None)
    compared = part("comparisons", -4.0)
    assert extremes([*shared, low, high, compared]) == (compared, high)


def test_a_part_of_the_query_counts_before_the_whole_of_it() -> None:
    whole, color = part("query", -9.0, "query"), part("p1", -1.0, "colour")
    compared = part("comparisons", 3.0)
    assert extremes([whole, color]) == (color, color)
    assert extremes([whole, compared]) == (whole, compared)
    assert extremes([whole, color, compared]) == (color, compared)
    silent = part("p1", None, "colour")
    assert extremes([whole, silent]) == (whole, whole)


def test_an_image_that_rose_with_nothing_for_it_was_passed_by_others() -> None:
    risen = single().ranking[1].model_copy(update={"rank": 1, "prior_rank": 2})
    told = why(single().model_copy(update={"ranking": (risen,)}), "b.png").sentence
    assert told == "ranked 1 (prior 2): nothing speaks for it, but others sank"


def test_what_raised_an_image() -> None:
    assert why(agentic(), "fine.png").sentence == 'ranked 1 (prior 2): raised by "is the crab red?" (P(yes) 0.97)'


def test_an_image_that_stays_tells_what_counts_most_against_it() -> None:
    sentence = why(agentic(), "net.png").sentence
    assert sentence.startswith("ranked 4 (prior 4): not moved; what counts most against it is its comparisons")


def test_an_image_that_stays_with_nothing_against_it_tells_what_counts_for_it() -> None:
    first = single().ranking[0].model_copy(update={"prior_rank": 1})
    told = why(single().model_copy(update={"ranking": (first,)}), "a.png").sentence
    assert told == 'ranked 1 (prior 1): not moved; what counts most for it is "is it two crabs?" (P(yes) 0.90)'


def test_the_expected_no_is_said() -> None:
    result = agentic()
    sunk = result.ranking[2].model_copy(update={"contributions": {"prior": 0.5, "p2": -2.0, "p1": 0.1}})
    verdicts = (verdict("p2", "blue.png", 0.05, p_yes=0.95), verdict("p1", "blue.png", 0.6, p_yes=0.6))
    changed = agentic(ranking=(*result.ranking[:2], sunk, result.ranking[3]), verdicts=verdicts)
    assert why(changed, "blue.png").sentence.endswith('sunk by "is there a net?" (P(yes) 0.95, expected no)')


@pytest.mark.parametrize("image_id", ["fine.png", "twin.png", "blue.png", "net.png"])
def test_the_parts_sum_to_the_score(image_id: str) -> None:
    found = why(agentic(), image_id)
    assert sum(part.log_odds or 0.0 for part in found.parts) == pytest.approx(found.ranked.score)
    assert {part.source for part in found.parts} == {"prior", "p1", "p2", "comparisons", "base"}
    shares = [abs(part.log_odds or 0.0) for part in found.parts]
    assert shares == sorted(shares, reverse=True)


def test_neighbours_with_what_separates_them() -> None:
    found = why(agentic(), "twin.png")
    assert found.above is not None
    assert found.below is not None
    assert (found.above.image_id, found.below.image_id) == ("fine.png", "blue.png")
    # 1.2 - 1.3 above; below 1.2 - (-4.2), most of it from the colour: 1.9 - (-4.0).
    assert found.above.ahead == pytest.approx(-0.1)
    assert found.below.ahead == pytest.approx(5.4)
    assert found.below.differences[0].source == "p1"
    assert found.below.differences[0].log_odds == pytest.approx(5.9)
    assert sum(d.log_odds for d in found.below.differences) == pytest.approx(found.below.ahead)
    assert why(agentic(), "fine.png").above is None
    assert why(agentic(), "net.png").below is None


def test_only_its_own_comparisons_and_its_reason() -> None:
    found = why(agentic(), "twin.png")
    assert [m.images for m in found.matchups] == [("fine.png", "twin.png"), ("twin.png", "net.png")]
    assert found.reason is not None
    assert found.reason.agrees is False
    assert why(agentic(), "blue.png").matchups == ()


def test_without_contributions_the_answers_speak() -> None:
    raised = why(single(), "a.png")
    assert raised.sentence == 'ranked 1 (prior 2): raised by "is it two crabs?" (P(yes) 0.90)'
    assert not raised.exact
    assert raised.parts[0].log_odds == pytest.approx(2.1972245773362196)
    assert why(single(), "b.png").sentence == "ranked 2 (prior 1): nothing speaks against it, but others rose past it"
    assert why(single(), "c.png").sentence == "ranked 3 (prior 3): no question about it was answered"


def test_an_image_that_is_not_ranked_is_an_error_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'a.jpg' \(did you mean 'a.png'\?\)"):
        why(single(), "a.jpg")
