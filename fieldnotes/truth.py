"""What is true of a scene, asked in words: the grammar's questions read backwards.

A question is known where the grammar can write it, in any of its wordings. Nothing is guessed from words alone: any
other question has no answer here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from fieldscope.fieldnotes.facts import Fact
from fieldscope.fieldnotes.grammar import Words
from fieldscope.fieldnotes.scene import COLOURS, COUNTS, HABITATS, ITEMS, POSES, SPECIES, WEATHERS, Scene


class _Told(Words):
    """Chooses the wordings that it is told to, the first of all others, and notes among how many it chose."""

    def __init__(self, told: Sequence[int]) -> None:
        super().__init__()
        self.told = told
        self.among: list[int] = []

    def pick(self, options: Sequence[str]) -> str:
        place = len(self.among)
        self.among.append(len(options))
        return options[self.told[place] if place < len(self.told) else 0]


def every_fact() -> Iterator[Fact]:
    """All that can be asked of a scene."""
    for species in SPECIES:
        yield Fact("subject", species)
        yield Fact("alone", species)
        for kind, values in (
            ("colour", COLOURS),
            ("count", COUNTS),
            ("behaviour", POSES),
            ("context", ITEMS[1:]),
            ("absence", ITEMS[1:]),
            ("comparison", [other for other in SPECIES if other != species]),
        ):
            yield from (Fact(kind, species, str(value)) for value in values)
    yield from (Fact("habitat", "", habitat) for habitat in HABITATS)
    yield from (Fact("weather", "", weather) for weather in WEATHERS)


def wordings(fact: Fact) -> frozenset[str]:
    """Every question that the grammar can write about a fact."""
    found: set[str] = set()
    told: list[int] | None = []
    while told is not None:
        words = _Told(told)
        found.add(words.question(fact))
        told = _next(told, words.among)
    return frozenset(found)


def facts_asked(question: str) -> tuple[Fact, ...]:
    """The facts that a question may be about, whatever its case and its white space; none where the grammar does not
    write it. Several where wordings coincide, as those of what an animal carries and what it must not carry."""
    return _facts_by_question().get(_normalised(question), ())


def answer(question: str, scene: Scene) -> bool | None:
    """The true answer about a scene; None for a question that the grammar does not write, and where the facts that it
    may be about differ in their answers."""
    answers = {fact.answer(scene) for fact in facts_asked(question)}
    return answers.pop() if len(answers) == 1 else None


@cache
def _facts_by_question() -> Mapping[str, tuple[Fact, ...]]:
    found: dict[str, list[Fact]] = {}
    for fact in every_fact():
        for question in wordings(fact):
            found.setdefault(_normalised(question), []).append(fact)
    return {question: tuple(facts) for question, facts in found.items()}


def _next(told: Sequence[int], among: Sequence[int]) -> list[int] | None:
    """The choices after these, like the digits of a counter; None after the last."""
    choices = [*told, *[0] * (len(among) - len(told))]
    for place in reversed(range(len(among))):
        if choices[place] + 1 < among[place]:
            return [*choices[:place], choices[place] + 1]
    return None


def _normalised(question: str) -> str:
    return " ".join(question.casefold().split())
