"""plan: what to ask next. It sends one wave of questions, sees the verdicts, and plans again until nothing remains."""

from __future__ import annotations

import time
from typing import Any, Literal

from langgraph.types import Command, Send

from agent.state import RerankState, VerifyTask
from agent.strategies.strategy import Strategy
from agent.types import Predicate, TraceEvent
from core.types import Query
from prompts.prompt import Prompt


def whole_query(query: Query, prompt: Prompt) -> Predicate:
    """The query as one question. Its text is all of a query that reaches a prompt."""
    return Predicate(id="query", question=prompt.render(query=query.text), words=query.text)


def plan(state: RerankState, *, strategy: Strategy) -> Command[Literal["verify", "rank"]]:
    """Send every question of the window that has no verdict yet, best prior first; where none is left, go to rank."""
    if strategy.verify is None:
        return Command(goto="rank")
    predicates = state.predicates or (whole_query(state.query, strategy.verify.prompt),)
    judged = {(verdict.image_id, verdict.predicate) for verdict in state.verdicts}
    wave = state.wave + 1
    tasks = [
        VerifyTask(predicate=predicate, image_id=candidate.image_id, wave=wave, started=state.started)
        for candidate in state.candidates[: strategy.verify.top_k]
        for predicate in predicates
        if (candidate.image_id, predicate.id) not in judged
    ]
    if not tasks:
        return Command(goto="rank")
    planned = {"wave": wave, "questions": len(tasks), "images": len({task.image_id for task in tasks})}
    update: dict[str, Any] = {
        "wave": wave,
        "predicates": predicates,
        "trace": (TraceEvent(kind="planned", at=time.monotonic() - state.started, data=planned),),
    }
    return Command(update=update, goto=[Send("verify", task) for task in tasks])
