from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.bradley_terry import merge_comparisons
from fieldscope.agent.budget import Account, Budget, BudgetedLMM
from fieldscope.agent.calibration import Calibration
from fieldscope.agent.context import Context
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, LMMResponse, TextPart, TokenLogprob
from fieldscope.agent.lmm.choice import LETTERS
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.nodes.compare import compare
from fieldscope.agent.nodes.pair import pair
from fieldscope.agent.query_text import comparison_text
from fieldscope.agent.resources import Resources
from fieldscope.agent.scheduling import compared_head
from fieldscope.agent.state import CompareTask, RerankState
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import Comparison, Predicate, Synthesis, Verdict
from fieldscope.core.errors import CacheMissError, LMMServerError
from fieldscope.core.types import Candidate, Query, Turn
from fieldscope.retrieval.collection import FolderCollection

QUERY = Query(id="q", text="a red crab")
COMPOSED = Query(id="c", text="make it blue", reference_image="7.png")


def images(request: LMMRequest) -> list[str]:
    return [image.image_id for image in request.images]


def letters(probabilities: Sequence[float]) -> LMMResponse:
    said = sorted(zip(LETTERS, probabilities, strict=False), key=lambda pair: -pair[1])
    logprobs = tuple(TokenLogprob(token=letter, logprob=math.log(p)) for letter, p in said)
    return LMMResponse(text=said[0][0], answer_logprobs=logprobs)


def prefers_high(bias: float = 0.0, strength: float = 2.0) -> Callable[[LMMRequest], Answer]:
    """A model for which `7.png` is the best and `0.png` the worst, and which likes what is shown first by `bias`."""

    def answer(request: LMMRequest) -> Answer:
        odds = [math.exp(strength * int(name[0])) for name in images(request)]
        odds[0] *= math.exp(bias)
        return letters([value / sum(odds) for value in odds])

    return answer


def changed(name: str, **compare_settings: Any) -> Strategy:
    strategy = load_strategy(name, prompts="fieldnotes")
    assert strategy.compare is not None
    return strategy.model_copy(update={"compare": strategy.compare.model_copy(update=compare_settings)})


@pytest.fixture
def deps(pictures: Path) -> Resources:
    return Resources(images=FolderCollection(pictures))


def context(resources: Resources, strategy: Strategy, lmm: ScriptedLMM, budget: Budget | None = None) -> Context:
    account = Account(budget)
    return Context(resources, strategy, BudgetedLMM(lmm, account), account)


def task(*orders: tuple[str, ...], query: Query = QUERY) -> CompareTask:
    return CompareTask(query=query, description="a red crab", orders=orders, wave=1, started=0.0)


async def compared(
    task: CompareTask, lmm: ScriptedLMM, deps: Resources, strategy: str, budget: Budget | None = None
) -> Any:
    update = await compare(task, context(deps, load_strategy(strategy, prompts="fieldnotes"), lmm, budget))
    return update["comparisons"]


def content(request: LMMRequest) -> list[str]:
    return [part.image_id if isinstance(part, ImagePart) else part.text for part in request.messages[-1].content]


# What is shown.


@pytest.mark.parametrize(
    ("strategy", "order", "query", "expected"),
    [
        ("pairwise", ("0.png", "1.png"), QUERY, ["a:", "0.png", "b:", "1.png"]),
        ("pairwise", ("1.png", "0.png"), COMPOSED, ["reference:", "7.png", "a:", "1.png", "b:", "0.png"]),
        ("setwise", ("3.png", "0.png", "2.png"), QUERY, ["a:", "3.png", "b:", "0.png", "c:", "2.png"]),
        ("imagescope", ("0.png",), QUERY, ["0.png"]),
        ("imagescope", ("0.png",), COMPOSED, ["7.png", "0.png"]),
    ],
)
async def test_images_in_their_order_each_after_its_name_and_the_question_last(
    deps: Resources, strategy: str, order: tuple[str, ...], query: Query, expected: list[str]
) -> None:
    lmm = ScriptedLMM(lambda request: letters([0.5, 0.5]) if len(order) > 1 else 0.9)
    await compared(task(order, query=query), lmm, deps, strategy)
    (request,) = lmm.requests
    *shown, question = content(request)
    assert shown == expected and "a red crab" in question
    assert request.max_tokens == 1 and request.top_logprobs == 20
    assert ("reference" in question or "change" in question) == (query is COMPOSED)
    assert all(isinstance(part, TextPart | ImagePart) for part in request.messages[-1].content)


async def test_probabilities_go_along_what_was_shown(deps: Resources) -> None:
    lmm = ScriptedLMM(prefers_high(bias=0.5, strength=1.0))
    one, other = await compared(task(("0.png", "2.png"), ("2.png", "0.png")), lmm, deps, "pairwise")
    assert one.shown == ("0.png", "2.png") and other.shown == ("2.png", "0.png")
    assert math.log(one.probabilities[0] / one.probabilities[1]) == pytest.approx(0.5 - 2)
    assert math.log(other.probabilities[0] / other.probabilities[1]) == pytest.approx(0.5 + 2)
    assert one.answer == "b" and one.request_key != other.request_key


async def test_the_first_order_leads(deps: Resources) -> None:
    lmm = ScriptedLMM(prefers_high())
    orders = (("0.png", "1.png", "2.png"), ("2.png", "1.png", "0.png"))
    await compared(task(*orders), lmm, deps, "setwise")
    assert [tuple(images(request)) for request in lmm.requests] == list(orders)


# What fails.


async def test_a_failed_order_is_unknown_and_the_other_stands(deps: Resources) -> None:
    said: dict[tuple[str, ...], Answer] = {
        ("0.png", "1.png"): LMMServerError("the server\nfailed"),
        ("1.png", "0.png"): letters([0.9, 0.1]),
    }
    lmm = ScriptedLMM(lambda request: said[tuple(images(request))])
    failed, answered = await compared(task(*said), lmm, deps, "pairwise")
    assert failed.state == "unknown" and failed.error == "the server failed" and failed.probabilities == ()
    assert failed.request_key is not None
    assert answered.state == "answered" and answered.probabilities == pytest.approx((0.9, 0.1))


async def test_an_answer_without_a_letter_is_unknown(deps: Resources) -> None:
    spoken = LMMResponse(text="The", answer_logprobs=(TokenLogprob(token="The", logprob=-0.01),))
    (comparison,) = await compared(task(("0.png", "1.png")), ScriptedLMM(lambda r: spoken), deps, "pairwise")
    assert comparison.state == "unknown" and "'The'" in comparison.error and comparison.answer == "The"


async def test_a_picture_that_can_not_be_read_costs_no_call(deps: Resources) -> None:
    lmm = ScriptedLMM(prefers_high())
    orders = (("0.png", "broken.png"), ("broken.png", "0.png"))
    comparisons = await compared(task(*orders), lmm, deps, "pairwise")
    assert [c.state for c in comparisons] == ["unknown", "unknown"] and "broken.png" in comparisons[0].error
    assert [c.shown for c in comparisons] == list(orders) and not lmm.requests


async def test_what_the_budget_forbids_is_not_asked(deps: Resources) -> None:
    lmm = ScriptedLMM(prefers_high())
    orders = (("0.png", "1.png"), ("1.png", "0.png"))
    asked, refused = await compared(task(*orders), lmm, deps, "pairwise", Budget(max_calls=1))
    assert asked.state == "answered" and refused.state == "not_asked" and "1 calls" in refused.error


# What is compared next.


def state(n: int = 6, **known: Any) -> RerankState:
    candidates = tuple(Candidate(f"{i}.png", 1.0 - i / 10) for i in range(n))
    return RerankState(query=known.pop("query", QUERY), candidates=candidates, **known)


def words(state: RerankState) -> str:
    return comparison_text(state.query, state.synthesis)


def planned(
    state: RerankState, deps: Resources, strategy: Strategy, budget: Budget | None = None
) -> tuple[list[CompareTask], dict[str, Any], dict[str, Any]]:
    """The tasks of the next wave, the event's data, and the whole update."""
    command = pair(state, context(deps, strategy, ScriptedLMM({}), budget))
    update = command.update
    (event,) = update["trace"]
    assert event.kind == "paired"
    assert command.node == ("compare" if command.tasks else "rank")
    return [task for task in command.tasks if isinstance(task, CompareTask)], event.data, update


def answered(*shown: str, best: float = 0.6) -> Comparison:
    rest = (1 - best) / (len(shown) - 1) if len(shown) > 1 else 0.0
    return Comparison(state="answered", shown=shown, probabilities=(best, *[rest] * (len(shown) - 1)))


def test_a_wave_of_pairs_in_both_orders_with_the_uncertainty_behind_it(deps: Resources) -> None:
    tasks, said, update = planned(state(), deps, load_strategy("pairwise", prompts="fieldnotes"))
    assert len(tasks) == 3 and update["wave"] == said["wave"] == 1 and said["calls"] == 6
    assert Counter(i for t in tasks for i in t.orders[0]) == Counter(f"{i}.png" for i in range(6))
    for sent, why in zip(tasks, said["compared"], strict=True):
        assert sent.orders == (tuple(why["images"]), tuple(reversed(why["images"])))
        assert 0 < why["gain"] < 1 and 0 < why["doubt"] <= 0.5
    assert sorted((why["gain"] for why in said["compared"]), reverse=True) == [why["gain"] for why in said["compared"]]


def test_a_wave_of_sets_forwards_and_backwards(deps: Resources) -> None:
    tasks, _, _ = planned(state(8), deps, load_strategy("setwise", prompts="fieldnotes"))
    assert [len(t.orders[0]) for t in tasks] == [4, 4]
    assert all(t.orders[1] == t.orders[0][::-1] for t in tasks)


def test_no_pair_is_sent_twice_even_where_it_failed(deps: Resources) -> None:
    asked: list[Comparison] = []
    sent: list[frozenset[str]] = []
    while (wave := planned(state(4, comparisons=tuple(asked)), deps, load_strategy("pairwise", prompts="fieldnotes")))[
        0
    ]:
        for sending in wave[0]:
            sent.append(frozenset(sending.orders[0]))
            asked += [
                Comparison(state="unknown", shown=order, error="failed") if "0.png" in order else answered(*order)
                for order in sending.orders
            ]
    assert len(sent) == len(set(sent)) <= 6
    assert sum("0.png" in pair for pair in sent) == 2, "an image that never gets an answer is left alone"
    assert "no order that matters" in wave[1]["stopped"]


@pytest.mark.parametrize(("limit", "pairs"), [(1, 0), (4, 2), (5, 2), (40, 3)])
def test_no_more_than_the_strategy_wants(deps: Resources, limit: int, pairs: int) -> None:
    tasks, said, _ = planned(state(), deps, changed("pairwise", max_calls=limit))
    assert len(tasks) == pairs
    assert tasks or said["stopped"] == "the strategy allows 1 comparisons, and all are used"


def test_failed_calls_count_and_unasked_ones_do_not(deps: Resources) -> None:
    failed = Comparison(state="unknown", shown=("0.png", "1.png"), error="failed")
    four = changed("pairwise", max_calls=4)
    assert len(planned(state(comparisons=(failed, failed)), deps, four)[0]) == 1
    assert planned(state(comparisons=(failed,) * 4), deps, four)[0] == []


def test_an_empty_account_leaves_the_next_pair_not_asked(deps: Resources) -> None:
    tasks, said, update = planned(state(), deps, load_strategy("pairwise", prompts="fieldnotes"), Budget(max_calls=0))
    assert not tasks and "budget of 0 calls" in said["stopped"]
    one, other = update["comparisons"]
    assert one.state == other.state == "not_asked" and one.shown == other.shown[::-1]
    again = planned(
        state(comparisons=(one, other)), deps, load_strategy("pairwise", prompts="fieldnotes"), Budget(max_calls=0)
    )
    assert again[1]["stopped"] == said["stopped"] and again[2]["comparisons"] == ()


def test_a_wave_is_no_wider_than_the_budget(deps: Resources) -> None:
    assert len(planned(state(), deps, load_strategy("pairwise", prompts="fieldnotes"), Budget(max_calls=3))[0]) == 1


def test_an_empty_account_with_nothing_left_to_compare_cuts_nothing_off(deps: Resources) -> None:
    _, said, update = planned(state(1), deps, load_strategy("pairwise", prompts="fieldnotes"), Budget(max_calls=0))
    assert update["comparisons"] == () and "fewer than two candidates" in said["stopped"]


def test_nothing_below_the_threshold(deps: Resources) -> None:
    tasks, said, _ = planned(state(), deps, changed("pairwise", stop_below=0.9))
    assert not tasks and "no order that matters" in said["stopped"]


def test_where_comparison_does_not_pay_none_is_made(pictures: Path) -> None:
    weak = Resources(images=FolderCollection(pictures), calibration=Calibration(comparison_weight=0.0))
    tasks, said, _ = planned(state(), weak, load_strategy("pairwise", prompts="fieldnotes"))
    assert not tasks and said["stopped"] == "comparisons are off: this model's calibration shows no benefit"


def test_only_the_head_is_compared(deps: Resources) -> None:
    tasks, _, _ = planned(state(8), deps, changed("pairwise", top_k=3))
    assert {i for t in tasks for i in t.orders[0]} <= {"0.png", "1.png", "2.png"}


def test_what_a_comparison_shows_of_a_query() -> None:
    thought = Synthesis(thought="", core="a crab", detailed="a red crab", comprehensive="one red crab on sand")
    talk = Query(id="d", text="a crab", dialogue=(Turn(question="which colour?", answer="red"),))
    assert words(state()) == "a red crab"
    assert words(state(query=talk)) == "a crab, red"
    assert words(state(query=talk, synthesis=thought)) == "one red crab on sand"
    assert words(state(query=COMPOSED, synthesis=thought)) == "make it blue"


# What the comparisons make of the head.


def test_the_head_is_settled_with_what_was_answered(pictures: Path) -> None:
    fitted = Calibration(prior_weight=0.5, spread=2.0, comparison_weight=0.7, position_bias=0.3)
    deps = Resources(images=FolderCollection(pictures), calibration=fitted)
    told = answered("1.png", "0.png", best=0.9)
    lost = Comparison(state="unknown", shown=("0.png", "2.png"), error="failed")
    outside = answered("0.png", "5.png")
    belief, head, after = compared_head(state(comparisons=(told, lost, outside)), deps, changed("pairwise", top_k=3))
    assert head == [0, 1, 2] and after is not None
    expected = merge_comparisons(belief.log_odds[:3], 2.0, [((1, 0), (0.9, 0.1))], weight=0.7, position_bias=0.3)
    assert after.mean == pytest.approx(expected.mean) and after.covariance == pytest.approx(expected.covariance)


@pytest.mark.parametrize("strategy", ["imagescope", "predicates"])
def test_there_is_no_head_without_comparison_of_candidates(deps: Resources, strategy: str) -> None:
    assert compared_head(state(), deps, load_strategy(strategy, prompts="fieldnotes"))[1:] == ([], None)


# The walk.


def walked(*said: Comparison, **settings: Any) -> RerankState:
    """Four images of which the predicate confirms 2 and 3."""
    verdicts = tuple(
        Verdict(state="answered", predicate="p", image_id=f"{i}.png", p_yes=p, p_expected=p)
        for i, p in enumerate((0.1, 0.2, 0.9, 0.8))
    )
    predicates = (Predicate(id="p", question="is it red?"),)
    return state(4, verdicts=verdicts, predicates=predicates, comparisons=said, **settings)


def test_a_walk_goes_down_the_agreements_one_at_a_time(deps: Resources) -> None:
    strategy = load_strategy("imagescope", prompts="fieldnotes")
    tasks, said, _ = planned(walked(), deps, strategy)
    assert [t.orders for t in tasks] == [(("2.png",),)] and said["rank"] == 1
    no = answered("2.png", best=0.2)
    assert planned(walked(no), deps, strategy)[0][0].orders == (("3.png",),)
    failed = Comparison(state="unknown", shown=("2.png",), error="failed")
    assert planned(walked(failed), deps, strategy)[0][0].orders == (("3.png",),), "unknown is no yes and no no"


def test_a_walk_ends_at_the_first_yes_and_at_its_last_image(deps: Resources) -> None:
    strategy = load_strategy("imagescope", prompts="fieldnotes")
    tasks, said, _ = planned(walked(answered("2.png", best=0.6)), deps, strategy)
    assert not tasks and said["image_id"] == "2.png" and "matches as a whole" in said["stopped"]
    noes = [answered(f"{i}.png", best=0.4) for i in (2, 3, 0)]
    assert planned(walked(*noes), deps, strategy)[1]["stopped"] == "none of the best 3 matches as a whole"
    assert "all are used" in planned(walked(noes[0]), deps, changed("imagescope", max_calls=1))[1]["stopped"]


def test_a_walk_without_budget_leaves_the_next_image_not_asked(deps: Resources) -> None:
    _, _, update = planned(walked(), deps, load_strategy("imagescope", prompts="fieldnotes"), Budget(max_calls=0))
    assert [(c.shown, c.state) for c in update["comparisons"]] == [(("2.png",), "not_asked")]


# From a query to a ranking.


@pytest.mark.parametrize(("strategy", "most"), [("pairwise", 60), ("setwise", 40)])
async def test_comparisons_turn_a_prior_round_that_had_it_backwards(
    make_agent: Callable[..., Agent], candidates: tuple[Candidate, ...], strategy: str, most: int
) -> None:
    lmm = ScriptedLMM(prefers_high(bias=1.0))
    result = await make_agent(lmm, strategy).rerank(QUERY, candidates)
    assert [c.image_id for c in result.ranking] == [f"{i}.png" for i in reversed(range(8))]
    assert 0 < len(result.comparisons) == len(lmm.requests) <= most
    orders = Counter(frozenset(c.shown) for c in result.comparisons)
    assert set(orders.values()) == {2}, "every group in both orders"
    assert result.ended is None and [e.kind for e in result.trace].count("compared") == len(orders)
    assert all("gain" in why for e in result.trace if e.kind == "paired" for why in e.data.get("compared", []))


async def test_a_budget_that_ends_the_comparisons_is_named(
    make_agent: Callable[..., Agent], candidates: tuple[Candidate, ...]
) -> None:
    lmm = ScriptedLMM(prefers_high())
    for calls in (4, 5):
        result = await make_agent(lmm, "pairwise").rerank(QUERY, candidates, budget=Budget(max_calls=calls))
        assert result.ended == "compare" and len(result.asked) == calls and len(result.ranking) == 8


async def test_what_nobody_foresaw_in_one_comparison_is_unknown_and_the_others_go_on(
    make_agent: Callable[..., Agent], candidates: tuple[Candidate, ...]
) -> None:
    def answer(request: LMMRequest) -> Answer:
        return ZeroDivisionError("oh") if set(images(request)) == {"0.png", "7.png"} else prefers_high()(request)

    result = await make_agent(ScriptedLMM(answer), "pairwise").rerank(QUERY, candidates)
    unknown = [c for c in result.comparisons if c.state == "unknown"]
    assert [c.error for c in unknown] == ["unforeseen ZeroDivisionError: oh"] * 2
    assert [c.shown for c in unknown] == [("0.png", "7.png"), ("7.png", "0.png")]
    assert result.ranking[0].image_id == "7.png"


async def test_a_replays_missing_call_ends_the_run(
    make_agent: Callable[..., Agent], candidates: tuple[Candidate, ...]
) -> None:
    lmm = ScriptedLMM(lambda request: CacheMissError("never recorded"))
    with pytest.raises(CacheMissError, match="never recorded"):
        await make_agent(lmm, "pairwise").rerank(QUERY, candidates)
