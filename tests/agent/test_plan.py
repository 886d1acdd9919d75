"""What is asked next: the most telling question first, nothing twice, and nothing that the budget can't pay."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.batched_questions import agreed
from fieldscope.agent.budget import Account, Budget
from fieldscope.agent.calibration import Calibration
from fieldscope.agent.context import Context
from fieldscope.agent.nodes.assess import assess, contradicted
from fieldscope.agent.nodes.plan import plan
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import Next, RerankState, VerifyTask
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import Predicate, Synthesis, Verdict
from fieldscope.core.types import Candidate, Query

CRAB = Predicate(id="s", question="is there a crab?", kind="subject", words="crab")
RED = Predicate(id="c", question="is the crab red?", kind="colour", words="red")
RATES = Calibration(prior_weight=0.5, pass_rates={"query": 0.2, "subject": 0.8, "colour": 0.3})


class NoImages:
    def load(self, image_id):
        raise NotImplementedError

    def pixel_hash(self, image_id):
        raise NotImplementedError


DEPS = Resources(images=NoImages(), calibration=RATES)


def verify_with(strategy: Strategy, **settings: object) -> Strategy:
    assert strategy.verify is not None
    return strategy.model_copy(update={"verify": strategy.verify.model_copy(update=settings)})


WHOLE, ALL_WITH_WHOLE = load_strategy("agent", prompts="fieldnotes"), load_strategy("predicates", prompts="fieldnotes")
AGENT, ALL = verify_with(WHOLE, whole=None), verify_with(ALL_WITH_WHOLE, whole=None)


def joint_strategy(of: Strategy = ALL, **more: object) -> Strategy:
    data = of.model_dump()
    data["verify"]["joint"] = {"prompt": "ask_joint", "sample": 0.2, "agreement": 0.8, **more}
    return Strategy.model_validate(data)


def said(image_id: str, predicate: Predicate, p: float | None, *, joint: bool = False) -> Verdict:
    return Verdict(
        predicate=predicate.id, image_id=image_id, state="unknown" if p is None else "answered", p_yes=p,
        p_expected=p, joint=joint,
    )  # fmt: skip


def state(*verdicts: Verdict, images: int = 6, **more: object) -> RerankState:
    return RerankState(
        query=Query(id="q", text="a red crab"),
        candidates=tuple(Candidate(f"i{n}", 1.0 - n / 10) for n in range(images)),
        predicates=(CRAB, RED),
        verdicts=verdicts,
        **more,  # type: ignore[arg-type]
    )


def planned(now: RerankState, strategy: Strategy, budget: Budget | None = None) -> list[VerifyTask]:
    command = plan(now, Context(DEPS, strategy, None, Account(budget)))
    return [] if command.node == "assess" else [task for task in command.tasks if isinstance(task, VerifyTask)]


def test_without_early_stop_every_question_is_sent_once_the_rarest_yes_first() -> None:
    tasks = planned(state(), ALL)
    assert [task.image_id for task in tasks] == [f"i{n}" for n in range(6)]
    assert all(task.predicates == (RED, CRAB) for task in tasks)
    some = planned(state(said("i0", RED, 0.9), said("i0", CRAB, 0.9), said("i1", RED, None)), ALL)
    assert [(t.image_id, t.predicates) for t in some[:2]] == [("i1", (CRAB,)), ("i2", (RED, CRAB))]


def test_the_first_wave_asks_what_most_images_fail_of_the_likeliest_images() -> None:
    tasks = planned(state(), verify_with(AGENT, wave=3))
    assert [(task.image_id, task.predicates) for task in tasks] == [(f"i{n}", (RED,)) for n in range(3)]


def test_an_image_that_failed_is_asked_no_more_and_one_that_passed_is() -> None:
    verdicts = [said(f"i{n}", RED, 0.00001) for n in range(5)] + [said("i5", RED, 0.99)]
    tasks = planned(state(*verdicts), AGENT)
    assert [(task.image_id, task.predicates) for task in tasks] == [("i5", (CRAB,))]


def test_the_whole_query_is_asked_first_and_in_its_own_words() -> None:
    (lead, *parts), *_ = (task.predicates for task in planned(state(), ALL_WITH_WHOLE))
    assert (lead.id, lead.kind, lead.words) == ("query", "query", "a red crab") and "a red crab" in lead.question
    assert parts == [RED, CRAB]
    assert [task.predicates for task in planned(state(), WHOLE)] == [(lead,)] * 6
    answers = [said(f"i{n}", lead, 0.00001) for n in range(5)] + [said("i5", lead, 0.9)]
    lead_now, *_ = planned(state(*answers), WHOLE)
    assert (lead_now.image_id, lead_now.predicates) == ("i5", (RED,))


def test_another_thought_asks_another_whole_question() -> None:
    thought = Synthesis(thought="", core="a crab", detailed="a red crab", comprehensive="a red crab on snow")
    composed = Query(id="q", text="make it snow", reference_image="i0")
    now = state(synthesis=thought).model_copy(update={"query": composed})
    (lead, *_), *_ = (task.predicates for task in planned(now, ALL_WITH_WHOLE))
    assert lead.words == "a red crab on snow" and lead.id.startswith("query-")
    again = now.model_copy(update={"predicates": (lead, CRAB), "verdicts": (said("i0", lead, 0.9),)})
    other = again.model_copy(update={"synthesis": thought.model_copy(update={"comprehensive": "a blue crab on snow"})})
    asked, anew = ({(t.image_id, t.predicates[0].id) for t in planned(s, ALL_WITH_WHOLE)} for s in (again, other))
    assert ("i0", lead.id) not in asked and ("i1", lead.id) in asked
    assert lead.id not in {name for _, name in anew} and len(anew) == 6


def test_the_window_bounds_what_is_asked_until_a_round_widens_it() -> None:
    narrow = verify_with(ALL, top_k=2)
    assert len(planned(state(), narrow)) == 2
    assert len(planned(state(widened=5), narrow)) == 5


def test_a_budget_is_spent_in_waves_of_a_quarter_so_that_answers_decide_what_follows() -> None:
    many = state(images=80)
    sizes = [len(planned(many, AGENT, limit and Budget(max_calls=limit))) for limit in (None, 4000, 100, 20, 5)]
    assert sizes == [64, 64, 25, 8, 5]
    whole = verify_with(AGENT, wave_share=None)
    assert len(planned(many, whole, Budget(max_calls=20))) == 20


def test_an_empty_account_ends_the_questions_and_a_small_one_shortens_the_wave() -> None:
    assert len(planned(state(), AGENT, Budget(max_calls=2))) == 2
    assert planned(state(), ALL, Budget(max_calls=0)) == []
    refused = Verdict(predicate="s", image_id="i0", state="not_asked")
    assert planned(state(refused), ALL) == []


@given(st.lists(st.sampled_from([None, 0.01, 0.5, 0.99]), min_size=12, max_size=12), st.integers(0, 12))
def test_waves_end_and_never_repeat_a_question(answers: list[float | None], first: int) -> None:
    script = {(f"i{n // 2}", (CRAB, RED)[n % 2].id): p for n, p in enumerate(answers)}
    now, asked = state(), []
    for _ in range(13):
        tasks = planned(now, AGENT)
        if not tasks:
            break
        new = [said(t.image_id, p, script[t.image_id, p.id]) for t in tasks for p in t.predicates]
        asked += [(v.image_id, v.predicate) for v in new]
        now = now.model_copy(update={"verdicts": (*now.verdicts, *new)})
    else:
        pytest.fail("it goes on and on")
    assert len(set(asked)) == len(asked)


def answers_to(
    tasks: Sequence[VerifyTask], alone: float, together: float = 0.9, unread: Collection[str] = ()
) -> list[Verdict]:
    """The verdicts on all questions of a wave; joint ones about `unread` images can't be read."""
    return [
        said(t.image_id, p, None if t.joint and t.image_id in unread else together if t.joint else alone, joint=t.joint)
        for t in tasks
        for p in t.predicates
    ]


def test_joint_questions_are_checked_on_a_sample_and_trusted_if_their_probabilities_agree() -> None:
    strategy = joint_strategy()
    tasks = planned(state(images=20), strategy)
    joint, single = ([t for t in tasks if t.joint is way] for way in (True, False))
    sample = {t.image_id for t in single}
    assert len(joint) == 20 and len(sample) == 4
    good = state(*answers_to(tasks, alone=0.75), images=20)
    assert agreed(good, sample) == pytest.approx(0.85) and planned(good, strategy) == []
    bad = state(*answers_to(tasks, alone=0.6), images=20)  # both say yes, but one is much surer
    assert agreed(bad, sample) == pytest.approx(0.7)
    assert {task.image_id for task in planned(bad, strategy)} == {f"i{n}" for n in range(20)} - sample


def test_the_rest_of_the_sample_is_asked_about_only_where_the_first_ones_agree_too_little() -> None:
    strategy = joint_strategy(sample_first=2)
    tasks = planned(state(images=20), strategy)
    first = {t.image_id for t in tasks if not t.joint}
    assert len(first) == 2
    assert planned(state(*answers_to(tasks, alone=0.75), images=20), strategy) == []
    doubtful = answers_to(tasks, alone=0.6)
    rest = planned(state(*doubtful, images=20), strategy)
    sample = first | {t.image_id for t in rest}
    assert len(sample) == 4 and not any(t.joint for t in rest)
    cleared = state(*doubtful, *answers_to(rest, alone=0.95), images=20)
    assert agreed(cleared, first) == pytest.approx(0.7) and planned(cleared, strategy) == []
    damned = state(*doubtful, *answers_to(rest, alone=0.6), images=20)
    assert {t.image_id for t in planned(damned, strategy)} == {f"i{n}" for n in range(20)} - sample


def test_the_whole_query_is_asked_first_among_its_predicates_and_in_the_sample_they_are_shuffled() -> None:
    strategy = joint_strategy(ALL_WITH_WHOLE)
    many = [RED.model_copy(update={"id": word, "question": f"is it {word}?"}) for word in ("red", "old", "wet", "big")]
    now = state(images=20).model_copy(update={"predicates": tuple(many)})
    tasks = planned(now, strategy)
    sample = {t.image_id for t in tasks if not t.joint}
    orders = {t.image_id: t.predicates for t in tasks if t.joint}
    assert all(order[0].kind == "query" and set(order[1:]) == set(many) for order in orders.values())
    assert {orders[i][1:] for i in orders.keys() - sample} == {tuple(many)}
    assert len({orders[i] for i in sample}) > 1
    assert planned(now, strategy) == tasks


def test_what_a_joint_answer_left_open_is_asked_alone() -> None:
    strategy = joint_strategy()
    tasks = planned(state(), strategy)
    sampled = {t.image_id for t in tasks if not t.joint}
    verdicts = answers_to(tasks, alone=0.9, unread={"i4"})
    assert {t.image_id for t in planned(state(*verdicts), strategy)} == {"i4"} - sampled


def test_joint_questions_come_in_waves_and_only_where_an_answer_matters() -> None:
    strategy = joint_strategy(verify_with(ALL, stop_below=0.01, wave=3))
    first = planned(state(), strategy)
    assert {t.image_id for t in first if t.joint} == {"i0", "i1", "i2"}
    assert {t.image_id for t in first if not t.joint} <= {"i0", "i1", "i2"}
    now = state(*answers_to(first, alone=0.9))
    second = planned(now, strategy)
    assert {t.image_id for t in second if t.joint} == {"i3", "i4", "i5"}
    rest = state(*answers_to([*first, *second], alone=0.9))
    assert planned(rest, strategy) == []


def test_a_doubtful_joint_answer_is_asked_again_alone_and_is_no_witness_against_the_others() -> None:
    strategy = joint_strategy(look_again=0.05)
    tasks = planned(state(images=20), strategy)
    sample = {t.image_id for t in tasks if not t.joint}
    doubtful = next(t.image_id for t in tasks if t.image_id not in sample)
    verdicts = [v for v in answers_to(tasks, 0.001, together=0.001) if not (v.joint and v.image_id == doubtful)]
    verdicts += [said(doubtful, p, 0.6, joint=True) for p in (CRAB, RED)]
    again = planned(state(*verdicts, images=20), strategy)
    assert {t.image_id for t in again} == {doubtful} and not any(t.joint for t in again)
    refuted = state(*verdicts, *answers_to(again, alone=0.001), images=20)
    assert planned(refuted, strategy) == [] and agreed(refuted, sample) == 1.0
    assert planned(state(*verdicts, images=20), joint_strategy()) == []


def test_questions_are_asked_together_where_the_calibration_says_that_it_pays() -> None:
    strategy = joint_strategy(use="calibrated")
    for calibration, together in (
        (None, False),
        (Calibration(joint_loss=0.02), False),
        (Calibration(joint_loss=0.001), True),
    ):
        resources = Resources(DEPS.images, calibration=calibration)
        tasks = plan(state(), Context(resources, strategy, None, Account())).tasks
        assert any(isinstance(task, VerifyTask) and task.joint for task in tasks) is together


def goes(now: RerankState, strategy: Strategy = AGENT, budget: Budget | None = None) -> Next:
    return assess(now, Context(DEPS, strategy, None, Account(budget)))  # type: ignore


def test_confirmed_candidates_need_no_second_thought() -> None:
    now = state(*[said(f"i{n}", p, 0.99 if n < 2 else 0.01) for n in range(6) for p in (CRAB, RED)])
    assert goes(now).node == "pair"


def test_too_few_confirmed_are_thought_over_once_and_the_trace_says_so() -> None:
    now = state(*[said(f"i{n}", p, 0.3) for n in range(6) for p in (CRAB, RED)])
    command = goes(now)
    assert command.node == "synthesize" and command.update["fault"] == "too few images match."
    assert [event.kind for event in command.update["trace"]] == ["assessed", "refined"]
    assert goes(now.model_copy(update={"round": 1})).node == "pair"
    assert goes(now, budget=Budget(max_calls=0)).node == "pair"
    assert goes(now, ALL).node == "rank"


def test_a_question_that_nobody_passes_is_wanting() -> None:
    verdicts = [said(f"i{n}", RED, 0.01) for n in range(12)] + [said(f"i{n}", CRAB, 0.9) for n in range(12)]
    command = goes(state(*verdicts, images=12))
    assert command.node == "synthesize" and "tell the images apart" in command.update["fault"]


def test_contradictions_are_counted_by_image() -> None:
    verdicts = [said("i0", CRAB, 0.05), said("i0", RED, 0.95), said("i1", CRAB, 0.95), said("i1", RED, 0.95)]
    assert contradicted(state(*verdicts)) == 0.5
    another = RED.model_copy(update={"question": "is the crabwort red?"})
    assert contradicted(state(*verdicts).model_copy(update={"predicates": (CRAB, another)})) == 0.0
    removal = RED.model_copy(update={"expected": "no"})
    assert contradicted(state(*verdicts).model_copy(update={"predicates": (CRAB, removal)})) == 0.0


def test_a_narrow_window_is_widened() -> None:
    now = state(*[said(f"i{n}", p, 0.3) for n in range(2) for p in (CRAB, RED)])
    command = goes(now, verify_with(AGENT, top_k=2))
    assert command.update["widened"] == 3
