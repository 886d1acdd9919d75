"""Rebuilds requests from a run's folder, for calls that are not in the response cache.

The folder has the prompts, the settings and the hashes of the images, which determine a request. A rebuilt request with
the recorded key is exactly what was sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from fieldscope.agent.documents import ShownDocument, about_document
from fieldscope.agent.grounding import ground_request
from fieldscope.agent.lmm.base import ImagePart, LMMRequest
from fieldscope.agent.nodes.pair import compared_text
from fieldscope.agent.query_text import asked_text, description, last_asked
from fieldscope.agent.requests import (
    caption_request,
    joint_request,
    predicates_request,
    question,
    reason_request,
    reasoned_question,
    refinement_request,
    synthesis_request,
    turn_request,
    which_is_best,
)
from fieldscope.agent.roles import Role, read_identity, role_identity
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import Asked, Call, Comparison, Draw, Predicate, Reason, RerankResult, Verdict
from fieldscope.agent.usage import call_name
from fieldscope.core.types import Query
from fieldscope.service.viewer.runs.run import Run


def rebuilt(run: Run, result: RerankResult, asked: Asked) -> tuple[LMMRequest, bool] | None:
    """The request of a question, and whether its key is the recorded one. None if it can't be rebuilt; a call that is
    not about a candidate must have the recorded key, because other rounds and repairs make similar requests."""
    strategy = run.strategy_in_full
    if strategy is None or asked.request_key is None:
        return None
    model, likely = answerer(run, result, asked)[1] or "", None
    for request in _Rebuilder(run, result, strategy).requests(asked):
        if request.key(model) == asked.request_key:
            return request, True
        likely = likely or request
    return None if likely is None or isinstance(asked, Call) else (likely, False)


class _Rebuilder:
    """The requests of one result."""

    def __init__(self, run: Run, result: RerankResult, strategy: Strategy) -> None:
        self._hashes, self._result, self._strategy = run.hashes, result, strategy
        self._query = Query(
            id=result.query_id,
            text=result.query_text,
            reference_image=result.reference_image,
            dialogue=result.dialogue,
        )

    @property
    def _asked_text(self) -> str:
        return asked_text(self._query, self._result.synthesis)

    @property
    def _decomposed(self) -> str:
        own = self._strategy.decompose is not None and self._strategy.decompose.query is not None
        return last_asked(self._query, self._strategy.by_turns) if own else self._asked_text

    def requests(self, asked: Asked) -> Iterator[LMMRequest]:
        """The possible requests."""
        match asked:
            case Verdict(joint=True):
                yield from self._joint(asked)
            case Verdict():
                yield from self._question(asked.predicate, asked.shown)
            case Draw():
                for verdict in self._result.verdicts:
                    if asked in verdict.draws:
                        yield from self._question(verdict.predicate, verdict.shown)
            case Comparison():
                yield from self._comparison(asked)
            case Reason():
                yield from self._reason(asked)
            case Call():
                yield from self._call(asked)

    def _question(self, predicate_id: str, image_id: str) -> Iterator[LMMRequest]:
        predicate, settings = asked_predicates(self._result).get(predicate_id), self._strategy.verify
        if not (predicate and settings):
            return
        settings = settings.about(self._asked_text)
        images: tuple[ImagePart, ...] = (self._image(image_id),)
        if settings.documents is not None and (document := self._document(image_id)):
            kind, reference = self._query.modality, self._reference()
            predicate, images, settings = about_document(predicate, kind, document, reference, settings)
        for sample in range(settings.plain_calls(predicate.kind)):
            yield question(predicate, images, settings, sample)
        for sample in range(settings.thoughts(predicate.kind)):
            yield reasoned_question(predicate, images, settings, sample)

    def _document(self, document_id: str) -> ShownDocument | None:
        """A ranked document as it was shown."""
        for ranked in self._result.ranking:
            if ranked.image_id == document_id:
                image = None if ranked.modality == "text" else self._image(document_id)
                return ShownDocument(document_id, image, ranked.text)
        return None

    def _joint(self, verdict: Verdict) -> Iterator[LMMRequest]:
        settings = self._strategy.verify and self._strategy.verify.about(self._asked_text).joint
        if not settings:
            return
        predicates = asked_predicates(self._result)
        together = [
            predicates[other.predicate]
            for other in self._result.verdicts
            if (other.image_id, other.request_key) == (verdict.image_id, verdict.request_key)
            and other.predicate in predicates
        ]
        yield joint_request(together, self._image(verdict.image_id), settings)

    def _comparison(self, comparison: Comparison) -> Iterator[LMMRequest]:
        if settings := self._strategy.compare:
            shown = [self._image(image_id) for image_id in comparison.shown]
            yield which_is_best(
                shown, self._reference(), compared_text(self._query, self._result.synthesis, self._strategy), settings
            )

    def _reason(self, reason: Reason) -> Iterator[LMMRequest]:
        if settings := self._strategy.explain:
            yield reason_request(
                self._image(reason.image_id), description(self._query, self._result.synthesis), settings
            )

    def _call(self, call: Call) -> Iterator[LMMRequest]:
        synthesize, decompose, reference = self._strategy.synthesize, self._strategy.decompose, self._reference()
        match call.stage:
            case "caption" if synthesize and reference:
                yield caption_request(reference, synthesize.about(self._query.text))
            case "synthesize" if synthesize and synthesize.turn and self._query.dialogue:
                for turn, earlier in product(self._query.dialogue, (self._query.text, *self._turns())):
                    yield turn_request(turn, earlier, synthesize)
            case "synthesize" if synthesize:
                yield synthesis_request(self._query, self._caption(), synthesize)
            case "refine" if synthesize:
                for earlier, wanting in product(self._earlier(), self._wanting()):
                    yield refinement_request(self._query, self._caption(), earlier, wanting, synthesize)
            case "decompose" if decompose and self._result.synthesis:
                yield predicates_request(self._result.synthesis.instructions, decompose.about(self._decomposed))
            case "ground" if self._strategy.inspect and (settings := self._strategy.inspect.ground):
                image_id = next((i for i in self._hashes if call.text.startswith(f"{i}: ")), None)
                if image_id is not None:
                    yield ground_request(self._image(image_id), self._asked_text, settings)
            case "check" if reference:
                for predicate in asked_predicates(self._result).values():
                    if call.text.startswith(predicate.question):
                        yield from self._question(predicate.id, reference.image_id)

    def _caption(self) -> str:
        return next((call.text for call in self._result.calls if call.stage == "caption"), "")

    def _earlier(self) -> Iterator[str]:
        """Every earlier description of the query."""
        for event in self._result.trace:
            if event.kind == "synthesized":
                yield from map(str, event.data.get("descriptions", ()))

    def _turns(self) -> Iterator[str]:
        """The descriptions after each turn of a dialogue."""
        for event in self._result.trace:
            if event.kind == "synthesized":
                yield from map(str, event.data.get("turns", ()))

    def _wanting(self) -> Iterator[str]:
        """Every reason for a refinement."""
        for event in self._result.trace:
            if event.kind == "refined":
                yield str(event.data.get("because", ""))
            elif event.kind == "checked" and event.data.get("again") and self._strategy.synthesize:
                yield self._strategy.synthesize.again.form("unchanged")

    def _reference(self) -> ImagePart | None:
        reference = self._query.reference_image
        return None if reference is None else self._image(reference)

    def _image(self, image_id: str) -> ImagePart:
        return ImagePart(image_id=image_id, sha256=self._hashes.get(image_id, ""))


def answerer(run: Run, result: RerankResult, asked: Asked) -> tuple[Role | None, str | None]:
    """The identity of the model that a question was for and, where the run has several models, the role in which it
    answered."""
    started = next((event.data.get("model") for event in result.trace if event.kind == "started"), None)
    model = read_identity(started) or run.configuration.lmm
    if model is None or isinstance(model, str):
        return None, model
    roles = run.strategy_in_full.roles_by_call if run.strategy_in_full else {}
    role = roles.get(call_name(asked))
    return role, role and role_identity(model, role)


def asked_predicates(result: RerankResult) -> dict[str, Predicate]:
    """Every predicate by its id, including those that a refinement dropped."""
    found = {predicate.id: predicate for predicate in result.predicates}
    for event in result.trace:
        new = event.data.get("new") if event.kind == "decomposed" else None
        for name, told in new.items() if isinstance(new, dict) else ():
            question, _, expected = str(told).rpartition(" ")
            if name not in found and expected in ("yes", "no"):
                known = {"id": name, "question": question, "expected": expected, "kind": "other"}
                found[name] = Predicate.model_validate(known)
    return found
