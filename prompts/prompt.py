"""A prompt: what may be put into it, how it must be answered, and its wording.

A prompt file is a YAML front matter (`name`, `variables`, `answer`, perhaps `system` or `system_file`, `forms` and
`examples`, and for the reader `description` and `source`) between two lines of `---`, and below it the template.
`{{ variable }}` is the only thing a template can say, so that a prompt shows exactly what reaches a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from fieldscope.core.errors import PromptError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.validation import parse_yaml, read_document, validated
from fieldscope.prompts.examples import Example, read_examples
from fieldscope.prompts.forms import DEFAULTS, PLACEHOLDER, fill, form_faults

_FRONT_MATTER = re.compile(r"\A---\r?\n(?P<front>.*?)^---[ \t]*\r?\n(?P<template>.*)\Z", re.DOTALL | re.MULTILINE)


class Prompt(BaseModel):
    """A parsed prompt. `answer` says how its answer is read: `yes_no` and `letter` from the answer token's
    log-probabilities, `synthesis`, `predicates`, `answers` and `probability` as JSON of that shape, `text` as it is.
    `system` is a message that goes before it, the same for every query: how to go about the task. `answer_after` is how
    the line with the answer begins, where the model is to say something before it. `forms` word what goes into it
    (`fieldscope.prompts.forms`), and `examples` are shown before the question. `shows` are the pictures before it, in
    their order, of a prompt about a query and a document: the query's and the candidate's, as far as they have one;
    None is the candidate's alone. What is not `answerable` is beyond the model that the set is written for, and is not
    asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    variables: tuple[str, ...]
    answer: Literal["yes_no", "letter", "synthesis", "predicates", "answers", "probability", "text"]
    template: str = Field(min_length=1)
    system: str = ""
    answer_after: str | None = Field(default=None, min_length=1)
    forms: Mapping[str, str] | None = None
    examples: tuple[Example, ...] | None = None
    shows: tuple[Literal["query", "candidate"], ...] | None = None
    answerable: bool = Field(default=True, exclude_if=lambda answerable: answerable)
    description: str = ""
    source: str = ""
    _given: Mapping[str, str] = PrivateAttr(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @model_validator(mode="after")
    def _forms_fit(self) -> Self:
        if fault := next(form_faults(self.answer, self.forms or {}), None):
            raise ValueError(fault)
        return self

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides what a model reads and how its answer is read; not of name and description. An
        example's picture counts by its pixels."""
        named = {"variables", "answer", "template", "system", "answer_after", "forms"}
        decisive = self.model_dump(mode="json", include=named)
        if self.shows is not None:
            decisive["shows"] = [*self.shows, "question"]
        if not self.answerable:
            decisive["asked"] = "never"
        if self.examples:
            decisive["examples"] = [
                {"images": [image.sha256 for image in example.images], "text": example.text, "answer": example.answer}
                for example in self.examples
            ]
        return fingerprint({key: value for key, value in decisive.items() if value or key in ("variables", "template")})

    @property
    def pieces(self) -> tuple[str, ...]:
        """The template taken apart: its own words and, at every second place, the name of a variable."""
        return tuple(PLACEHOLDER.split(self.template))

    def check_variables(self, given: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Raise `PromptError` unless the declared variables are exactly `given`, and perhaps some of `optional`."""
        names, declared = set(given), set(self.variables)
        if missing := sorted(declared - names - set(optional)):
            raise PromptError(
                f"prompt {self.name!r} needs the variable {_names(missing)}, which is not given; "
                "give it, or use another prompt"
            )
        if extra := sorted(names - declared):
            raise PromptError(
                f"prompt {self.name!r} does not declare the variable {_names(extra)}; use a prompt that declares it"
            )

    def about(self, query: str) -> Self:
        """The prompt with this query in its variable `query`, where it has that variable beside others."""
        if "query" not in self.variables:
            return self
        bound = self.model_copy()
        bound._given = {"query": query}
        return bound

    def render(self, **values: str) -> str:
        """The text with each variable's value in its place. Values are plain text: braces in them mean nothing.

        Raises `PromptError` for a missing variable and for one that is not declared.
        """
        values = {**self._given, **values}
        self.check_variables(values)
        return fill(self.template, values)

    def form(self, name: str, **values: str) -> str:
        """A form of this prompt (`fieldscope.prompts.forms`) with its variables filled in."""
        return fill((self.forms or {}).get(name, DEFAULTS[name]), values)


def parse_prompt(text: str, where: str, folder: Path = Path()) -> Prompt:
    """A prompt from the text of its file; `where` names it in errors, and `folder` is where the files lie that it
    names. Raises `PromptError`."""
    parts = _FRONT_MATTER.match(text)
    if parts is None:
        raise PromptError(f"{where}: must begin with a front matter between two lines of '---'; add it")
    front = parse_yaml(parts["front"], where, PromptError)
    if "template" in front:
        raise PromptError(f"{where}: unknown key 'template'; put the wording below the front matter")
    try:
        front = _with_files(front, folder)
    except PromptError as error:
        raise PromptError(f"{where}: {error}") from error
    prompt = validated(Prompt, {**front, "template": parts["template"].strip()}, where, PromptError)
    check_template(prompt, where)
    return prompt


def read_prompt(path: Path, where: str | None = None) -> Prompt:
    """The prompt in a file, which `where` names in errors. Raises `PromptError` for one that can't be used."""
    return parse_prompt(read_document(path, PromptError), where or str(path), path.parent)


def _with_files(front: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The front matter with the text of its `system_file`, and with the pictures of its examples."""
    front = dict(front)
    if "system_file" in front:
        if "system" in front:
            raise PromptError("it has both system and system_file; remove one of them")
        name = str(front.pop("system_file"))
        if Path(name).name != name:
            raise PromptError(f"system_file {name!r} is no file beside the prompt; give its name alone")
        front["system"] = read_document(folder / name, PromptError).strip()
    if "examples" in front:
        front["examples"] = read_examples(front["examples"], folder)
    return front


def check_template(prompt: Prompt, where: str) -> None:
    """Raise `PromptError` unless the template uses exactly the declared variables; `where` names it in errors."""
    used = set(PLACEHOLDER.findall(prompt.template))
    if undeclared := sorted(used - set(prompt.variables)):
        raise PromptError(
            f"{where}: the template uses the variable {_names(undeclared)}, which is not declared; add it to variables"
        )
    if unused := sorted(set(prompt.variables) - used):
        raise PromptError(
            f"{where}: the variable {_names(unused)} is declared, but the template never uses it; use or remove it"
        )
    if "{{" in PLACEHOLDER.sub("", prompt.template):
        raise PromptError(f"{where}: a '{{{{' in the template is no placeholder; write '{{{{ variable }}}}'")


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
