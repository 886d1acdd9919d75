"""A query as a user gives it: its words, the file of its dialogue, and the words that the bundled models know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ConfigError
from fieldscope.core.validation import load_yaml
from fieldscope.service.wiring.bundled import require_known_words, unknown_words
from fieldscope.service.wiring.feedback import note

if TYPE_CHECKING:
    from fieldscope.core.types import Query

LARGEST_DIALOGUE = 65_536
"""Bytes of a dialogue's file."""

MOST_ROUNDS = 100


def make_query(text: str, dialogue: Path | None = None) -> Query:
    """A query; `dialogue` is a JSON or YAML file with the rounds that follow it, a list of {question, answer}.

    Raises `ConfigError` for texts without words, or that are not Unicode, and for a file that holds something else.
    """
    from fieldscope.core.types import Query, Turn
    from fieldscope.core.validation import validated

    fields: dict[str, Any] = {"id": "query", "text": _words(text, "the query")}
    if dialogue is None:
        return Query(**fields)
    read = validated(Query, fields | {"dialogue": _rounds(dialogue)}, str(dialogue), ConfigError)
    rounds = [
        Turn(
            question=_words(turn.question, f"{dialogue}: question {number}"),
            answer=_words(turn.answer, f"{dialogue}: answer {number}"),
        )
        for number, turn in enumerate(read.dialogue, start=1)
    ]
    return read.model_copy(update={"dialogue": tuple(rounds)})


def read_queries(file: Path) -> list[Query]:
    """The queries in a file, a line each: a text, or a JSON object with a `text` and perhaps an `id`. Without ids of
    their own they are called q1, q2 and so on. Raises `ConfigError`, which names the line."""
    from fieldscope.core.types import Query
    from fieldscope.core.validation import read_document

    queries: dict[str, Query] = {}
    for number, line in enumerate(read_document(file, ConfigError).splitlines(), start=1):
        if not line.strip():
            continue
        own: dict[str, Any] = {"text": line}
        if line.lstrip().startswith("{"):
            try:
                own = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{file}, line {number}: it is no JSON ({error}). Correct it.") from error
        name, text = own.get("id", f"q{len(queries) + 1}"), own.get("text")
        if not isinstance(name, str) or not name or not isinstance(text, str) or own.keys() - {"id", "text"}:
            raise ConfigError(f"{file}, line {number}: a query has a `text` and perhaps an `id`. Correct it.")
        if name in queries:
            raise ConfigError(f"{file}, line {number}: the id {name!r} occurs twice. Give each query its own.")
        queries[name] = Query(id=name, text=_words(text, f"{file}, line {number}"))
    if not queries:
        raise ConfigError(f"{file} has no query. Write one a line.")
    return list(queries.values())


def _words(text: str, what: str) -> str:
    text = " ".join(text.split())
    if not text or not all(character.isprintable() for character in text):
        raise ConfigError(f"{what} must be words in UTF-8; say what the images should show")
    return text


def _rounds(file: Path) -> list[Any]:
    """The list in a file whose name ends in `.json`, or else in YAML, where every scalar is text: `no` is an answer."""
    import yaml

    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST_DIALOGUE + 1)
    except OSError as error:
        raise ConfigError(f"{file}: can't be read ({error.strerror or error}); check the path") from error
    if len(data) > LARGEST_DIALOGUE:
        raise ConfigError(f"{file}: is larger than {LARGEST_DIALOGUE // 1024} KiB, too much for a dialogue; shorten it")
    kind = "JSON" if file.suffix.lower() == ".json" else "YAML"
    try:
        text = data.decode("utf-8-sig")
        rounds = json.loads(text) if kind == "JSON" else load_yaml(text, all_text=True)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{file}: can't be read as {kind} in UTF-8 ({reason}); put the texts in quotes") from error
    if not isinstance(rounds, list) or len(rounds) > MOST_ROUNDS:
        raise ConfigError(
            f"{file}: a dialogue is a list of at most {MOST_ROUNDS} rounds, each with a 'question' and an 'answer'; "
            "write it as such a list"
        )
    return rounds


def require_query_words(query: Query, *, lmm: bool, clip: bool) -> None:
    """Raise `VocabularyError` for words that the bundled `lmm` or `clip`, where it reads them, has never seen.

    Words of a change to a reference image that the CLIP does not know, such as "but", are only noted: it also searches
    by the image.
    """
    from fieldscope.retrieval.encoder import query_text

    if lmm:
        rounds = (text for turn in query.dialogue for text in (turn.question, turn.answer))
        require_known_words([query.text, *rounds], "lmm")
    if not clip:
        return
    if query.reference_image is None:
        require_known_words([query_text(query)], "clip")
    elif unknown := unknown_words([query.text], "clip"):
        named = ", ".join(map(repr, unknown))
        note(f"The bundled CLIP does not know {named}; it searches by the reference image and the other words.")
