"""check: a composed request's predicates are asked about its reference image before they are asked about any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.budget import Account, Budget, BudgetedLMM
from fieldscope.agent.context import Context
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMM, LMMRequest, TextPart
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.nodes.check import check
from fieldscope.agent.nodes.lost import UNREAD
from fieldscope.agent.nodes.plan import plan
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import Next, RerankState, VerifyTask
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import Predicate
from fieldscope.core.errors import LMMServerError
from fieldscope.core.types import Candidate, Query
from fieldscope.retrieval.collection import FolderCollection
from tests.agent.oracle import FACTS, Oracle, facts_of, paint, read_as

QUERY = Query(id="q", text="now on snow", reference_image="03.png")
CRABS = Predicate(id="s", question="is there a crab?", kind="subject", words="crabs")
TWO = Predicate(id="n", question="are there exactly two crabs?", kind="count", words="two")
SNOW = Predicate(id="h", question="was this photo taken in the snow?", kind="habitat", words="on snow")
AGENT = load_strategy("agent", prompts="fieldnotes")


@pytest.fixture
def pictures(tmp_path: Path) -> FolderCollection:
    return paint(tmp_path)


async def checked(
    pictures: FolderCollection,
    lmm: LMM,
    strategy: Strategy = AGENT,
    query: Query = QUERY,
    predicates: tuple[Predicate, ...] = (CRABS, TWO, SNOW),
    **known: Any,
) -> Next:
    state = RerankState(query=query, predicates=predicates, caption="two crabs on a beach", **known)
    return await check(state, Context(Resources(images=pictures), strategy, lmm, Account()))


def seeing(p_yes: Mapping[str, Answer]) -> ScriptedLMM:
    """Answers by what comes first in the question."""

    def answer(request: LMMRequest) -> Answer:
        question = request.messages[-1].content[-1]
        assert isinstance(question, TextPart)
        return next(said for start, said in p_yes.items() if question.text.startswith(start))

    return ScriptedLMM(answer)


def told(command: Next) -> dict[str, Any]:
    (event,) = command.update["trace"]
    assert event.kind == "checked"
    return dict(event.data)


async def test_what_the_reference_contradicts_is_left_out_but_the_change_stays(pictures: FolderCollection) -> None:
    command = await checked(pictures, seeing({"is there": 0.9, "are there": 0.1, "was this": 0.05}))
    assert command.node == "plan"
    assert command.update["predicates"] == (CRABS, SNOW) and command.update["misread"]
    assert told(command)["left_out"] == [TWO.question] and told(command)["holds"]["n"] == pytest.approx(0.1)
    assert [(call.stage, call.state) for call in command.update["calls"]] == [("check", "answered")] * 3


async def test_a_misread_reference_is_not_asked_for_as_a_whole(pictures: FolderCollection) -> None:
    def first(misread: bool) -> list[str]:
        state = RerankState(query=QUERY, predicates=(SNOW,), misread=misread, candidates=(Candidate("00.png", 0.5),))
        command = plan(state, Context(Resources(images=pictures), AGENT, None, Account()))
        tasks: list[VerifyTask] = [task for task in command.tasks if isinstance(task, VerifyTask)]
        return [task.predicates[0].kind for task in tasks]

    assert first(False) == ["query"]
    assert first(True) == ["habitat"]


async def test_a_request_that_changes_nothing_is_thought_over_once(pictures: FolderCollection) -> None:
    command = await checked(pictures, ScriptedLMM(lambda _: 0.9))
    assert command.node == "synthesize"
    assert command.update["fault"] == "the change is missing." and command.update["round"] == 1
    once = await checked(pictures, ScriptedLMM(lambda _: 0.9), load_strategy("predicates", prompts="fieldnotes"))
    assert told(once)["unchanged"] and "round" not in once.update


async def test_where_the_change_stays_unread_nothing_is_asked_of_the_candidates(pictures: FolderCollection) -> None:
    again = await checked(pictures, ScriptedLMM(lambda _: 0.9), round=1)
    assert again.node == "assess" and again.update["unread"]
    own = await checked(pictures, ScriptedLMM(lambda _: 0.9), round=1, fixed=(CRABS,))
    assert own.node == "plan" and not own.update["unread"]  # a person's predicates are asked as they are

    class Deaf(Oracle):
        """Reads nothing but the reference."""

        def __init__(self) -> None:
            super().__init__({pictures.pixel_hash(i): facts_of(i) for i in pictures.ids()})
            for prompt in ("synthesize", "synthesize_again"):
                self._answers[prompt] = lambda shown, **_: read_as(FACTS[0])

    shown = ({FACTS[0]}, {FACTS[2]}, {FACTS[0], FACTS[1]})
    reference, match, like = (next(i for i in pictures.ids() if facts_of(i) == facts) for facts in shown)
    query = Query(id="q", text=FACTS[2], reference_image=reference)
    found = await Agent(Resources(images=pictures, lmm=Deaf()), AGENT).rerank(
        query, [Candidate(match, 0.9), Candidate(like, 0.1)]
    )
    assert [candidate.image_id for candidate in found.ranking] == [match, like]
    assert UNREAD in found.flags and found.nothing is None
    assert {verdict.state for verdict in found.verdicts} == {"not_asked"}


async def test_other_requests_pass_unasked(pictures: FolderCollection) -> None:
    lmm = ScriptedLMM({})
    assert (await checked(pictures, lmm, query=Query(id="q", text="two crabs"))).update == {}
    assert (await checked(pictures, lmm, predicates=())).update == {}
    assert lmm.requests == []


async def test_what_can_not_be_asked_stays(pictures: FolderCollection) -> None:
    gone = await checked(pictures, ScriptedLMM({}), query=QUERY.model_copy(update={"reference_image": "gone.png"}))
    assert gone.node == "plan" and "gone.png" in told(gone)["error"] and "predicates" not in gone.update
    failed = await checked(pictures, ScriptedLMM(lambda _: LMMServerError("status 500")))
    assert failed.update["predicates"] == (CRABS, TWO, SNOW) and not told(failed)["unchanged"]
    assert {call.state for call in failed.update["calls"]} == {"unknown"}
    broke = BudgetedLMM(ScriptedLMM({}), Account(Budget(max_calls=0)))
    spent = await checked(pictures, broke)
    assert spent.node == "plan" and {call.state for call in spent.update["calls"]} == {"not_asked"}


async def test_a_caption_that_lies_misleads_nobody(pictures: FolderCollection) -> None:
    """The caption invents a third fact. The candidates that have it are not preferred for it."""
    seen, invented, new = FACTS[0], FACTS[1], FACTS[2]
    reference = next(i for i in pictures.ids() if facts_of(i) == {seen})

    class Liar(Oracle):
        def __init__(self) -> None:
            super().__init__({pictures.pixel_hash(i): facts_of(i) for i in pictures.ids()})
            self._answers["caption"] = lambda shown: f"{seen}, {invented}"

    match, decoy = (next(i for i in pictures.ids() if facts_of(i) == set(f)) for f in ((seen, new), (seen, invented)))
    query = Query(id="q", text=new, reference_image=reference)
    found = await Agent(Resources(images=pictures, lmm=Liar()), AGENT).rerank(
        query, [Candidate(decoy, 0.9), Candidate(match, 0.1)]
    )
    assert [candidate.image_id for candidate in found.ranking] == [match, decoy]
    assert invented not in {predicate.words for predicate in found.predicates}
