"""Does the model answer every prompt of a strategy, asked as its stages ask, and can the answers be read?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from fieldscope.agent.call import image_parts
from fieldscope.agent.grounding import ground
from fieldscope.agent.json_answer import Structured, ask_structured
from fieldscope.agent.lmm.base import LMM, ImagePart, LMMRequest, LMMResponse
from fieldscope.agent.nodes.compare import judge_order
from fieldscope.agent.nodes.explain import ask_reason
from fieldscope.agent.nodes.synthesize import caption_image
from fieldscope.agent.nodes.verify import judge, judge_jointly
from fieldscope.agent.requests import predicates_request, refinement_request, synthesis_request, turn_request
from fieldscope.agent.roles import Role
from fieldscope.agent.schemas import PredicatesAnswer, SynthesisAnswer
from fieldscope.agent.strategies.inspection import Grounding
from fieldscope.agent.strategies.ordering import Compare, Explain
from fieldscope.agent.strategies.query_stages import Decompose, Synthesize
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.strategies.verification import Verify
from fieldscope.agent.types import Asked, Call, Instruction, Predicate, Reason
from fieldscope.core.errors import FieldscopeError
from fieldscope.core.types import Query, Turn
from fieldscope.prompts.prompt import Prompt
from fieldscope.retrieval.progress import Report
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.images import Drawn
from fieldscope.service.doctor.probes import Probe
from fieldscope.service.wiring.models import open_bare_lmm
from fieldscope.service.wiring.prompt_pictures import with_examples
from fieldscope.service.wiring.settings import Settings

_SHOWN = 70

AnswerT = TypeVar("AnswerT", bound=BaseModel)


@dataclass(frozen=True)
class Trial:
    """One prompt of a strategy, and how its stage asks it: from the model of its role to what it said. Raises
    `ValueError` with what is wrong with the answer."""

    place: str
    prompt: Prompt
    role: Role
    ask: Callable[[LMM], Awaitable[str]]


class CountingLMM:
    """An LMM that counts its calls."""

    def __init__(self, lmm: LMM) -> None:
        self.lmm = lmm
        self.calls = 0

    @property
    def identity(self) -> str:
        return self.lmm.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        self.calls += 1
        return await self.lmm.generate(request)

    async def aclose(self) -> None:
        """Nothing: whoever opened the LMM closes it."""


async def check_strategy(
    settings: Settings, strategy: Strategy, probe: Probe, report: Report
) -> tuple[list[Finding], int]:
    """A finding for each prompt of a strategy, asked once of the LMM that has its role, and the calls it took."""
    images = Drawn(probe.images)
    shown = with_examples(images, strategy.prompts)
    trials = list(_Trials(strategy, probe, images))
    findings: list[Finding] = []
    lmms: dict[Role, CountingLMM] = {}
    async with AsyncExitStack() as stack:
        for chosen, roles in settings.by_model(strategy.roles()).items():
            lmm = CountingLMM(await stack.enter_async_context(open_bare_lmm(chosen, shown)))
            lmms |= dict.fromkeys(roles, lmm)
        for done, trial in enumerate(trials, start=1):
            findings.append(await _try(trial, lmms[trial.role], several=len(set(lmms.values())) > 1))
            report(done, len(trials))
    return findings, sum(lmm.calls for lmm in set(lmms.values()))


async def _try(trial: Trial, lmm: LMM, several: bool) -> Finding:
    name = f"prompt {trial.prompt.name}"
    asked = f"{trial.place}, asked of the {trial.role}" + (f" ({lmm.identity})" if several else "")
    try:
        said = await trial.ask(lmm)
    except (ValueError, FieldscopeError) as error:
        change = (
            "reword the prompt (--prompts), give its stage more max_tokens or an answer_after, turn thinking off in "
            "its extra_body, or use another model"
        )
        return Finding(name, "fail", " ".join(str(error).split()), f"{asked}: its answers would be unknown", change)
    return Finding(name, "ok", said, f"{asked}: answered and readable")


class _Trials:
    """Every prompt of a strategy, with requests about a probe's images."""

    def __init__(self, strategy: Strategy, probe: Probe, images: Drawn) -> None:
        self._strategy, self._probe, self._images = strategy, probe, images
        self._description, self._id = probe.lineup[0]
        self._query = Query(id="doctor", text=self._description)

    def __iter__(self) -> Iterator[Trial]:
        roles, strategy = self._strategy.roles_by_call, self._strategy
        if synthesize := strategy.synthesize:
            yield from self._synthesis(synthesize, roles)
        if decompose := strategy.decompose:
            yield Trial("decompose", decompose.prompt, roles["decompose"], self._predicates(decompose))
        if verify := strategy.verify:
            yield from self._verification(verify, roles)
        if (inspect := strategy.inspect) and inspect.ground:
            yield Trial("inspect.ground", inspect.ground.prompt, roles["ground"], self._boxes(inspect.ground))
        if compare := strategy.compare:
            for place, prompt, reference in (
                ("compare", compare.prompt, False), ("compare.reference", compare.reference, True)
            ):  # fmt: skip
                yield Trial(place, prompt, roles["compare"], self._comparison(compare, reference))
        if explain := strategy.explain:
            yield Trial("explain", explain.prompt, roles["explain"], self._reason(explain))

    def _synthesis(self, settings: Synthesize, roles: dict[str, Role]) -> Iterator[Trial]:
        again = settings.again
        first = synthesis_request(self._query, "", settings)
        later = refinement_request(self._query, "", self._description, again.form("few"), settings)

        def asking(request: LMMRequest, prompt: Prompt) -> Callable[[LMM], Awaitable[str]]:
            async def ask(lmm: LMM) -> str:
                answer = await ask_structured(
                    lmm, request, SynthesisAnswer, settings.repairs, "synthesize", prompt=prompt
                )
                return repr(_value(answer).comprehensive)

            return ask

        async def caption(lmm: LMM) -> str:
            about = settings.about(self._description)
            return _text(await caption_image(lmm, self._id, about, self._images))

        yield Trial("synthesize", settings.prompt, roles["synthesize"], asking(first, settings.prompt))
        if settings.turn is not None:
            said = Turn(question="what is there?", answer=self._description)
            turn = turn_request(said, self._description, settings)
            yield Trial("synthesize.turn", settings.turn, roles["synthesize"], asking(turn, settings.turn))
        yield Trial("synthesize.again", again, roles["refine"], asking(later, again))
        yield Trial("synthesize.caption", settings.caption, roles["caption"], caption)

    def _predicates(self, settings: Decompose) -> Callable[[LMM], Awaitable[str]]:
        about = settings.about(self._description)
        instruction = Instruction(text=self._description, words=self._description, type="addition")
        request = predicates_request([instruction], about)

        async def ask(lmm: LMM) -> str:
            answer = await ask_structured(
                lmm, request, PredicatesAnswer, about.repairs, "decompose", grows=True, prompt=about.prompt
            )
            return " ".join(f"{each.question} {each.expected}" for each in _value(answer).predicates)

        return ask

    def _verification(self, settings: Verify, roles: dict[str, Role]) -> Iterator[Trial]:
        about = settings.about(self._description)
        part = Predicate(id="part", question=self._probe.known[0].question)
        whole = about.whole_query
        query = part
        if whole is not None:
            query = Predicate(id="query", question=whole.render(query=self._description), words=self._description)
        parts = [("verify", about.prompt, part)] if about.by_predicates else []
        wholes = [("verify.whole" if parts else "verify", whole, query)] if whole is not None else []
        plain = about.model_copy(update={"reason": None})
        for place, prompt, predicate in (*parts, *wholes):
            if about.plain_calls("query" if predicate is query else "predicate"):
                yield Trial(place, prompt, roles["verify"], self._verdict(predicate, plain))
        if reason := about.reason:
            always = about.model_copy(update={"reason": reason.model_copy(update={"within": None})})
            for place, thought, predicate in (("prompt", reason.prompt, part), ("whole", reason.whole, query)):
                if thought is not None:
                    yield Trial(f"verify.reason.{place}", thought, roles["reason"], self._verdict(predicate, always))
        if joint := about.joint:

            async def jointly(lmm: LMM) -> str:
                known = enumerate(self._probe.known[:3])
                questions = [Predicate(id=f"part-{number}", question=each.question) for number, each in known]
                verdicts, _ = await judge_jointly(lmm, questions, await self._image(), joint)
                return "; ".join(_probability(verdict, verdict.p_yes) for verdict in verdicts)

            yield Trial("verify.joint", joint.prompt, roles["joint"], jointly)

    def _verdict(self, predicate: Predicate, settings: Verify) -> Callable[[LMM], Awaitable[str]]:
        async def ask(lmm: LMM) -> str:
            verdict = await judge(lmm, predicate, [await self._image()], settings)
            return _probability(verdict, verdict.p_yes)

        return ask

    def _boxes(self, settings: Grounding) -> Callable[[LMM], Awaitable[str]]:
        async def locate(lmm: LMM) -> str:
            image = await self._image()
            named, (call,) = await ground(lmm, self._images, [image.image_id], self._description, settings, at_once=1)
            regions = named.get(image.image_id, ())
            boxes = (f"({r.left:.2f}, {r.top:.2f}) to ({r.right:.2f}, {r.bottom:.2f})" for r in regions)
            return f"{_text(call)} -> {'; '.join(boxes) or 'no box that can be read'}"

        return locate

    def _comparison(self, settings: Compare, with_reference: bool) -> Callable[[LMM], Awaitable[str]]:
        number = {"pair": 2, "set": settings.set_size, "walk": 1}[settings.mode]

        async def ask(lmm: LMM) -> str:
            shown = await image_parts(self._images, [image for _, image in self._probe.lineup[:number]])
            reference = (await image_parts(self._images, [self._probe.lineup[-1][1]]))[0] if with_reference else None
            compared = await judge_order(lmm, shown, reference, self._description, settings)
            chances = compared.probabilities
            return _probability(compared, max(chances, default=None), "P(yes)" if number == 1 else "P(best)")

        return ask

    def _reason(self, settings: Explain) -> Callable[[LMM], Awaitable[str]]:
        async def ask(lmm: LMM) -> str:
            return _text(await ask_reason(lmm, await self._image(), 0.5, self._description, settings))

        return ask

    async def _image(self) -> ImagePart:
        return (await image_parts(self._images, [self._id]))[0]


def _value(answer: Structured[AnswerT]) -> AnswerT:
    if answer.value is None:
        raise ValueError(answer.error or "no answer")
    return answer.value


def _text(asked: Call | Reason) -> str:
    if asked.state != "answered":
        raise ValueError(asked.error or "no answer")
    return repr(asked.text if len(asked.text) <= _SHOWN else f"{asked.text[:_SHOWN]}...")


def _probability(asked: Asked, p: float | None, what: str = "P(yes)") -> str:
    if p is None:
        raise ValueError(asked.error or "no answer")
    return f"{what} {p:.3f}"
