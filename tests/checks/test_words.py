"""The check of words: it catches each kind of text that a person reads, and passes code, data and quotations by."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.words import SENTENCES, WORDS, check_tree

ROOT = Path(__file__).resolve().parents[2]


def violations(tmp_path: Path, file: str, text: str, docstrings: bool = False) -> list[str]:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return [f"{one.line}: {one.reason}" for one in check_tree(tmp_path, docstrings)]


def test_a_violation_names_file_line_word_and_a_better_one(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# It\n\nMake it anew.\n", encoding="utf-8")
    assert [str(one) for one in check_tree(tmp_path)] == ["README.md:3: \"anew\": say 'again' instead"]


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("README.md", "One\nNobody knows.", 2),
        ("CONTRIBUTING.md", "In their place\nstands one.", 1),
        ("docs/a.md", "It is that is to be\nhad.", 1),
        ("docs/a.md", "```\ncode\n```\nThe model is told nothing.", 4),
        ("Makefile", "train: setup ## train it anew\n", 1),
        ("agent/a.py", "\nraise ConfigError(f'{name}: nobody knows')", 2),
        ("agent/a.py", "warn(\n    'make it anew; ' f'{name}')", 2),
        ("agent/a.py", "HELP = 'Make it anew.'", 1),
        ("service/cli/a.py", "@program.command()\ndef a():\n    '''Make it anew.'''", 3),
        ("service/server/a.py", "x: int = Field(description='In its place.')", 1),
        ("service/viewer/templates/a.html", "<p>\nSomebody was here</p>", 2),
        ("service/viewer/templates/a.html", "<button title='make it anew'></button>", 1),
        ("service/viewer/templates/a.html", "{{ label('made anew') }}", 1),
        ("service/viewer/static/a.js", "say('x');\nsay('make it anew');", 2),
        ("service/viewer/static/a.js", "say(`make ${it} anew`);", 1),
        ("fieldnotes/a.py", "raise BenchmarkError('draw it anew')", 1),
    ],
)
def test_every_kind_of_text_is_read(tmp_path: Path, file: str, text: str, line: int) -> None:
    assert [one.split(":")[0] for one in violations(tmp_path, file, text)] == [str(line)]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("docs/a.md", "Run `make anew` or\n\n```sh\nmake anew\n```\n"),
        ("docs/a.md", 'A query such as "a door of a barn that nobody painted" is sent as it stands.'),
        ("docs/a.md", "> the door is open"),
        ("docs/a.md", "[the page](door.md#anew) on `told`"),
        ("docs/a.md", "a shelf fungus on a log"),
        ("docs/a.md", "the bedroom, outdoors, a newspaper, settlement, roommates"),
        ("docs/messages.md", "nobody"),
        ("CHANGELOG.md", "nobody"),
        ("agent/a.py", "told = {'wanting': 'anew'}\nshelf = rooms(door=told)"),
        ("agent/a.py", "'''Nobody knows.'''\n\n\ndef a():\n    '''Make it anew.'''  # and anew"),
        ("fieldnotes/a.py", "PROPS = ['a barn door is open', 'a shelf of stone']"),
        ("tests/a.py", "raise ConfigError('make it anew')"),
        ("service/viewer/templates/a.html", "<p class='the room'>{# nobody #}{% set told = rooms.door %}</p>"),
        ("service/viewer/static/a.js", "// nobody knows\nconst told = rooms['door']; /* make it anew */"),
        ("service/viewer/static/a.js", "say('a', 'b', told, 'c d');"),
    ],
)
def test_code_data_and_quotations_are_passed_by(tmp_path: Path, file: str, text: str) -> None:
    assert violations(tmp_path, file, text) == []


def test_docstrings_and_comments_are_read_on_request(tmp_path: Path) -> None:
    source = "'''Nobody knows.'''\n\nx = 1  # made anew\n"
    assert [one.split(":")[0] for one in violations(tmp_path, "agent/a.py", source, docstrings=True)] == ["1", "3"]


@pytest.mark.parametrize("source", ["'''{}.'''", "# {}", "def a():\n    '''{}.'''", "x = '{}'"])
def test_a_replaced_sentence_is_caught_in_docstrings_and_comments_too(tmp_path: Path, source: str) -> None:
    reasons = violations(tmp_path, "agent/a.py", source.format("One question at the door"))
    assert any("Send one request to the model" in reason for reason in reasons)


def test_every_pattern_is_reported_with_its_own_replacement(tmp_path: Path) -> None:
    examples = {"mending": "'fix'", "mended": "'fix'", "doors": "interface", "shelves": "folder", "untold": "who says"}
    for word, instead in examples.items():
        (reason,) = violations(tmp_path, "README.md", f"It is {word} here.")
        assert f'"{word}"' in reason
        assert instead in reason
    assert len(WORDS) > 10
    assert len(SENTENCES) == 12


@pytest.mark.slow  # `make check` does it
def test_no_text_of_this_tree_has_such_a_word() -> None:
    assert [str(one) for one in check_tree(ROOT)] == []
