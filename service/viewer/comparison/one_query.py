"""One query in several runs: rankings in columns, how far images moved and why, predicates and prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fieldscope.agent.trace_diff import Image
from fieldscope.agent.trace_view import verdicts_by_image
from fieldscope.agent.trace_why import Part, Why, extremes, why
from fieldscope.agent.types import Predicate, RerankResult, Verdict
from fieldscope.prompts.prompt import Prompt
from fieldscope.service.viewer.charts.slopes import Slope, slopes
from fieldscope.service.viewer.comparison.sides import Side
from fieldscope.service.viewer.word_diff import Kind, word_diff

DEPTH = 200
"""The number of ranks shown."""


@dataclass(frozen=True)
class Place:
    """An image at its rank in one run. `image` is its number on the page; `moved` is the number of ranks that it is
    higher than in the first run, None in the first run and for images that it lacks; `match` is the human judgment."""

    rank: int
    image: int
    image_id: str
    p_match: float | None
    moved: int | None
    match: bool | None


@dataclass(frozen=True)
class Column:
    """A run's ranking from the top, and the `lines` from the previous column (none for the first)."""

    side: Side
    places: tuple[Place, ...]
    lines: tuple[Slope, ...]


@dataclass(frozen=True)
class Told:
    """An image in two runs: how it moved, the reasons for its rank in each, and what decided its rank in B. `before` is
    A's verdict on the same question."""

    image: Image
    why_a: Why | None
    why_b: Why | None
    decided: Part | None
    before: Verdict | None


@dataclass(frozen=True)
class Held:
    """For how many images a predicate holds, of those with an answer."""

    held: int
    answered: int


@dataclass(frozen=True)
class Asked:
    """A predicate, and its outcome in each run that asked it, by the run's letter."""

    predicate: Predicate
    runs: Mapping[str, Held]


@dataclass(frozen=True)
class Wording:
    """One part of two prompts in pieces: `same` and `out` make up A's text, `same` and `in` make up B's."""

    part: str
    pieces: tuple[tuple[Kind, str], ...]


@dataclass(frozen=True)
class Prompts:
    """Two prompts for the same purpose, None if a run has none. `wordings` is empty if they are the same."""

    a: Prompt | None
    b: Prompt | None
    wordings: tuple[Wording, ...]


class Whys:
    """Why an image is at its rank in a run, worked out once."""

    def __init__(self, results: Mapping[str, RerankResult]) -> None:
        self._results = results
        self._known: dict[tuple[str, str], Why] = {}

    def of(self, side: Side, image: Image, *, first: bool) -> Why | None:
        """None where the run does not have the image."""
        if (image.a if first else image.b) is None:
            return None
        key = side.letter, image.image_id
        if key not in self._known:
            self._known[key] = why(self._results[side.letter], image.image_id)
        return self._known[key]


def columns(results: Mapping[Side, RerankResult], query_id: str) -> list[Column]:
    """The rankings in columns, with lines between neighbouring columns."""
    first, *_ = results
    at_first = {ranked.image_id: ranked.rank for ranked in results[first].ranking}
    numbers: dict[str, int] = {}
    made: list[Column] = []
    for side, result in results.items():
        relevant = side.run.relevant(query_id)
        places = tuple(
            Place(
                rank=ranked.rank,
                image=numbers.setdefault(ranked.image_id, len(numbers)),
                image_id=ranked.image_id,
                p_match=ranked.p_match,
                moved=None
                if side is first or ranked.image_id not in at_first
                else at_first[ranked.image_id] - ranked.rank,
                match=None if relevant is None else ranked.image_id in relevant,
            )
            for ranked in result.ranking[:DEPTH]
        )
        before = [place.image for place in made[-1].places] if made else []
        made.append(Column(side, places, tuple(slopes(before, [place.image for place in places]))))
    return made


def furthest(images: Iterable[Image]) -> tuple[Image | None, Image | None]:
    """The images that sank and rose furthest from A to B; the one with most weight among equals."""
    moved = [image for image in images if image.moved]
    fell = min((i for i in moved if (i.moved or 0) < 0), key=lambda i: (i.moved or 0, -i.gap), default=None)
    rose = max((i for i in moved if (i.moved or 0) > 0), key=lambda i: (i.moved or 0, i.gap), default=None)
    return fell, rose


def told(a: Side, b: Side, image: Image, whys: Whys) -> Told:
    """An image in both runs. Its rank in B was decided by the strongest part against it if it is lower there, else by
    the strongest part for it; by nothing if that part points the other way."""
    why_a, why_b = whys.of(a, image, first=True), whys.of(b, image, first=False)
    decided = before = None
    if why_b is not None and image.moved:
        against, of_favour = extremes(why_b.parts)
        part = against if image.moved < 0 else of_favour
        if part is not None and part.log_odds and (part.log_odds < 0) == (image.moved < 0):
            decided = part
    if decided is not None and decided.predicate is not None and why_a is not None:
        key = _key(decided.predicate)
        before = next((p.verdict for p in why_a.parts if p.predicate and _key(p.predicate) == key), None)
    return Told(image, why_a, why_b, decided, before)


def predicates(results: Mapping[Side, RerankResult]) -> list[tuple[tuple[Side, ...], list[Asked]]]:
    """Predicates by the runs that asked them: first those of all runs, then those of some, in the runs' order."""
    texts: dict[tuple[str, str], Predicate] = {}
    held: dict[tuple[str, str], dict[str, Held]] = {}
    for side, result in results.items():
        verdicts = verdicts_by_image(result)
        for predicate in result.predicates:
            key = _key(predicate)
            texts.setdefault(key, predicate)
            said = [of[predicate.id].p_expected for of in verdicts.values() if predicate.id in of]
            answered = [p for p in said if p is not None]
            held.setdefault(key, {})[side.letter] = Held(sum(p > 0.5 for p in answered), len(answered))
    groups: dict[tuple[Side, ...], list[Asked]] = {}
    for key, runs in held.items():
        who = tuple(side for side in results if side.letter in runs)
        groups.setdefault(who, []).append(Asked(texts[key], runs))
    order = [*results]
    return sorted(groups.items(), key=lambda item: (-len(item[0]), [order.index(side) for side in item[0]]))


def prompts_of(a: Sequence[Prompt], b: Sequence[Prompt]) -> list[Prompts]:
    """The prompts of two runs, matched by name, else by variables and kind of answer. Different ones come first."""
    pairs = [*_coupled(a, b)]
    return sorted((Prompts(one, other, _wordings(one, other)) for one, other in pairs), key=lambda p: not p.wordings)


def _coupled(a: Sequence[Prompt], b: Sequence[Prompt]) -> Iterator[tuple[Prompt | None, Prompt | None]]:
    named = {prompt.name: prompt for prompt in b}
    left = [prompt for prompt in b if prompt.name not in {own.name for own in a}]
    for prompt in a:
        other = named.get(prompt.name) or next((p for p in left if _purpose(p) == _purpose(prompt)), None)
        if other in left:
            left.remove(other)
        yield prompt, other
    yield from ((None, prompt) for prompt in left)


def _purpose(prompt: Prompt) -> tuple[str, frozenset[str]]:
    return prompt.answer, frozenset(prompt.variables)


def _wordings(a: Prompt | None, b: Prompt | None) -> tuple[Wording, ...]:
    if a is not None and b is not None and a.fingerprint == b.fingerprint:
        return ()
    texts = {
        "system": (a.system if a else "", b.system if b else ""),
        "template": (a.template if a else "", b.template if b else ""),
    }
    return tuple(Wording(part, tuple(word_diff(*both))) for part, both in texts.items() if any(both))


def _key(predicate: Predicate) -> tuple[str, str]:
    return " ".join(predicate.question.split()).casefold(), predicate.expected
