"""Queries in other words of the grammar. A wording counts only if it is read back as the same facts, and if the same
scenes match what was read."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache

from fieldscope.fieldnotes.facts import Part, Spec
from fieldscope.fieldnotes.grammar import AIRBORNE, ALONE, BESIDE, ITEM, PLACES, POSE, THING, WEATHER, Words
from fieldscope.fieldnotes.queries import matcher
from fieldscope.fieldnotes.scene import COLOURS, SPECIES, Scene

_TRIES = 60
_ATTRIBUTES = {"pose": "pose", "item": "item", "without": "without"}


def paraphrases(text: str, scenes: Mapping[str, Scene], number: int) -> tuple[str, ...]:
    """At most `number` other wordings of a query, always the same ones; none of a text that is no query of the grammar,
    such as a change to a reference image."""
    spec = read_query(text)
    if spec is None:
        return ()
    rng, matches = random.Random(f"fieldnotes-paraphrases-{text}"), matcher(scenes)
    found: dict[str, None] = {}
    for _ in range(_TRIES):
        wording = Words(rng).spec(spec)
        read = read_query(wording)
        same = read is not None and set(read.facts()) == set(spec.facts()) and matches(read) == matches(spec)
        if same and wording != text:
            found[wording] = None
        if len(found) == number:
            break
    return tuple(found)


def read_query(text: str) -> Spec | None:
    """What a query of the grammar says; None for any other text."""
    tokens = list(_tokens(text))
    if None in tokens:
        return None
    parts: list[Part] = []
    pending, where, kinds = Part(""), {"habitat": "", "weather": ""}, [kind for kind, _ in filter(None, tokens)]
    for kind, value in filter(None, tokens):
        if kind == "count":
            pending = replace(pending, count=int(value))
        elif kind == "colour":
            pending = replace(pending, colour=value)
        elif kind == "species":
            parts.append(replace(pending, species=value))
            pending = Part("")
        elif kind in _ATTRIBUTES and parts:
            parts[-1] = replace(parts[-1], **{kind: value})  # type: ignore[arg-type]
        elif kind in where:
            where[kind] = value
    if not 1 <= len(parts) <= 2 or pending != Part(""):
        return None
    companion = parts[1] if len(parts) == 2 else None
    return Spec(parts[0], companion, where["habitat"], where["weather"], "alone" in kinds, "more" in kinds)


def _tokens(text: str) -> Iterator[tuple[str, str] | None]:
    """What each phrase of a text says, in order: its kind and value; None for words that are no phrase."""
    words, place = text.casefold().replace(",", " , "), 0
    while place < len(words):
        if words[place].isspace():
            place += 1
            continue
        found = _pattern().match(words, place)
        if found is None:
            yield None
            return
        yield _phrases()[found[0]]
        place = found.end()


@cache
def _pattern() -> re.Pattern[str]:
    """Any phrase, the longest first: "beside a nest with eggs" is said of an animal, "beside" of its company."""
    longest_first = sorted(_phrases(), key=lambda phrase: -len(phrase))
    return re.compile("(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)")


@cache
def _phrases() -> Mapping[str, tuple[str, str]]:
    """Phrase -> its kind and value."""
    phrases = dict.fromkeys((",", "a", "an", "and", "that is", "that are", "a photo of", "a picture of"), ("", ""))
    phrases |= dict.fromkeys(BESIDE, ("beside", "")) | dict.fromkeys(ALONE, ("alone", ""))
    phrases |= {"more": ("more", ""), "than": ("", "")}
    phrases |= dict.fromkeys(("one", "a single", "exactly one"), ("count", "1"))
    phrases |= {"two": ("count", "2"), "three": ("count", "3")}
    phrases |= {colour: ("colour", colour) for colour in COLOURS}
    for name, species in SPECIES.items():
        phrases |= dict.fromkeys((species.name, species.plural), ("species", name))
    phrases |= dict.fromkeys((*AIRBORNE[True], *AIRBORNE[False]), ("pose", "airborne"))
    for kind, wordings in (("pose", POSE), ("item", ITEM), ("habitat", PLACES), ("weather", WEATHER)):
        phrases |= {phrase: (kind, value) for value, said in wordings.items() for phrase in said}
    return phrases | {f"without {phrase}": ("without", value) for value, said in THING.items() for phrase in said}
