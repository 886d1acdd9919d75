"""verify: questions about one image. What fails is an unknown verdict, never a "no"."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fieldscope.agent.call import ask, image_parts, one_line
from fieldscope.agent.context import Context
from fieldscope.agent.documents import ShownDocument, about_document, shown_document
from fieldscope.agent.json_answer import ask_structured
from fieldscope.agent.lmm.base import LMM, ImagePart
from fieldscope.agent.lmm.joint_answer import read_answers
from fieldscope.agent.requests import joint_request, question, reasoned_question
from fieldscope.agent.schemas import AnswersAnswer
from fieldscope.agent.state import VerifyTask
from fieldscope.agent.strategies.verification import Joint, Verify
from fieldscope.agent.types import Call, Draw, Predicate, Verdict
from fieldscope.agent.verdicts import read_draw, verdict_of
from fieldscope.core.errors import ImageError
from fieldscope.core.looks import look_id


async def judge(lmm: LMM, predicate: Predicate, images: Sequence[ImagePart], settings: Verify) -> Verdict:
    """Ask as often as the settings say, let the model think first where they say so, and read P(yes). A call that fails
    and an answer that can't be read are unknown. The verdict is on the last of the `images` that are shown."""
    shown = images[-1].image_id if images else ""
    mode, reason = settings.mode, settings.reason

    async def plain(sample: int) -> Draw:
        answer = await ask(lmm, question(predicate, images, settings, sample))
        return read_draw(answer, mode, sample=sample)

    async def thoughtful(sample: int) -> Draw:
        request = reasoned_question(predicate, images, settings, sample)
        return read_draw(await ask(lmm, request), mode, sample=sample, reasoned=True, answer_after=request.answer_after)

    draws = await _each(plain, settings.plain_calls(predicate.kind))
    if reason and (thoughts := settings.thoughts(predicate.kind)):
        first = verdict_of(draws, predicate, shown, mode).p_yes if draws else None
        if reason.is_uncertain(first):
            draws += await _each(thoughtful, thoughts)
    return verdict_of(draws, predicate, shown, mode)


async def _each(draw: Callable[[int], Awaitable[Draw]], number: int) -> list[Draw]:
    """So many draws: the first one leads, so that a server that caches prefixes reads the image once."""
    lead = [await draw(sample) for sample in range(min(number, 1))]
    if number <= 1:
        return lead
    return [*lead, *await asyncio.gather(*(draw(sample) for sample in range(1, number)))]


async def judge_jointly(
    lmm: LMM, predicates: Sequence[Predicate], image: ImagePart, joint: Joint
) -> tuple[list[Verdict], tuple[Call, ...]]:
    """Ask everything about an image at once, and read P(yes) at the place of each answer. A verdict for each question,
    in order; those that can't be read are unknown, and all are where there is no answer for each."""
    request = joint_request(predicates, image, joint)
    said = await ask_structured(lmm, request, AnswersAnswer, joint.repairs, "joint", prompt=joint.prompt)
    answers = said.value.answers if said.value else ()
    error = said.error
    if said.value and len(answers) != len(predicates):
        error = f"{len(answers)} answers to {len(predicates)} questions"
    known: dict[str, Any] = {"image_id": image.image_id, "joint": True}
    if error:
        refused = bool(said.calls) and said.calls[-1].state == "not_asked"
        known |= {"state": "not_asked" if refused else "unknown", "error": error}
        return [Verdict(predicate=predicate.id, **known) for predicate in predicates], said.calls
    known |= {"cached": said.calls[-1].cached, "request_key": said.calls[-1].request_key}
    verdicts = []
    for predicate, answer, read in zip(predicates, answers, read_answers(said.tokens, answers), strict=True):
        about = known | {"predicate": predicate.id, "answer": answer, "state": read.state}
        if read.p_yes is None:
            verdicts.append(Verdict(**about, error=read.reason))
        else:
            verdicts.append(Verdict(**about, p_yes=read.p_yes, p_expected=_expected(read.p_yes, predicate)))
    return verdicts, said.calls


async def verify(task: VerifyTask, context: Context) -> dict[str, Any]:
    """One task of a wave: the verdicts on one image, and its event."""
    settings, lmm = context.asking(context.strategy.verify)
    settings = context.worded(settings, task.query)
    images = context.resources.images
    try:
        if settings.documents is not None and all(predicate.kind == "query" for predicate in task.predicates):
            document = await shown_document(images, shown_id(task))
            reference = await image_parts(images, [task.reference] if task.reference else [])
            return await _verify_document(task, document, next(iter(reference), None), lmm, settings)
        (image,) = await image_parts(images, [shown_id(task)])
    except ImageError as error:
        return failed(task, one_line(error))
    if task.joint and settings.joint:
        verdicts, calls = await judge_jointly(lmm, task.predicates, image, settings.joint)
        return {**_update(task, verdicts), "calls": calls}
    lead, *rest = task.predicates
    verdicts = [await judge(lmm, lead, [image], settings)]
    if rest:
        verdicts += await asyncio.gather(*(judge(lmm, predicate, [image], settings) for predicate in rest))
    return _update(task, verdicts)


async def _verify_document(
    task: VerifyTask, document: ShownDocument, reference: ImagePart | None, lmm: LMM, settings: Verify
) -> dict[str, Any]:
    """The whole query about a document, by the prompt for what both are."""
    verdicts = []
    for predicate in task.predicates:
        own, images, worded = about_document(predicate, task.kind, document, reference, settings)
        verdicts.append(await judge(lmm, own, images, worded))
    return _update(task, verdicts)


def shown_id(task: VerifyTask) -> str:
    """The id of the image as the model is to see it."""
    return look_id(task.image_id, task.look) if task.look else task.image_id


def failed(task: VerifyTask, error: str) -> dict[str, Any]:
    """The update of a task that failed as a whole: its verdicts are unknown."""
    verdicts = [
        Verdict(predicate=p.id, image_id=task.image_id, state="unknown", error=error, joint=task.joint)
        for p in task.predicates
    ]
    return _update(task, verdicts)


def _expected(p: float, predicate: Predicate) -> float:
    return p if predicate.expected == "yes" else 1.0 - p


def _update(task: VerifyTask, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    verdicts = [
        verdict
        if (verdict.image_id, verdict.look) == (task.image_id, task.look)
        else verdict.model_copy(update={"image_id": task.image_id, "look": task.look})
        for verdict in verdicts
    ]
    data = {
        "wave": task.wave,
        "image_id": task.image_id,
        **({"look": task.look.shows} if task.look else {}),
        "predicates": [verdict.predicate for verdict in verdicts],
        "states": dict(Counter(verdict.state for verdict in verdicts)),
        "cached": sum(verdict.cached for verdict in verdicts),
        "tokens": sum(verdict.prompt_tokens + verdict.completion_tokens for verdict in verdicts),
    }
    event = task.event("verified", data)
    return {"verdicts": tuple(verdicts), "trace": (event,)}
