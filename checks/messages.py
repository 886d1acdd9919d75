"""Every error and warning of the product, read from the sources; `docs/messages.md` is generated from them.

What counts as a message, by rule:

    errors      calls of a class of the `FieldscopeError` tree, of click's errors, and `ValueError` in a validator of a
                pydantic model, which becomes a `ConfigError`; other exceptions are for programmers
    warnings    arguments of `warn`, and texts in a function or variable that is named `flags`, `..._flag`, `warnings`
    notes       arguments of `note`

An error says what happened and what to do; a warning says what happened, and what follows from it or what to do. A
message that only passes on another one is not listed. A warning that recorded results hold and code recognises stays as
it is: it is listed, and needs no advice.

    python -m checks.messages            exits with 1 where advice is missing or docs/messages.md is out of date
    python -m checks.messages --missing  lists the messages without advice as `file:line: message`
    python -m checks.messages --write    writes docs/messages.md
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from checks.advice import split_advice
from checks.imports import Violation, layer_of
from checks.texts import Function, Scope, Sources, assigned, is_passed_on, is_prose, parameters

ROOT = Path(__file__).resolve().parent.parent
PAGE = "docs/messages.md"

_CLICK = frozenset({"UsageError", "BadParameter", "BadOptionUsage", "ClickException"})
_SPOKEN = {"warn": "warning", "note": "note", "error": "error"}
_FEEDBACK = "service/wiring/feedback.py"
_FLAGS = re.compile(r"(^|_)(flags?|flags_of|warnings?|doubts|lost_(stages|reasons))$")

_RECORDED = frozenset(
    {
        "{unknown} of {total} calls gave no answer",
        "the answers are the benchmark's published ones, asked in its own wording",
    }
)
"""Warnings that stand in recorded results and must stay as they are."""


@dataclass(frozen=True)
class Message:
    """One message: its kind (an error's class, `usage error`, `warning`, `note`), its text with placeholders, and where
    it comes from."""

    kind: str
    text: str
    file: str
    line: int

    @property
    def parts(self) -> tuple[str, str]:
        """What happened, and what to do or what follows from it; either may be empty."""
        return split_advice(self.text, follows=self.kind in ("warning", "note"))

    @property
    def fault(self) -> str | None:
        """What the message does not say; None where it says all that it must."""
        happened, advice = self.parts
        if self.kind == "note" or (self.kind == "warning" and self.text in _RECORDED):
            return None
        if not happened:
            return "does not say what happened"
        if not advice:
            return "does not say what follows" if self.kind == "warning" else "does not say what to do"
        return None


def collect(sources: Sources) -> list[Message]:
    """Every message of the product, sorted by file and line."""
    positions = _error_classes(sources)
    messages = {
        Message(kind, " ".join(text.split()), scope.file, line)
        for file in sources.trees
        for node, scope in sources.nodes[file]
        for kind, value, where, line in _said(sources, positions, node, scope)
        if not is_passed_on(text := sources.text(value, where)) and (is_prose(text) or kind not in _SPOKEN.values())
    }
    return sorted(messages, key=lambda message: (message.file, message.line, message.text))


Said = tuple[str, ast.expr, Scope, int]
"""A message's kind, the expression that makes its text, where that stands, and the line."""


def _error_classes(sources: Sources) -> dict[str, int]:
    """The classes of the `FieldscopeError` tree -> which of their arguments is the message."""
    tops = [node for tree in sources.trees.values() for node in tree.body]
    classes = {node.name: node for node in tops if isinstance(node, ast.ClassDef)}
    positions = {"FieldscopeError": 0}
    known = 0
    while known < len(positions):  # a class may stand before its base
        known = len(positions)
        for name, node in classes.items():
            inherited = [positions[base] for one in node.bases if (base := getattr(one, "id", "")) in positions]
            if inherited:
                positions[name] = _position_of_text(node, inherited[0])
    return positions


def _position_of_text(node: ast.ClassDef, inherited: int) -> int:
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            calls = [part for part in ast.walk(method) if isinstance(part, ast.Call)]
            for call in calls:
                if ast.unparse(call.func) == "super().__init__" and call.args and isinstance(call.args[0], ast.Name):
                    return parameters(method).index(call.args[0].id) - 1  # without self
    return inherited


def _said(sources: Sources, positions: dict[str, int], node: ast.AST, scope: Scope) -> Iterator[Said]:
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        found = _kind_of_call(sources, positions, node, name, scope)
        if found == ("warning", -1):  # a function that makes the text
            yield "warning", node, scope, node.lineno
        elif found is not None and len(node.args) > found[1]:
            yield from _traced(sources, found[0], node.args[found[1]], scope, node.lineno)
    elif isinstance(node, Function) and _FLAGS.search(node.name) and not node.name.endswith("_flag"):
        if scope.file != _FEEDBACK and not _makes_options(node):
            for statement in node.body[1:] if ast.get_docstring(node) else node.body:
                yield from _texts(statement, Scope(scope.file, (node, *scope.functions)))
    elif (
        isinstance(node, ast.Assign | ast.AnnAssign)
        and node.value is not None
        and _names_flags(node, bool(scope.functions))
    ):
        yield from _texts(ast.Expr(node.value), scope)


def _makes_options(function: Function) -> bool:
    """Whether a function's flags are those of a command line, by the type of what it returns."""
    return function.returns is not None and re.search(r"\bOption\b", ast.unparse(function.returns)) is not None


def _names_flags(node: ast.Assign | ast.AnnAssign, in_function: bool) -> bool:
    """Whether a variable holds warnings. A module's constants `..._FLAGS` are those of a command line."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [target.id.lower() for target in targets if isinstance(target, ast.Name)]
    return any(_FLAGS.search(name) and (in_function or not name.endswith("s")) for name in names)


def _kind_of_call(
    sources: Sources, positions: dict[str, int], call: ast.Call, name: str, scope: Scope
) -> tuple[str, int] | None:
    """The kind of message that a call makes, and which argument is its text."""
    if name in positions:
        return name, positions[name]
    if name.endswith("_flag"):
        return "warning", -1
    if name in _CLICK or (name == "fail" and isinstance(call.func, ast.Attribute)):
        return "usage error", 0
    if name in _SPOKEN and sources.meaning(scope.file, name)[0] == _FEEDBACK != scope.file:
        return _SPOKEN[name], 0
    if name == "ValueError" and any(_is_validator(function) for function in scope.functions):
        return "ConfigError", 0
    for function in scope.functions[:1]:  # `raise error(...)` of a class that the caller chose
        for one in (*function.args.args, *function.args.kwonlyargs):
            if one.arg == name and one.annotation is not None and "Error]" in ast.unparse(one.annotation):
                return re.sub(r".*\[(\w+)\]$", r"\1", ast.unparse(one.annotation)), 0
    return None


def _is_validator(function: Function) -> bool:
    return any("_validator" in ast.unparse(decorator) for decorator in function.decorator_list)


def _traced(sources: Sources, kind: str, value: ast.expr, scope: Scope, line: int) -> Iterator[Said]:
    """The expression; of a variable or a parameter, also what it is given in the function, or by its callers."""
    given = assigned(value.id, scope) if isinstance(value, ast.Name) else []
    yield from ((kind, one, scope, one.lineno) for one in given)
    if not given:
        yield kind, value, scope, line
    if not isinstance(value, ast.Name) or not scope.functions:
        return
    function = scope.functions[0]
    if value.id in parameters(function):
        place = parameters(function).index(value.id)
        for node, there in sources.nodes[scope.file]:
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function.name and len(node.args) > place:
                yield kind, node.args[place], there, node.lineno


def _texts(node: ast.AST, scope: Scope) -> Iterator[Said]:
    """The whole texts of warnings in a statement, and the constants that it names. A text that another variable holds
    is a part of a warning."""
    if isinstance(node, ast.Assign | ast.AnnAssign) and not (
        _names_flags(node, in_function=True) or _is_list(node.value)
    ):
        return
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Name(id=name) if name.isupper():
                yield "warning", child, scope, child.lineno
            case ast.JoinedStr() | ast.Constant(value=str()):
                yield "warning", child, scope, child.lineno
            case ast.Compare():
                pass
            case ast.Call() if _makes_its_own(child):
                pass
            case _:
                yield from _texts(child, scope)


def _is_list(node: ast.expr | None) -> bool:
    return isinstance(node, ast.List | ast.ListComp | ast.Tuple)


def _makes_its_own(call: ast.Call) -> bool:
    """Whether a call's arguments are no warnings: a field's description, and parts of a text."""
    return getattr(call.func, "id", "").endswith(("Field", "_flag"))


def page(messages: list[Message]) -> str:
    """The generated page: a table for each folder, in the order of the messages' words."""
    lines = [
        "# Messages",
        "",
        "Every error, warning and note that Fieldscope gives, with what happened and what to do. `{name}` stands for",
        "what a message names. This page is generated from the sources: `make messages` writes it.",
        "",
        "A command that ends in an error prints one line and exits with status 1, and with 2 for a usage error. Set",
        "`FIELDSCOPE_DEBUG=1` to see the traceback. The service answers with the same sentence as JSON and a code for",
        "programs, see [service.md](service.md). A warning goes to standard error and into the result.",
    ]
    for layer in sorted({layer_of(message.file) for message in messages}):
        rows: dict[tuple[str, str], list[Message]] = defaultdict(list)
        for message in messages:
            if layer_of(message.file) == layer:
                rows[message.parts].append(message)
        lines += ["", f"## `{layer}/`", "", "| what happened | what to do | kind | from |", "| --- | --- | --- | --- |"]
        for parts, alike in sorted(rows.items()):
            kinds = ", ".join(sorted({message.kind for message in alike}))
            files = ", ".join(sorted({f"`{message.file}`" for message in alike}))
            lines.append(f"| {' | '.join(map(_cell, parts))} | {kinds} | {files} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table: as it is, with what would be markup escaped."""
    return re.sub(r"([|*<>\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def main() -> int:
    """Check, list or write. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Every error and warning of the product.")
    parser.add_argument("--missing", action="store_true", help="list the messages without advice only")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    given = parser.parse_args()
    messages = collect(Sources.read(ROOT))
    faults = check(messages)
    written = page(messages)
    if given.write:
        (ROOT / PAGE).write_text(written, encoding="utf-8")
    elif not given.missing and (not (ROOT / PAGE).exists() or (ROOT / PAGE).read_text(encoding="utf-8") != written):
        faults.append(Violation(PAGE, 1, "is out of date; run `make messages`"))
    for fault in faults:
        print(fault)
    print(f"{len(faults)} faults in {len(messages)} messages")
    return 1 if faults and not given.write else 0


def check(messages: list[Message]) -> list[Violation]:
    """The messages that do not say all that they must."""
    return [
        Violation(message.file, message.line, f"{message.fault}: {message.text}")
        for message in messages
        if message.fault is not None
    ]


if __name__ == "__main__":
    sys.exit(main())
