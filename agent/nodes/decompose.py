"""decompose: from atomic instructions to predicates, each a yes/no question with the answer that a match must give."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Literal

from fieldscope.agent.call import as_sent, spent
from fieldscope.agent.context import Context
from fieldscope.agent.json_answer import ask_structured
from fieldscope.agent.query_text import asked_text, last_asked, own_words
from fieldscope.agent.requests import predicates_request
from fieldscope.agent.schemas import PredicatesAnswer
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.predicates import GivenPredicate
from fieldscope.agent.strategies.query_stages import Decompose
from fieldscope.agent.types import Instruction, Predicate, Synthesis
from fieldscope.core.errors import ConfigError

_NEGATION = re.compile(r"\b(?:without|with no|no|not)\b", re.IGNORECASE)
_STATES_ABSENCE = re.compile(r"\b(?:alone|only|free of|nothing but)\b", re.IGNORECASE)  # there is no positive of it


async def decompose(state: RerankState, context: Context) -> dict[str, Any]:
    """The predicates that were given, or else those of the synthesis. Where no usable answer comes, each instruction is
    asked as it stands; where the synthesis itself is a fallback, there is nothing to take apart and the whole is one
    question, unless the strategy asks that anyway.

    In a later round a question that was there before keeps its id, and so its verdicts; one that is gone is dropped.
    """
    if state.fixed:
        return _update(state, *_different(state.fixed, len(state.fixed)), given=True)
    strategy, synthesis = context.strategy, state.synthesis
    settings, lmm = context.asking(strategy.decompose)
    if synthesis is None:
        raise ConfigError("decompose needs what synthesize thought out; run synthesize before it")
    own = settings.query is not None
    settings = settings.about(last_asked(state.query, strategy.by_turns) if own else asked_text(state.query, synthesis))
    if synthesis.fallback is not None:
        why = f"the request was not thought out: {synthesis.fallback}"
        if strategy.verify is not None and strategy.verify.whole is not None:
            return _update(state, [], why=why)
        whole = settings.prompt.form("matches", query=synthesis.comprehensive)
        return _update(state, [predicate(whole, words=state.query.text)], why=why)
    request = predicates_request(synthesis.instructions, settings)
    last = next((call for call in reversed(state.calls) if call.stage == "decompose"), None)
    if last and last.state == "answered" and last.request_key == as_sent(lmm, request).key(lmm.identity):
        return _update(state, state.predicates)  # they come from these very instructions
    said = await ask_structured(
        lmm, request, PredicatesAnswer, settings.repairs, "decompose", grows=True, prompt=settings.prompt
    )
    plain = [_from_instruction(instruction, settings) for instruction in synthesis.instructions]
    asked = _from_model(said.value, state, synthesis) if said.value else plain
    predicates, dropped = _different(asked, settings.max_predicates)
    return {**_update(state, predicates, dropped, said.error, spent(said.calls)), "calls": said.calls}


def predicate(question: str, expected: Literal["yes", "no"] = "yes", kind: str = "query", words: str = "") -> Predicate:
    """A predicate whose id is its question's and its expected answer's own, in every round and run."""
    digest = sha256(f"{_normalised(question)} {expected}".encode()).hexdigest()
    return Predicate(id=f"p-{digest[:8]}", question=question, expected=expected, kind=kind, words=words)


def fixed_predicates(given: Iterable[GivenPredicate]) -> tuple[Predicate, ...]:
    """A person's own questions as predicates. The weight is no part of the id, so that it changes no question."""
    return tuple(
        predicate(each.question.strip(), each.expected, "other").model_copy(update={"weight": each.weight})
        for each in given
    )


def _from_model(said: PredicatesAnswer, state: RerankState, synthesis: Synthesis) -> list[Predicate]:
    """As the model has them. Words that the request does not say are replaced by those of the instruction, where there
    is one question for each."""
    paired = len(said.predicates) == len(synthesis.instructions)
    return [
        predicate(
            p.question,
            p.expected,
            p.type,
            own_words(p.words, state.query, state.caption) or (synthesis.instructions[n].words if paired else ""),
        )
        for n, p in enumerate(said.predicates)
    ]


def _from_instruction(instruction: Instruction, settings: Decompose) -> Predicate:
    """The instruction as a question. What must be absent is asked for positively, and the answer must be no."""
    text = instruction.text.strip(" .?!")
    kind = {"removal": "absence", "comparison": "comparison"}.get(instruction.type, "other")
    if kind == "absence" and (_NEGATION.search(text) or not _STATES_ABSENCE.search(text)):
        return predicate(settings.prompt.form("shows", text=_positive(text)), "no", kind, instruction.words)
    return predicate(settings.prompt.form("shows", text=text), "yes", kind, instruction.words)


def _positive(text: str) -> str:
    """ "a crab without plastic" to "a crab with plastic", "no plastic" to "plastic"."""

    def affirm(negation: re.Match[str]) -> str:
        return "with" if negation[0].lower().startswith("with") and negation.start() else ""

    return " ".join(_NEGATION.sub(affirm, text).split()) or text


def _different(predicates: Iterable[Predicate], most: int) -> tuple[list[Predicate], list[str]]:
    """The first `most` different questions, and what was left out and why."""
    kept: dict[str, Predicate] = {}
    dropped = []
    for candidate in predicates:
        question = _normalised(candidate.question)
        if first := kept.get(question):
            again = "asked twice" if first.expected == candidate.expected else "asked before with the other answer"
            dropped.append(f"{candidate.question} ({again})")
        elif len(kept) == most:
            dropped.append(f"{candidate.question} (more than {most} questions)")
        else:
            kept[question] = candidate
    return list(kept.values()), dropped


def _normalised(question: str) -> str:
    return " ".join(question.casefold().split()).rstrip(" ?.!")


def _update(
    state: RerankState,
    predicates: Iterable[Predicate],
    dropped: Iterable[str] = (),
    why: str | None = None,
    cost: dict[str, Any] | None = None,
    given: bool = False,
) -> dict[str, Any]:
    """A question asked before stays the very one that was asked; `why` the predicates are a fallback, if they are;
    whether they were `given`."""
    before = {p.id: p for p in state.predicates}
    now = tuple(before.get(p.id, p) for p in predicates)
    data = {
        "round": state.round,
        "predicates": len(now),
        "new": {p.id: f"{p.question} {p.expected}" for p in now if p.id not in before},
        "gone": sorted(before.keys() - {p.id for p in now}),
        "left_out": list(dropped),
        "fallback": why,
        **({"given": True} if given else {}),
        **(cost or spent(())),
    }
    event = state.event("decomposed", data)
    return {"predicates": now, "trace": (event,)}
