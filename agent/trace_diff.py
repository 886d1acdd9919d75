"""Two runs of one query, A and B, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fieldscope.agent.roles import model_text, read_identity
from fieldscope.agent.trace_nothing import nothing
from fieldscope.agent.trace_view import View, verdicts_by_image
from fieldscope.agent.types import Predicate, RankedCandidate, RerankResult, Verdict
from fieldscope.agent.usage import Usage
from fieldscope.core.errors import ConfigError

DISAGREEMENTS = 5
"""How many images are shown in detail."""


class Side(View):
    """One of the runs. Fingerprints are None where its trace does not say; `nothing` is the sentence that no image
    seems to match, None where that was not said."""

    strategy: str
    strategy_fingerprint: str | None
    model: str | None
    calls: int
    tokens: int
    ended: str | None
    nothing: str | None
    flags: tuple[str, ...]


class Said(View):
    """What both runs said about one predicate on an image; None where a run has no such verdict."""

    question: str
    expected: str
    a: Verdict | None
    b: Verdict | None


class Image(View):
    """An image in both runs, None where it is missing. `moved` is how many ranks higher B has it (negative: lower).

    `gap` is the change of its discount in DCG, 1 / log2(1 + rank), so that a change at the head weighs most.
    """

    image_id: str
    a: RankedCandidate | None
    b: RankedCandidate | None
    moved: int | None
    gap: float
    said: tuple[Said, ...] = ()


class Diff(View):
    """Two runs of one query. `prompts` maps a name to its fingerprints in A and B, None where a run has no such prompt.

    Predicates are the same where question and expected answer are. `images` are in the order of A, with those that only
    B has behind them; `disagreements` are the images with the largest gaps, each with the verdicts behind it, the
    predicates on which the runs differ most first.
    """

    query_id: str
    query_text: str
    a: Side
    b: Side
    prompts: Mapping[str, tuple[str | None, str | None]]
    common: tuple[Predicate, ...]
    only_a: tuple[Predicate, ...]
    only_b: tuple[Predicate, ...]
    images: tuple[Image, ...]
    disagreements: tuple[Image, ...]


def diff(a: RerankResult, b: RerankResult) -> Diff:
    """What is different in B. Raises `ConfigError` where the two are of different requests."""
    if _request(a) != _request(b):
        raise ConfigError(
            f"the runs have different queries {a.query_id!r}: {a.query_text!r} and {b.query_text!r}; compare runs of "
            "one benchmark"
        )
    in_a, in_b = ({_key(p): p for p in reversed(result.predicates)} for result in (a, b))
    images = _images(a, b)
    furthest = sorted((image for image in images if image.gap), key=lambda image: -image.gap)[:DISAGREEMENTS]
    said = _Said(a, b)
    return Diff(
        query_id=a.query_id,
        query_text=a.query_text,
        a=_side(a),
        b=_side(b),
        prompts=_prompts(a, b),
        common=tuple(p for p in a.predicates if _key(p) in in_b),
        only_a=tuple(p for p in a.predicates if _key(p) not in in_b),
        only_b=tuple(p for p in b.predicates if _key(p) not in in_a),
        images=images,
        disagreements=tuple(image.model_copy(update={"said": said.about(image.image_id)}) for image in furthest),
    )


class _Said:
    """The verdicts of both runs, by image and by what was asked."""

    def __init__(self, a: RerankResult, b: RerankResult) -> None:
        self._runs = [(verdicts_by_image(run), {_key(p): p.id for p in run.predicates}) for run in (a, b)]
        self._keys = dict.fromkeys(_key(p) for run in (a, b) for p in run.predicates)
        self._questions = {_key(p): p.question for run in (b, a) for p in run.predicates}

    def about(self, image_id: str) -> tuple[Said, ...]:
        said = []
        for key in self._keys:
            a, b = (verdicts.get(image_id, {}).get(ids.get(key, "")) for verdicts, ids in self._runs)
            if a or b:
                said.append(Said(question=self._questions[key], expected=key[1], a=a, b=b))
        return tuple(sorted(said, key=lambda one: -_apart(one)))


def _apart(said: Said) -> float:
    """How far the two are from each other, between 0 and 1; what was not answered says one half."""
    p_a, p_b = (0.5 if v is None or v.p_expected is None else v.p_expected for v in (said.a, said.b))
    return abs(p_a - p_b)


def _images(a: RerankResult, b: RerankResult) -> tuple[Image, ...]:
    in_a, in_b = ({r.image_id: r for r in result.ranking} for result in (a, b))
    images = []
    for image_id in dict.fromkeys((*in_a, *in_b)):
        its_a, its_b = in_a.get(image_id), in_b.get(image_id)
        moved = its_a.rank - its_b.rank if its_a and its_b else None
        gap = abs(_discount(its_a) - _discount(its_b))
        images.append(Image(image_id=image_id, a=its_a, b=its_b, moved=moved, gap=gap))
    return tuple(images)


def _discount(ranked: RankedCandidate | None) -> float:
    return 1.0 / math.log2(1.0 + ranked.rank) if ranked else 0.0


def _side(result: RerankResult) -> Side:
    started = _started(result)
    return Side(
        strategy=result.strategy,
        strategy_fingerprint=_text(started.get("strategy_fingerprint")),
        model=model_text(read_identity(started.get("model"))),
        calls=len(result.asked),
        tokens=Usage.of(result.asked).tokens,
        ended=result.ended,
        nothing=decision.sentence if (decision := nothing(result)) else None,
        flags=result.flags,
    )


def _prompts(a: RerankResult, b: RerankResult) -> dict[str, tuple[str | None, str | None]]:
    of_a, of_b = (_mapping(_started(result).get("prompts")) for result in (a, b))
    return {name: (_text(of_a.get(name)), _text(of_b.get(name))) for name in sorted({*of_a, *of_b})}


def _started(result: RerankResult) -> Mapping[str, object]:
    return next((event.data for event in result.trace if event.kind == "started"), {})


def _mapping(value: object) -> dict[str, object]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _key(predicate: Predicate) -> tuple[str, str]:
    return " ".join(predicate.question.split()).casefold(), predicate.expected


def _request(result: RerankResult) -> tuple[object, ...]:
    return " ".join(result.query_text.split()).casefold(), result.reference_image, result.dialogue
