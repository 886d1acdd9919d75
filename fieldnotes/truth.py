"""The true answer to a question about a scene: the grammar's questions mapped back to their facts.

A question is known if the grammar can write it, in any of its wordings. Nothing is guessed: any other question has no
answer here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from fieldscope.fieldnotes.facts import Fact
from fieldscope.fieldnotes.grammar import Words
from fieldscope.fieldnotes.scene import COLOURS, COUNTS, HABITATS, ITEMS, POSES, SPECIES, WEATHERS, Scene


class _Chosen(Words):
    """Takes the given choices of wordings, and the first wording after these; counts the options of each choice."""

    def __init__(self, choices: Sequence[int]) -> None:
        super().__init__()
        self.choices = choices
        self.counts: list[int] = []

    def pick(self, options: Sequence[str]) -> str:
        place = len(self.counts)
        self.counts.append(len(options))
        return options[self.choices[place] if place < len(self.choices) else 0]


def every_fact() -> Iterator[Fact]:
    """Every fact that a question can be about."""
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
    questions: set[str] = set()
    choices: list[int] | None = []
    while choices is not None:
        words = _Chosen(choices)
        questions.add(words.question(fact))
        choices = _next(choices, words.counts)
    return frozenset(questions)


def facts_asked(question: str) -> tuple[Fact, ...]:
    """The facts that a question may be about, in any case and white space; none if the grammar does not write it.

    There are several if wordings coincide, as for an item that an animal must carry and one that it must not."""
    return _facts_by_question().get(_normalised(question), ())


def answer(question: str, scene: Scene) -> bool | None:
    """The true answer about a scene.

    None for a question that the grammar does not write, or if the facts that it may be about have different answers.
    """
    answers = {fact.answer(scene) for fact in facts_asked(question)}
    return answers.pop() if len(answers) == 1 else None


@cache
def _facts_by_question() -> Mapping[str, tuple[Fact, ...]]:
    facts_by_question: dict[str, list[Fact]] = {}
    for fact in every_fact():
        for question in wordings(fact):
            facts_by_question.setdefault(_normalised(question), []).append(fact)
    return {question: tuple(facts) for question, facts in facts_by_question.items()}


def _next(choices: Sequence[int], counts: Sequence[int]) -> list[int] | None:
    """The choices after these, like the digits of a counter; None after the last."""
    digits = [*choices, *[0] * (len(counts) - len(choices))]
    for place in reversed(range(len(counts))):
        if digits[place] + 1 < counts[place]:
            return [*digits[:place], digits[place] + 1]
    return None


def _normalised(question: str) -> str:
    return " ".join(question.casefold().split())
