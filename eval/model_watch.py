"""Notices a model that gives no answers."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from fieldscope.agent.types import Asked, Call, Comparison, Draw, ImageScore, Reason, RerankResult, Verdict
from fieldscope.agent.usage import SCORER, call_name
from fieldscope.core.errors import LMMError

PATIENCE = 20
"""So many failed calls end a run, if they are all calls of several queries."""


class ModelWatch:
    """Ends a run one of whose models, its scoring model among them, gives no answers, so that a dead server does not
    cost a run's worth of retries.

    `models` says which model answers which kind of call, by the name under which that is counted; where it is empty one
    model answers all. `before` are the results of earlier processes.
    """

    def __init__(self, strategy: str, before: Iterable[RerankResult], models: Mapping[str, str]) -> None:
        self._models = models
        before = list(before)
        self._watches = {
            model: _OneModel(self._name(strategy, model), [self._asked(result, model) for result in before])
            for model in dict.fromkeys(models.values()) or [""]
        }
        self._scorer = _OneModel(f"{strategy}, {SCORER}", [result.scores for result in before])

    def add(self, result: RerankResult, readable: Container[str]) -> None:
        """Count a query's answers. Raises `LMMError` where a model has failed too often."""
        for model, watch in self._watches.items():
            watch.add(self._asked(result, model), readable)
        self._scorer.add(result.scores, readable)

    def require_answers(self) -> None:
        """Raise `LMMError` where a model was asked and never gave an answer, unless candidates were judged by answers
        from the cache: then the run has its result."""
        for watch in (*self._watches.values(), self._scorer):
            watch.require_answers()

    def _asked(self, result: RerankResult, model: str) -> list[Asked]:
        """The questions of a query that a model was asked."""
        return [question for question in result.asked if self._models.get(call_name(question), "") in (model, "")]

    def _name(self, strategy: str, model: str) -> str:
        return f"{strategy}, {model}" if len(set(self._models.values())) > 1 else strategy


class _OneModel:
    """Watches one model, which was asked the questions `before`, query by query.

    A model may refuse a single query, so it takes several queries in a row, or a whole run. Where candidates were asked
    about, only those questions count: a server that writes texts but returns no probabilities is of no use.
    """

    def __init__(self, name: str, before: Iterable[Sequence[Asked]]) -> None:
        self._name = name
        self._answers = any(_answered(_decisive(asked)) for asked in before)
        self._judged = False
        self._failed_calls = 0
        self._failed_queries = 0
        self._reason = ""

    def add(self, asked: Sequence[Asked], readable: Container[str]) -> None:
        """Count a query's answers. Raises `LMMError` where the model has failed too often.

        Unreadable images are no fault of the model, and cached answers are not the model's. A text that can't be parsed
        shows neither that the model works nor that it does not.
        """
        self._judged |= _answered(filter(_judges, asked))
        new = [question for question in asked if not question.cached and not unparsed(question)]
        questions = _decisive([asked for asked in new if _could_be_asked(asked, readable)])
        if _answered(questions):
            self._answers, self._failed_calls, self._failed_queries = True, 0, 0
        elif questions:
            self._failed_calls += len(questions)
            self._failed_queries += 1
            self._reason = questions[-1].error or "no reason given"
        if self._failed_calls >= PATIENCE and self._failed_queries > 1:
            self._stop()

    def require_answers(self) -> None:
        """Raise `LMMError` where the model was asked and never gave an answer, unless candidates were judged by answers
        from the cache: then the run has its result."""
        if self._failed_calls and not self._answers and not self._judged:
            self._stop()

    def _stop(self) -> None:
        raise LMMError(
            f"{self._name}: {self._failed_calls} calls in a row failed ({self._reason}). Check the model and its "
            "server, then rerun this command; finished queries are kept."
        )


def unparsed(question: Asked) -> bool:
    """Whether a text came back that could not be parsed."""
    return isinstance(question, Call) and question.state == "unknown" and bool(question.text)


def images_of(question: Asked) -> tuple[str, ...]:
    """The images that a question was about, as the model saw them: a closer look has an id of its own."""
    if isinstance(question, Verdict):
        return (question.shown,)
    if isinstance(question, Reason | ImageScore):
        return (question.image_id,)
    return question.shown if isinstance(question, Comparison) else ()


def _decisive(questions: Sequence[Asked]) -> Sequence[Asked]:
    """Those about candidates' relevance; all, where there are none of them."""
    return list(filter(_judges, questions)) or questions


def _judges(question: Asked) -> bool:
    """Whether it is about candidates' relevance."""
    if isinstance(question, Call):
        return question.stage == "joint"
    return isinstance(question, Verdict | Draw | Comparison | ImageScore)


def _answered(questions: Iterable[Asked]) -> bool:
    return any(question.state == "answered" for question in questions)


def _could_be_asked(question: Asked, readable: Container[str]) -> bool:
    """Whether its images can be read. A call does not name its image, but has no request where that could not be."""
    if isinstance(question, Call):
        return question.request_key is not None
    return all(image_id in readable for image_id in images_of(question))
