"""Queries that name a species by its scientific name: INQUIRE's experts' words, which a CLIP knows less well."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


def binomials(names: Iterable[str]) -> frozenset[str]:
    """Genus and species of scientific names, in lower case; names of one word, and empty ones, are left out."""
    found = (_WORD.findall(name.lower()) for name in names)
    return frozenset(" ".join(words[:2]) for words in found if len(words) > 1)


def names_species(text: str, known: frozenset[str]) -> bool:
    """Whether two words of `text` that follow each other are one of the `binomials` that are known.

    A genus alone does not count: too many of them (octopus, bison, iris) are everyday words.
    """
    words = _WORD.findall(text.lower())
    return any(f"{genus} {species}" in known for genus, species in pairwise(words))
