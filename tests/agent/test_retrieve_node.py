"""retrieve: given candidates, found ones, and what a later round adds to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.budget import Account
from fieldscope.agent.calibration import UNCALIBRATED, Calibration, CalibrationKey
from fieldscope.agent.context import Context
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.nodes.retrieve import retrieve, search_key
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import Synthesis
from fieldscope.core.errors import ConfigError, StrategyError
from fieldscope.core.types import Candidate, Query, Search
from fieldscope.retrieval.collection import FolderCollection

QUERY = Query(id="q1", text="a red crab")
THOUGHT = Synthesis(thought="", core="a crab", detailed="a red crab", comprehensive="a red crab")


class Finder:
    """Finds what it is told to, as many as are asked for, and remembers the questions."""

    def __init__(self, *found: tuple[str, float]) -> None:
        self.found = [Candidate(*one) for one in found]
        self.asked: list[tuple[int, tuple[str, ...], float]] = []

    def search(self, search: Search) -> Sequence[Candidate]:
        assert search.query == QUERY
        self.asked.append((search.k, search.descriptions, search.caption_weight))
        self.last = search
        return self.found[: search.k]


async def run(
    state: RerankState, strategy: Strategy | str = "agent", finder: Finder | None = None, **deps: Any
) -> dict[str, Any]:
    strategy = load_strategy(strategy, prompts="fieldnotes") if isinstance(strategy, str) else strategy
    bound = Resources(images=FolderCollection(Path(__file__).parent), retriever=finder, **deps)
    return await retrieve(state, Context(bound, strategy, None, Account()))


def ids(update: dict[str, Any]) -> list[str]:
    return [candidate.image_id for candidate in update["candidates"]]


async def test_the_descriptions_and_the_caption_weight_reach_the_search() -> None:
    finder = Finder(("a", 0.5), ("b", 0.9))
    update = await run(RerankState(query=QUERY, synthesis=THOUGHT), finder=finder)
    assert finder.asked == [(100, ("a crab", "a red crab"), 0.15)]
    assert finder.last.prior == "query"
    assert ids(update) == ["b", "a"]
    await run(RerankState(query=QUERY, synthesis=THOUGHT), "imagescope", finder)
    assert finder.last.prior == "fused"


async def test_a_fallback_is_no_description() -> None:
    finder = Finder()
    fallback = THOUGHT.model_copy(update={"fallback": "the model was silent"})
    await run(RerankState(query=QUERY, synthesis=fallback), finder=finder)
    await run(RerankState(query=QUERY), "yes-no", finder)
    assert finder.asked == [(100, (), 0.15), (100, (), 0.0)]


async def test_the_clock_is_the_states_and_the_setting_is_told_once() -> None:
    lmm = ScriptedLMM({}, identity="m1")
    strategy = load_strategy("yes-no", prompts="fieldnotes")
    update = await run(RerankState(query=QUERY, given=(), started=1.0), strategy, lmm=lmm)
    assert set(update) == {"candidates", "trace"}
    begun, found = update["trace"]
    assert (begun.kind, begun.at, found.kind) == ("started", 0.0, "retrieved")
    assert begun.data == {
        "strategy": "yes-no",
        "strategy_fingerprint": strategy.fingerprint,
        "prompts": {prompt.name: prompt.fingerprint for prompt in strategy.prompts},
        "model": "m1",
        "calibrated": False,
    }
    assert found.at > 0.0


@pytest.mark.parametrize(
    ("calibration", "calibrated"),
    [(None, False), (UNCALIBRATED, False), (Calibration(key=CalibrationKey(model="m", prompts={})), True)],
)
async def test_the_trace_says_whether_anything_was_fitted(calibration: Calibration | None, calibrated: bool) -> None:
    update = await run(RerankState(query=QUERY, given=()), calibration=calibration)
    assert update["trace"][0].data["calibrated"] is calibrated


async def test_given_candidates_are_cut_to_the_best() -> None:
    given_ones = (Candidate("a", 0.1), Candidate("b", 0.3), Candidate("c", 0.2))
    update = await run(RerankState(query=QUERY, given=given_ones, top_k=2), "clip")
    assert ids(update) == ["b", "c"]
    assert update["trace"][1].data == {"candidates": 2, "given": True}


async def test_given_candidates_stay_as_they_are_in_a_later_round() -> None:
    assert await run(RerankState(query=QUERY, given=(Candidate("a", 0.1),), round=1), finder=Finder(("b", 1.0))) == {}


def fused() -> Strategy:
    """The agent, with the descriptions in the prior."""
    agent = load_strategy("agent", prompts="fieldnotes")
    return agent.model_copy(update={"retrieve": agent.retrieve.model_copy(update={"prior": "fused"})})


async def test_what_the_query_alone_says_of_an_image_lasts() -> None:
    before = (Candidate("a", 0.8), Candidate("b", 0.7))
    state = RerankState(query=QUERY, synthesis=THOUGHT, candidates=before, round=1)
    assert ids(await run(state, finder=Finder(("c", 0.9), ("a", 0.8), ("d", 0.3)))) == ["c", "a", "b", "d"]


async def test_a_later_round_looks_further_and_keeps_what_was_found() -> None:
    finder = Finder(("c", 0.9), ("a", 0.4), ("d", 0.3))
    before = (Candidate("a", 0.8), Candidate("b", 0.7))
    state = RerankState(query=QUERY, synthesis=THOUGHT, candidates=before, top_k=3, round=2)
    update = await run(state, fused(), finder)
    assert [asked[0] for asked in finder.asked] == [7]  # 3 * 1.5 ** 2, rounded up
    assert update["candidates"] == (
        Candidate("c", 0.9), Candidate("a", 0.4), Candidate("b", 0.3), Candidate("d", 0.3)
    )  # fmt: skip
    (event,) = update["trace"]
    assert event.kind == "retrieved"
    assert event.data == {
        "candidates": 4, "given": False, "round": 2, "k": 7, "new": 2, "found": [["c", 0.9], ["a", 0.4], ["d", 0.3]],
        "search": search_key(Search(QUERY, 7, THOUGHT.descriptions, 0.15)),
    }  # fmt: skip


found_ones = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1, 1), max_size=8)


@given(found_ones, found_ones)
async def test_no_candidate_is_lost_and_what_was_found_comes_first(
    before: dict[str, float], found: dict[str, float]
) -> None:
    earlier = tuple(Candidate(*one) for one in before.items())
    update = await run(RerankState(query=QUERY, candidates=earlier, round=1), fused(), Finder(*found.items()))
    priors = {candidate.image_id: candidate.prior for candidate in update["candidates"]}
    assert set(priors) == before.keys() | found.keys()
    assert len(update["candidates"]) == len(priors)
    assert all(priors[image_id] == prior for image_id, prior in found.items())
    assert all(priors[i] <= min(found.values(), default=1.0) for i in before.keys() - found.keys())


async def test_no_candidates_and_nowhere_to_look_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'q1' has no candidates"):
        await run(RerankState(query=QUERY))


async def test_the_instruction_of_the_strategy_reaches_the_search() -> None:
    finder = Finder(("a", 0.5))
    strategy = load_strategy("agent", prompts="fieldnotes")
    await run(RerankState(query=QUERY), strategy, finder)
    assert finder.last.instruction is None
    instructed = strategy.instructed("Find animals.")
    update = await run(RerankState(query=QUERY), instructed, finder)
    assert finder.last.instruction == "Find animals."
    assert update["trace"][-1].data["search"] == search_key(finder.last)
    assert instructed.fingerprint != strategy.fingerprint
    assert strategy.instructed(None) is strategy
    with pytest.raises(StrategyError, match="the instruction is empty"):
        strategy.instructed("  ")


def test_searches_that_were_recorded_before_keep_their_keys() -> None:
    plain = Search(QUERY, 7)
    assert search_key(plain).startswith("8adfa6d908b6c453")
    assert search_key(Search(QUERY, 100, ("a crab",), 0.15, "query")).startswith("4525d494f170e287")
    instructed = [search_key(replace(plain, instruction=words)) for words in ("Find animals.", "Find colours.")]
    assert len({search_key(plain), *instructed}) == 3
