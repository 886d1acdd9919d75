"""The list of messages: every kind is found with its advice, other exceptions are not, and a message without advice is
a fault."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from checks.messages import PAGE, Message, check, collect, page
from checks.texts import Sources

ROOT = Path(__file__).resolve().parents[2]

ERRORS = """
class FieldscopeError(Exception): ...
class ConfigError(FieldscopeError): ...
class ApiError(FieldscopeError):
    def __init__(self, status, code, sentence):
        super().__init__(sentence)
"""
FEEDBACK = """
def warn(message): ...
def note(message): ...
"""
HEAD = """
from fieldscope.core.errors import ApiError, ConfigError
from fieldscope.service.wiring.feedback import note, warn
"""


def messages(source: str, **others: str) -> list[Message]:
    sources = {"core/errors.py": ERRORS, "service/wiring/feedback.py": FEEDBACK, "agent/a.py": HEAD + source}
    sources |= {f"agent/{name}.py": text for name, text in others.items()}
    return collect(Sources({file: ast.parse(text) for file, text in sources.items()}))


def texts(source: str, **others: str) -> list[tuple[str, str]]:
    return [(message.kind, message.text) for message in messages(source, **others)]


def test_placeholders_are_named_for_what_they_hold() -> None:
    source = (
        """raise ConfigError(f"{path.name!r} has {len(rows):,} rows ({', '.join(self.names)}); give {one(error)}")"""
    )
    assert texts(source) == [("ConfigError", "{path} has {number} rows ({names}); give {one}")]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("raise ConfigError('the file is empty; fill it')", "ConfigError"),
        ("def fault(): return ConfigError('the file is empty; fill it')", "ConfigError"),
        ("raise ApiError(404, 'no_file', 'the file is empty; fill it')", "ApiError"),
        ("def read(error: type[ConfigError]): raise error('the file is empty; fill it')", "ConfigError"),
        ("raise click.UsageError('the file is empty; fill it')", "usage error"),
        (
            "@model_validator(mode='after')\ndef check(self): raise ValueError('the file is empty; fill it')",
            "ConfigError",
        ),
        ("warn('the file is empty; fill it')", "warning"),
        ("note('the file is empty; fill it')", "note"),
        ("def read(): flags = ['the file is empty; fill it']", "warning"),
        ("def of_file_flags(): yield 'the file is empty; fill it'", "warning"),
        ("def flags() -> list[str]: return ['the file is empty; fill it']", "warning"),
        ("TEXT = 'the file is empty; fill it'\nraise ConfigError(TEXT)", "ConfigError"),
        ("def read():\n    text = 'the file is empty; fill it'\n    raise ConfigError(text)", "ConfigError"),
        ("def fail(text): raise ConfigError(text)\ndef read(): fail('the file is empty; fill it')", "ConfigError"),
        ("def empty(what): return f'the {what} is empty; fill it'\nwarn(empty('file'))", "warning"),
    ],
)
def test_every_kind_of_message_is_found(source: str, kind: str) -> None:
    assert texts(source) == [(kind, "the file is empty; fill it")]


def test_a_text_is_followed_through_an_import() -> None:
    source = "from fieldscope.agent.b import ADVICE\nraise ConfigError(f'the file is empty; {ADVICE}')"
    assert texts(source, b="ADVICE = 'fill it with queries'") == [
        ("ConfigError", "the file is empty; fill it with queries")
    ]


@pytest.mark.parametrize(
    "source",
    [
        "raise ValueError('k must be positive')",
        "raise ConfigError(str(error))",
        "raise ConfigError(f'call {number}: {error}')",
        "LOG.error('the file is empty')",
        "name = 'the file is empty'",
        "SERVER_FLAGS = (('port', 'The port of the server.'),)",
        "def server_flags() -> dict[str, Option]: return {'port': flag('port', 'The port of the server.')}",
        "def flags(): return [f'on {len(warnings)} queries {warnings[0]}' for warnings in lost.values()]",
    ],
)
def test_what_is_for_programmers_or_passed_on_is_no_message(source: str) -> None:
    assert texts(source) == []


@pytest.mark.parametrize(
    ("text", "happened", "advice"),
    [
        ("the file is empty; fill it", "the file is empty", "fill it"),
        (
            "The server stopped. Restart it and rerun this command.",
            "The server stopped",
            "Restart it and rerun this command.",
        ),
        ("no job {id}; /v1/jobs lists them", "no job {id}", "/v1/jobs lists them"),
        ("no key yet: to make one, run `fieldscope keys add`", "no key yet", "to make one, run `fieldscope keys add`"),
        ("{path} is damaged (no header); fetch it again", "{path} is damaged (no header)", "fetch it again"),
        ("unknown key 'a' (did you mean 'b'?)", "unknown key 'a'", "did you mean 'b'?"),
        (
            "{path} is version 1. Use the Fieldscope that wrote it",
            "{path} is version 1",
            "Use the Fieldscope that wrote it",
        ),
    ],
)
def test_a_message_is_cut_where_its_advice_begins(text: str, happened: str, advice: str) -> None:
    assert Message("ConfigError", text, "a.py", 1).parts == (happened, advice)
    assert Message("ConfigError", text, "a.py", 1).fault is None


@pytest.mark.parametrize(
    ("kind", "text", "fault"),
    [
        ("ConfigError", "the file is empty", "does not say what to do"),
        ("ConfigError", "the file is empty; it has no rows", "does not say what to do"),
        ("usage error", "name two runs", "does not say what happened"),
        ("warning", "3 calls failed", "does not say what follows"),
        ("warning", "3 calls failed. Their images keep their first-stage position.", None),
        ("note", "nothing was removed", None),
        ("warning", "{unknown} of {total} calls gave no answer", None),
        ("ConfigError", "{unknown} of {total} calls gave no answer", "does not say what to do"),
    ],
)
def test_a_message_that_lacks_a_part_is_a_fault(kind: str, text: str, fault: str | None) -> None:
    message = Message(kind, text, "a.py", 7)
    assert message.fault == fault
    assert [str(one) for one in check([message])] == ([f"a.py:7: {fault}: {text}"] if fault else [])


def test_the_page_lists_a_message_once_with_all_its_kinds_and_files() -> None:
    text = "{path} is a|b; fill it"
    written = page([Message("ConfigError", text, "agent/b.py", 1), Message("LMMError", text, "agent/a.py", 2)])
    assert r"| {path} is a\|b | fill it | ConfigError, LMMError | `agent/a.py`, `agent/b.py` |" in written
    assert written.count("fill it") == 1


@pytest.mark.slow  # `make check` does it
def test_every_message_of_this_tree_says_what_to_do_and_the_page_is_up_to_date() -> None:
    found = collect(Sources.read(ROOT))
    assert len(found) > 300
    assert check(found) == []
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(found)
