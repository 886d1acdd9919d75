"""synthesize: think out what a matching image must show, in three descriptions and atomic instructions."""

from __future__ import annotations

from typing import Any

from fieldscope.agent.call import ask, image_parts, one_line, spent
from fieldscope.agent.context import Context
from fieldscope.agent.json_answer import Structured, ask_structured
from fieldscope.agent.lmm.base import LMM, LMMRequest
from fieldscope.agent.query_text import own_words, turn_text
from fieldscope.agent.requests import caption_request, refinement_request, synthesis_request, turn_request
from fieldscope.agent.schemas import SynthesisAnswer
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.query_stages import Synthesize
from fieldscope.agent.types import Call, Instruction, Synthesis
from fieldscope.core.errors import ImageError
from fieldscope.core.types import ImageSource, Query
from fieldscope.prompts.prompt import Prompt
from fieldscope.retrieval.encoder import query_text

LONGEST_CAPTION = 600
"""Characters of a caption that are taken on."""


async def synthesize(state: RerankState, context: Context) -> dict[str, Any]:
    """What the request asks for. Where no usable answer comes, the request's own words stand in, or in a later round
    what was thought out before; the event says so and why."""
    settings, lmm = context.asking(context.strategy.synthesize)
    query, caption = state.query, state.caption
    if query.dialogue and settings.turn is not None and not state.round:
        return await _by_turns(state, settings, lmm, settings.turn)
    calls: tuple[Call, ...] = ()
    if query.reference_image is not None and not caption:
        captioner, about = context.model("captioner"), settings.about(query.text)
        captioned = await caption_image(captioner, query.reference_image, about, context.resources.images)
        caption, calls = captioned.text, (captioned,)
    if query.reference_image is not None and not caption:
        said = Structured[SynthesisAnswer](None, (), f"the reference image has no caption: {calls[-1].error}")
    else:
        stage = "refine" if state.round else "synthesize"
        request = _request(settings, state, caption)
        again = state.round > 0
        prompt = settings.again if again else settings.prompt
        said = await ask_structured(lmm, request, SynthesisAnswer, settings.repairs, stage, grows=again, prompt=prompt)
    calls = (*calls, *said.calls)
    synthesis, kept = _next_synthesis(said.value, said.error, state, caption)
    data = {
        "round": state.round,
        **({"caption": caption} if query.reference_image is not None else {}),
        "thought": synthesis.thought,
        "descriptions": list(synthesis.descriptions),
        "instructions": [instruction.text for instruction in synthesis.instructions],
        "fallback": synthesis.fallback,
        "kept": kept,
        **spent(calls),
    }
    event = state.event("synthesized", data)
    return {"synthesis": synthesis, "caption": caption, "calls": calls, "trace": (event,)}


async def _by_turns(state: RerankState, settings: Synthesize, lmm: LMM, prompt: Prompt) -> dict[str, Any]:
    """A dialogue turn by turn (ImageScope, arXiv 2503.10166): each changes the description before it. A turn without a
    usable answer adds its own words to that; where it is the last one, the request's own words stand in."""
    query, described, passed = state.query, state.query.text, list[str]()
    calls: tuple[Call, ...] = ()
    synthesis = _own_words_only(query, "", "the dialogue has no turn")
    for turn in query.dialogue:
        request = turn_request(turn, described, settings)
        said = await ask_structured(
            lmm, request, SynthesisAnswer, settings.repairs, "synthesize", grows=True, prompt=prompt
        )
        calls = (*calls, *said.calls)
        if said.value is None:
            described = f"{described}, {turn_text(turn)}"
            synthesis = _own_words_only(query, "", said.error)
        else:
            described = said.value.comprehensive
            one = {"core": described, "detailed": described}  # a turn has one description
            synthesis = _synthesis(said.value, query, "").model_copy(update=one)
        passed.append(described)
    data = {
        "round": state.round,
        "thought": synthesis.thought,
        "descriptions": list(synthesis.descriptions),
        "turns": passed,
        "instructions": [instruction.text for instruction in synthesis.instructions],
        "fallback": synthesis.fallback,
        "kept": None,
        **spent(calls),
    }
    return {"synthesis": synthesis, "calls": calls, "trace": (state.event("synthesized", data),)}


async def caption_image(lmm: LMM, image_id: str, settings: Synthesize, images: ImageSource) -> Call:
    """What an image shows, on one line in `text`; unknown where it is empty or can't be had."""
    try:
        (image,) = await image_parts(images, [image_id])
    except ImageError as error:
        return Call(stage="caption", state="unknown", error=one_line(error))
    answer = await ask(lmm, caption_request(image, settings))
    if answer.response is None:
        return Call(stage="caption", **answer.asked)
    text = " ".join(answer.response.text.split())[:LONGEST_CAPTION]
    read = {} if text else {"state": "unknown", "error": "the answer is empty"}
    return Call(stage="caption", text=text, **answer.asked | read)


def _request(settings: Synthesize, state: RerankState, caption: str) -> LMMRequest:
    if state.round and state.synthesis:
        return refinement_request(state.query, caption, state.synthesis.comprehensive, state.fault, settings)
    return synthesis_request(state.query, caption, settings)


def _next_synthesis(
    said: SynthesisAnswer | None, error: str | None, state: RerankState, caption: str
) -> tuple[Synthesis, str | None]:
    """What the request is taken to ask for from now on, and why an earlier synthesis stays, where it does."""
    earlier = state.synthesis
    if said is None:
        return (earlier, error) if earlier else (_own_words_only(state.query, caption, error), None)
    synthesis = _synthesis(said, state.query, caption)
    if earlier and synthesis.model_copy(update={"thought": earlier.thought}) == earlier:
        return earlier, "the new answer says the same"
    return synthesis, None


def _synthesis(said: SynthesisAnswer, query: Query, caption: str) -> Synthesis:
    """An answer, with those words of its instructions that the request says."""
    instructions = tuple(
        Instruction(text=i.text, words=own_words(i.words, query, caption), type=i.type) for i in said.instructions
    )
    return Synthesis(**said.model_dump(exclude={"instructions"}), instructions=instructions)


def _own_words_only(query: Query, caption: str, why: str | None) -> Synthesis:
    text = ", ".join(part for part in (caption, query_text(query)) if part)
    instruction = Instruction(text=text, words=query.text)
    return Synthesis(
        thought="", core=text, detailed=text, comprehensive=text, instructions=(instruction,), fallback=why or "unknown"
    )
