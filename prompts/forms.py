"""How a request, instructions, questions, faults and labels are put into words before they go into a prompt.

A prompt's `forms` replace the default ones. What they say depends on its answer: a prompt for descriptions words the
request, one for questions about an image the list of questions, and so on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
"""`{{ variable }}`, the only thing that a template can say beside its own words."""

DEFAULTS: Mapping[str, str] = {
    "text": 'query: "{{ query }}".',
    "composed": 'reference: "{{ caption }}". change: "{{ query }}".',
    "dialogue": "dialogue: {{ query }}. {{ rounds }}",
    "round": "q: {{ question }} a: {{ answer }}.",
    "instruction": '{{ number }}. {{ type }}: {{ text }} ("{{ words }}").',
    "question": "{{ number }}. {{ question }}",
    "whole": "{{ number }}. {{ question }}",
    "separator": " ",
    "shows": "does the image show {{ text }}?",
    "matches": 'does this image match the description: "{{ query }}"?',
    "reference": "reference:",
    "candidate": "{{ letter }}:",
    "repair": "the answer was not right json: {{ fault }}. answer again as json.",
    "unchanged": "the change is missing.",
    "indistinct": "a question does not tell the images apart.",
    "contradiction": "the answers contradict each other.",
    "few": "too few images match.",
}
"""Every form, as prompts without forms of their own have it. `whole` is the question about the whole query among the
others, and may say `{{ query }}` instead; `candidate` may say `{{ capital }}`, the letter as a capital."""

OF_ANSWER: Mapping[str, tuple[str, ...]] = {
    "synthesis": (
        *("text", "composed", "dialogue", "round", "separator", "repair"),
        *("unchanged", "indistinct", "contradiction", "few"),
    ),
    "predicates": ("instruction", "separator", "repair", "shows", "matches"),
    "answers": ("question", "whole", "separator", "repair"),
    "letter": ("reference", "candidate"),
}
"""The forms that a prompt may have, by the kind of its answer."""

_MORE_VARIABLES: Mapping[str, frozenset[str]] = {"whole": frozenset({"query"}), "candidate": frozenset({"capital"})}


def fill(template: str, values: Mapping[str, str]) -> str:
    """A template with each variable's value in its place. Values are plain text: braces in them mean nothing."""
    return PLACEHOLDER.sub(lambda match: values[match[1]], template)


def form_faults(answer: str, forms: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the forms of a prompt with this kind of answer, a sentence each."""
    known = OF_ANSWER.get(answer, ())
    for name, template in forms.items():
        if name not in known:
            yield f"a prompt for {answer} has no form {name!r}; its forms are {', '.join(known) or 'none'}"
            continue
        variables = _variables(DEFAULTS[name]) | _MORE_VARIABLES.get(name, frozenset())
        if unknown := sorted(_variables(template) - variables):
            yield f"the form {name!r} has no variable {', '.join(unknown)}; it has {', '.join(sorted(variables))}"


def _variables(template: str) -> frozenset[str]:
    return frozenset(PLACEHOLDER.findall(template))
