"""Words and sentences that slow a reader down, in what a person reads; say something plainer instead.

    docs        README.md, CONTRIBUTING.md, docs/*.md without code, quotations and the generated list of messages; the
                Makefile's help
    texts       string literals of the product with a space in them (messages, help, descriptions, labels), and the
                docstrings of commands, which are their help. Of FieldNotes, whose strings are data, errors only
    templates   the viewer's templates and scripts, without markup and code
    sentences   whole sentences that were replaced, in all of these and in docstrings and comments

Run as a script, it prints `file:line: "word": say ... instead`, and exits with 1 where there is one. `--docstrings`
looks for the words in docstrings and comments, too; that is no part of `make check`.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeGuard

from checks.imports import Violation
from checks.texts import PRODUCT, Function

ROOT = Path(__file__).resolve().parent.parent

WORDS: Mapping[str, str] = {
    r"nobody|no-?body(?: else)?": "'no one', or name who does not",
    r"somebody": "'someone', or name who",
    r"anew": "'again'",
    r"mend(?:s|ed|ing)?": "'fix'",
    r"wanting": "'missing', or 'needed'",
    r"for want of": "'because ... is missing'",
    r"wants": "'needs'",
    r"(?:un)?told": "who says or gets what",
    r"in (?:its|their|his|her) places?": "'instead'",
    r"(?:(?:that|which) (?:is|are) )?to be had": "'available'",
    r"doors?": "the name of the interface",
    r"shel(?:f|ves)(?! fung)": "the name of the folder or list",
    r"rooms?": "'folder' for code, 'space' for memory or disk",
    r"storeys?|the house": "'the project', or 'layer'",
    r"by and by": "'over time'",
    r"settl(?:e|es|ed|ing)": "'decide', 'merge' or 'charge'",
    r"so as to": "'to'",
    r"whosoever|whatsoever": "'whoever', 'whatever'",
}
"""A word or phrase as a pattern -> what to say instead of it."""

SENTENCES: Mapping[str, str] = {
    r"mend the model or its server": "'Restart the server and rerun this command'",
    r"what they would have said counts for nothing": "'The affected images keep their first-stage position'",
    r"have another \S+ each": "'were made with different ...s'",
    r"turns instructions into predicates; it wants": "'Stage `decompose` needs stage `synthesize`'",
    r"comparison does not pay": "'Comparisons are off: this model's calibration shows no benefit'",
    r"No call of this run that is to be had": "'No call in this run used this prompt'",
    r"In their place all combinations of a grid": "'Evaluate every combination in this grid file instead'",
    r"Of the calls that a query takes without a budget": "'Share of the average number of calls without a budget'",
    r"look at its disk": "'Check that the disk is not full'",
    r"What failed then fails again": "'Errors from the first attempt are raised again'",
    r"One question at the door": "'Send one request to the model'",
    r"made to be read from strangers": "'Safe to use on untrusted files'",
}
"""A sentence that was replaced -> its replacement."""

_SKIPPED_DOCS = frozenset({"docs/messages.md"})  # made from messages, which are checked where they are written
_VIEWER = "service/viewer"
_ATTRIBUTES = r"""(?:title|alt|placeholder|aria-label|content|label)=("[^"]*"|'[^']*')"""
_COMMANDS = ("command", "group")


def _pattern(texts: Mapping[str, str]) -> re.Pattern[str]:
    choices = "|".join(f"(?:{text})" for text in texts).replace(" ", r"\s+")
    return re.compile(rf"(?<![\w-])(?:{choices})(?!\w)", re.IGNORECASE)


_ANY_WORD, _ANY_SENTENCE = _pattern(WORDS), _pattern(SENTENCES)


def check_tree(root: Path, docstrings: bool = False) -> list[Violation]:
    """Every violation below `root`, in order of file and line. With `docstrings`, words in docstrings and comments of
    the product count, too."""
    violations: list[Violation] = []
    for path in (root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))):
        file = path.relative_to(root).as_posix()
        if path.exists() and file not in _SKIPPED_DOCS:
            violations += check_text(file, without_code(path.read_text(encoding="utf-8")))
    if (root / "Makefile").exists():
        violations += check_text("Makefile", _only(r"## .*", (root / "Makefile").read_text(encoding="utf-8")))
    for suffix, visible in ((".html", visible_html), (".js", visible_script)):
        for path in sorted((root / _VIEWER).rglob(f"*{suffix}")):
            text = visible(path.read_text(encoding="utf-8"))
            violations += check_text(path.relative_to(root).as_posix(), text)
    for folder in PRODUCT:
        for path in sorted((root / folder).rglob("*.py")):
            file = path.relative_to(root).as_posix()
            violations += check_source(file, path.read_text(encoding="utf-8"), docstrings)
    return sorted(set(violations), key=lambda violation: (violation.file, violation.line, violation.reason))


def check_source(file: str, source: str, docstrings: bool = False) -> Iterator[Violation]:
    """The violations of a Python file of the product."""
    tree = ast.parse(source, file)
    for line, text in _literals(tree, only_errors=file.startswith("fieldnotes/")):
        yield from check_text(file, text, line)
    for line, text in _remarks(source):
        yield from _found(file, text, line, SENTENCES, _ANY_SENTENCE)
        if docstrings:
            yield from _found(file, text, line, WORDS, _ANY_WORD)


def check_text(file: str, text: str, line: int = 1) -> Iterator[Violation]:
    """The words and sentences in a text that begins on a line of a file."""
    yield from _found(file, text, line, WORDS, _ANY_WORD)
    yield from _found(file, text, line, SENTENCES, _ANY_SENTENCE)


def _found(file: str, text: str, line: int, words: Mapping[str, str], any_of: re.Pattern[str]) -> Iterator[Violation]:
    for match in any_of.finditer(text):
        instead = next(words[word] for word in words if _pattern({word: ""}).fullmatch(match[0]))
        said = " ".join(match[0].split())
        yield Violation(file, line + text.count("\n", 0, match.start()), f'"{said}": say {instead} instead')


def without_code(text: str) -> str:
    """Markdown with code, addresses and quotations blanked; positions and lines stay."""
    kept = r"^(```|~~~)[\s\S]*?^\1|`[^`\n]*(?:\n[^`\n]*)?`|\]\([^)\s]*\)|^> .*$|\"[^\"\n]*(?:\n[^\"\n]+)?\""
    return re.sub(kept, _blank, text, flags=re.MULTILINE)


def visible_html(text: str) -> str:
    """A template with everything blanked that no reader sees: comments, tags but for texts in their attributes, and
    expressions but for texts in them."""
    text = re.sub(r"\{#[\s\S]*?#\}|<!--[\s\S]*?-->|<style[\s\S]*?</style>", _blank, text)
    text = re.sub(r"\{\{[\s\S]*?\}\}|\{%[\s\S]*?%\}", lambda match: visible_script(match[0]), text)
    return re.sub(r"<[^<>]*>", lambda match: _only(_ATTRIBUTES, match[0]), text)


def visible_script(text: str) -> str:
    """A script with everything blanked but strings that have a space in them."""
    text = re.sub(r"/\*[\s\S]*?\*/|(?m:(?<!\S)//.*$)", _blank, text)
    strings = r'"(?:[^"\\\n]|\\.)*"|' + r"'(?:[^'\\\n]|\\.)*'|`[^`]*`"
    text = re.sub(strings, lambda match: match[0] if " " in match[0] else _blank(match), text)
    return _only(strings, text)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _only(pattern: str, text: str) -> str:
    """The text with everything blanked but what matches."""
    pieces, end = [], 0
    for match in re.finditer(pattern, text):
        pieces += [re.sub(r"[^\n]", " ", text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*pieces, re.sub(r"[^\n]", " ", text[end:])])


def _literals(tree: ast.Module, only_errors: bool) -> Iterator[tuple[int, str]]:
    """Line and text of what a program may show: strings with a space, and the docstrings of commands."""
    roots = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)] if only_errors else [tree]
    everything = list(ast.walk(tree))
    remarks = {id(node.value) for node in everything if isinstance(node, ast.Expr)}
    remarks -= {id(getattr(node.body[0], "value", None)) for node in everything if _is_command(node)}
    for node in (node for root in roots for node in ast.walk(root)):
        text = node.value if isinstance(node, ast.Constant) and id(node) not in remarks else None
        if isinstance(text, str) and " " in text.strip():
            yield getattr(node, "lineno", 1), text


def _is_command(node: ast.AST) -> TypeGuard[Function]:
    if not isinstance(node, Function):
        return False
    decorators = [one.func if isinstance(one, ast.Call) else one for one in node.decorator_list]
    return any(getattr(one, "attr", getattr(one, "id", "")) in _COMMANDS for one in decorators)


def _remarks(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of docstrings and comments."""
    previous = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
        if token.type == tokenize.STRING and previous in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            yield token.start[0], token.string
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            previous = token.type


def main() -> int:
    """Check the repository that this file lies in. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Words that slow a reader down.")
    parser.add_argument("--docstrings", action="store_true", help="look in docstrings and comments, too")
    violations = check_tree(ROOT, parser.parse_args().docstrings)
    for violation in violations:
        print(violation)
    print(f"{len(violations)} words to replace" if violations else "no word that slows a reader down")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
