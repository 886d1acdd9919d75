"""A prompt: what may be put into it, how it must be answered, and its wording.

A prompt file is a YAML front matter (`name`, `variables`, `answer`, perhaps `system`, and for the reader `description`
and `source`) between two lines of `---`, and below it the template. `{{ variable }}` is the only thing a template can
say, so that a prompt shows exactly what reaches a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fieldscope.core.errors import PromptError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.validation import parse_yaml, validated

_FRONT_MATTER = re.compile(r"\A---\r?\n(?P<front>.*?)^---[ \t]*\r?\n(?P<template>.*)\Z", re.DOTALL | re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")


class Prompt(BaseModel):
    """A parsed prompt. `answer` says how its answer is read: `yes_no` and `letter` from the answer token's
    log-probabilities, `synthesis`, `predicates`, `answers` and `probability` as JSON of that shape, `text` as it is.
    `system` is a message that goes before it, the same for every query: how to go about the task. `answer_after` is how
    the line with the answer begins, where the model is to say something before it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    variables: tuple[str, ...]
    answer: Literal["yes_no", "letter", "synthesis", "predicates", "answers", "probability", "text"]
    template: str = Field(min_length=1)
    system: str = ""
    answer_after: str | None = Field(default=None, min_length=1)
    description: str = ""
    source: str = ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides what a model reads and how its answer is read; not of name and description."""
        decisive = self.model_dump(mode="json", include={"variables", "answer", "template", "system", "answer_after"})
        return fingerprint({name: value for name, value in decisive.items() if value or name == "variables"})

    @property
    def pieces(self) -> tuple[str, ...]:
        """The template taken apart: its own words and, at every second place, the name of a variable."""
        return tuple(_PLACEHOLDER.split(self.template))

    def check_variables(self, given: Iterable[str]) -> None:
        """Raise `PromptError` unless `given` are exactly the declared variables."""
        names = set(given)
        if missing := sorted(set(self.variables) - names):
            raise PromptError(
                f"prompt {self.name!r} needs the variable {_names(missing)}, which is not given; "
                "give it, or use another prompt"
            )
        if extra := sorted(names - set(self.variables)):
            raise PromptError(
                f"prompt {self.name!r} does not declare the variable {_names(extra)}; use a prompt that declares it"
            )

    def render(self, **values: str) -> str:
        """The text with each variable's value in its place. Values are plain text: braces in them mean nothing.

        Raises `PromptError` for a missing variable and for one that is not declared.
        """
        self.check_variables(values)
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.template)


def parse_prompt(text: str, where: str) -> Prompt:
    """A prompt from the text of its file; `where` names it in errors. Raises `PromptError`."""
    parts = _FRONT_MATTER.match(text)
    if parts is None:
        raise PromptError(f"{where}: must begin with a front matter between two lines of '---'; add it")
    front = parse_yaml(parts["front"], where, PromptError)
    if "template" in front:
        raise PromptError(f"{where}: unknown key 'template'; put the wording below the front matter")
    prompt = validated(Prompt, {**front, "template": parts["template"].strip()}, where, PromptError)
    _check_template(prompt, where)
    return prompt


def _check_template(prompt: Prompt, where: str) -> None:
    used = set(_PLACEHOLDER.findall(prompt.template))
    if undeclared := sorted(used - set(prompt.variables)):
        raise PromptError(
            f"{where}: the template uses the variable {_names(undeclared)}, which is not declared; add it to variables"
        )
    if unused := sorted(set(prompt.variables) - used):
        raise PromptError(
            f"{where}: the variable {_names(unused)} is declared, but the template never uses it; use or remove it"
        )
    if "{{" in _PLACEHOLDER.sub("", prompt.template):
        raise PromptError(f"{where}: a '{{{{' in the template is no placeholder; write '{{{{ variable }}}}'")


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
