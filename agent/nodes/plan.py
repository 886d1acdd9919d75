"""plan: what to ask next, given what is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import accumulate
from typing import Any

import numpy as np

from fieldscope.agent.batched_questions import (
    Questions,
    agreed,
    is_joint,
    is_trusted,
    joint_questions,
    sampled,
    single_questions,
    without_joint,
)
from fieldscope.agent.context import Context
from fieldscope.agent.documents import unasked
from fieldscope.agent.inspection import CloserLook, closer_looks, uninspected
from fieldscope.agent.nodes.score import unscored
from fieldscope.agent.posterior import Belief, believe
from fieldscope.agent.query_text import asked_text
from fieldscope.agent.state import Next, RerankState, VerifyTask
from fieldscope.agent.strategies.verification import Verify
from fieldscope.agent.types import Predicate
from fieldscope.core.looks import Look
from fieldscope.prompts.prompt import Prompt

_SMALLEST_WAVE = 8  # however little is left of a budget


def plan(state: RerankState, context: Context) -> Next:
    """Send the next wave of questions; where nothing is left to ask, or nothing to pay with, go on to assess."""
    verify, account = context.strategy.verify, context.account
    if verify is None:
        return Next("assess")
    if prompt := verify.whole_query:
        parts = tuple(predicate for predicate in state.predicates if predicate.kind != "query")
        # Leaving out a part does not correct a question about a misread reference image as a whole.
        whole = () if state.misread and parts else (whole_query(state, prompt),)
        state = state.model_copy(update={"predicates": (*whole, *parts)})
    if unscored(state, context):
        return Next("score_predicates", {"predicates": state.predicates})
    window = state.widened or verify.top_k or len(state.candidates)
    # A joint question is dearer than a single one, and is sent only where a single one would be.
    left = account.calls_left((1, verify.answer_tokens))
    wave = _next_wave(state, context, verify, window, _most_at_once(verify, left))
    if wave.uninspected and account.empty() is None:
        return Next("inspect", {"predicates": state.predicates})
    tasks = [_task(image_id, asked, state, joint=True) for image_id, asked in wave.joint.items()]
    tasks += [_task(each.image_id, each.predicates, state, look=each.look) for each in wave.single]
    if not tasks:
        return Next("assess", {"predicates": state.predicates})
    if left < 1 or any(verdict.state == "not_asked" for verdict in state.verdicts):
        return Next("assess", {"predicates": state.predicates, "ended": state.ended or "verify"})
    tasks = affordable(tasks, left, verify)
    planned = {
        "wave": state.wave + 1,
        "questions": sum(len(task.predicates) for task in tasks),
        "images": len({task.image_id for task in tasks}),
        **wave.facts,
    }
    update: dict[str, Any] = {
        "wave": state.wave + 1,
        "predicates": state.predicates,
        "trace": (state.event("planned", planned),),
    }
    return Next("verify", update, tuple(tasks))


@dataclass(frozen=True)
class Telling:
    """What to ask about one image, as it is or through a `look`, and by how much that is expected to change its
    P(match)."""

    image_id: str
    predicates: tuple[Predicate, ...]
    value: float = 0.0
    look: Look | None = None


@dataclass(frozen=True)
class _Wave:
    """What to ask about each image at once, and what one at a time; `facts` go into the trace. `uninspected` are the
    images for which looks are to be proposed first."""

    joint: Questions
    single: Sequence[Telling]
    facts: dict[str, Any]
    uninspected: Sequence[str] = ()


def _most_at_once(verify: Verify, left: float) -> int:
    """How many questions a wave has at most, where a budget pays for so many that are `left`."""
    if verify.wave_share is None or math.isinf(left):
        return verify.wave
    return min(verify.wave, max(round(verify.wave_share * left), _SMALLEST_WAVE))


def _next_wave(state: RerankState, context: Context, verify: Verify, window: int, most: int) -> _Wave:
    """All that is open, or with `stop_below` what matters most; at once where the strategy does so, and its joint
    answers are trusted. Closer looks compete with further questions or, where all questions are asked, follow them."""
    joint = verify.joint if is_joint(verify.joint, context.resources.calibration) else None
    sample = sampled(state, window, joint) if joint else set()
    trusted = joint is not None and is_trusted(state, sample, joint)
    # Where joint answers are not trusted, their questions are asked as if they had not been.
    alone = without_joint(state)
    belief = believe(state if trusted else alone, context.resources, context.strategy)
    asking = _without_unasked(belief, state, context, window)
    if verify.stop_below is not None:
        score = context.strategy.score
        first = score.stop_below if score and belief.first_look is not None else None
        single = most_telling(asking, window, verify.stop_below, most, first)
    else:
        single = _open(asking, window)
    left_alone = int((~asking.finished[:window]).any(axis=1).sum()) - len(single)
    facts: dict[str, float | None] = {"left_alone": left_alone}
    together: Questions = {}
    if joint is not None:
        facts = {"joint": 0, "agreed": agreed(state, sample), **facts}
    if joint is not None and trusted:
        asked = [each.image_id for each in single]
        together = joint_questions(state, asked, sample)
        single = [Telling(*each) for each in single_questions(state, asked, sample).items()]
        if not (together or single) and joint.look_again is not None:
            answered_alone = believe(alone, context.resources, context.strategy).finished
            unsure = replace(belief, finished=answered_alone | ~belief.finished)
            single = most_telling(unsure, window, joint.look_again, most)
        facts |= {"joint": len(together)}
    inspect = context.strategy.inspect
    compete = verify.stop_below is not None and joint is None
    blind = inspect is not None and inspect.regions > 0 and context.resources.regions is None
    if inspect is None or blind or together or (single and not compete):
        return _Wave(together, single, facts)
    if pending := uninspected(state, belief, inspect, window):
        return _Wave({}, (), facts, pending)
    closer = closer_looks(state, belief, inspect, verify, window)
    at_once = max(most, len(closer)) if inspect.always else most
    single = _largest(single, closer, max(at_once, len(single)))
    return _Wave({}, single, facts | {"looks": sum(each.look is not None for each in single)})


def _without_unasked(belief: Belief, state: RerankState, context: Context, window: int) -> Belief:
    """The belief with nothing left to ask about candidates that are not asked about, whatever the budget."""
    untouched = {belief.candidates[i].image_id: i for i in np.flatnonzero(belief.unasked[:window])}
    images, verify = context.resources.images, context.strategy.verify
    left_out = [untouched[name] for name in unasked(images, state.query.modality, untouched, verify)]
    if not left_out:
        return belief
    finished = belief.finished.copy()
    finished[left_out] = True
    return replace(belief, finished=finished)


def _largest(questions: Sequence[Telling], closer: Sequence[CloserLook], most: int) -> list[Telling]:
    """At most `most` of both, those that are expected to change P(match) most first; of a question about the picture as
    it is and a look at the same image only the larger."""
    value = {each.image_id: each.value for each in questions}
    looks = [each for each in closer if each.value > value.get(each.image_id, 0.0)]
    looked_at = {each.image_id for each in looks}
    kept = [each for each in questions if each.image_id not in looked_at]
    kept += [Telling(each.image_id, each.predicates, each.value, each.look) for each in looks]
    return sorted(kept, key=lambda each: -each.value)[: max(most, 0)]


def whole_query(state: RerankState, prompt: Prompt) -> Predicate:
    """The question about everything at once. A text query is asked in its own words, whatever was made of them; other
    requests as they were thought out, so that their question is another one after another thought."""
    query, text = state.query, asked_text(state.query, state.synthesis)
    plain = query.reference_image is None and not query.dialogue
    name = "query" if plain or not state.synthesis else f"query-{sha256(text.encode()).hexdigest()[:8]}"
    return Predicate(id=name, question=prompt.render(query=text), words=text)


def most_telling(
    belief: Belief, window: int, stop_below: float, most: int, first: float | None = None
) -> list[Telling]:
    """At most one question for each of `most` images: those expected to change P(match) most, the largest first.

    Where a predicate passes with probability q, an image's P(match) becomes P / q or, when it fails, about nothing, so
    the expected change is 2 P (1 - q). A match passes everything, so q is at least P; of the question about the whole
    query it is P, and so that one leads. Images whose greatest change is below `stop_below` can't reach the head any
    more, or are sure of their place in it. `first` is the least change for images about which nothing was asked, where
    it is another one.
    """
    p_match = belief.p_told[:window, np.newaxis]
    passes = np.where(belief.whole, p_match, np.maximum(belief.holds[:window], p_match))
    change = 2.0 * p_match * (1.0 - passes)
    change = np.where(belief.finished[:window] | belief.past_asking[:window], 0.0, change)
    if change.size == 0:
        return []
    best = change.argmax(axis=1)
    value = change[np.arange(len(change)), best]
    least = np.where(belief.unasked[:window], stop_below if first is None else first, stop_below)
    order = np.argsort(-value, kind="stable")
    chosen = [i for i in order if value[i] >= least[i]][: max(most, 0)]
    return [Telling(belief.candidates[i].image_id, (belief.predicates[best[i]],), float(value[i])) for i in chosen]


def affordable(tasks: Sequence[VerifyTask], calls: float, verify: Verify) -> list[VerifyTask]:
    """The first tasks that `calls` pay for, the last one perhaps in part: the budget's choice of questions
    is made here, and does not depend on which task calls the model first. A question that takes several calls is paid
    for with the most that it may take; the very first is sent with what is left of a budget."""
    paid: list[VerifyTask] = []
    for task in tasks:
        costs = [1] if task.joint else [verify.most_calls(predicate.kind) for predicate in task.predicates]
        if sum(costs) > calls:
            number = sum(total <= calls for total in accumulate(costs)) or int(not paid)
            asked = task.predicates[:number]
            return [*paid, task.model_copy(update={"predicates": asked})] if asked and not task.joint else paid
        paid.append(task)
        calls -= sum(costs)
    return paid


def _open(belief: Belief, window: int) -> list[Telling]:
    """Every question without an answer; the one that the fewest images are expected to pass leads."""
    lead = np.argsort(belief.pass_rates, kind="stable")
    asked = {
        candidate.image_id: tuple(belief.predicates[k] for k in lead if not belief.finished[i, k])
        for i, candidate in enumerate(belief.candidates[:window])
    }
    return [Telling(image_id, questions) for image_id, questions in asked.items() if questions]


def _task(
    image_id: str,
    predicates: tuple[Predicate, ...],
    state: RerankState,
    joint: bool = False,
    look: Look | None = None,
) -> VerifyTask:
    return VerifyTask(
        query=asked_text(state.query, state.synthesis),
        kind=state.query.modality,
        reference=state.query.reference_image,
        predicates=predicates,
        image_id=image_id,
        joint=joint,
        look=look,
        wave=state.wave + 1,
        started=state.started,
    )
