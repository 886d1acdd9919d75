import inspect

import pytest

from fieldscope.core import errors
from fieldscope.core.errors import FieldscopeError, LMMRateLimitError

ALL = [c for _, c in inspect.getmembers(errors, inspect.isclass) if not issubclass(c, Warning)]


@pytest.mark.parametrize("cls", ALL)
def test_every_error_is_in_the_one_tree_and_keeps_its_line(cls: type[FieldscopeError]) -> None:
    assert issubclass(cls, FieldscopeError)
    assert str(cls("do this")) == "do this"


def test_the_drawing_in_the_docstring_is_the_tree() -> None:
    drawn: list[tuple[str, str | None]] = []
    branch: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        name = line.strip("│├└─ ").split(" ")[0]
        if name.endswith("Error"):
            depth = line.index(name) // 4
            branch = [*branch[:depth], name]
            drawn.append((name, branch[-2] if depth else None))
    actual = [(c.__name__, c.__base__.__name__ if c is not FieldscopeError else None) for c in ALL]
    assert sorted(drawn, key=str) == sorted(actual, key=str)


def test_rate_limit_keeps_the_pause_it_was_given() -> None:
    assert LMMRateLimitError("slow down", retry_after=2.5).retry_after == 2.5
    assert LMMRateLimitError("slow down").retry_after is None
