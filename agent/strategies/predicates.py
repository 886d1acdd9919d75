"""Predicates of a person's own: in a strategy by query, in a file, or in a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo

from fieldscope.core.errors import StrategyError
from fieldscope.core.validation import load_yaml, read_document

MOST_PREDICATES = 32


def _of_text(given: Any) -> Any:
    """A question by itself, whose answer must be yes; YAML reads `yes` and `no` as true and false."""
    if isinstance(given, str):
        return {"question": given}
    if isinstance(given, dict) and isinstance(given.get("expected"), bool):
        return {**given, "expected": "yes" if given["expected"] else "no"}
    return given


class GivenPredicate(BaseModel):
    """A yes/no question, the answer that a match must give, and how much that answer counts (1: as one that the model
    derived, 0: not at all)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str = Field(pattern=r"\S", max_length=500, examples=["is the crab red?"])
    expected: Literal["yes", "no"] = "yes"
    weight: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False, exclude_if=lambda weight: weight == 1.0)


GivenList = Annotated[
    tuple[Annotated[GivenPredicate, BeforeValidator(_of_text)], ...],
    Field(min_length=1, max_length=MOST_PREDICATES),
]
_LIST: TypeAdapter[tuple[GivenPredicate, ...]] = TypeAdapter(GivenList)


def _of_file(given: Any, info: ValidationInfo) -> Any:
    """The predicates in a file that a strategy names; its path counts from the strategy's folder."""
    if not isinstance(given, str):
        return given
    folder = info.context.folder if info.context is not None else Path()
    return _loaded(Path(folder) / given)


ByQuery = Annotated[Mapping[str, GivenList], BeforeValidator(_of_file)]
"""Predicates by the id, or the text, of the query that they are asked for."""


def read_given(path: Path) -> tuple[GivenPredicate, ...]:
    """The predicates in a YAML or JSON file, a list of questions, or of mappings with `question`, `expected` and
    `weight`. Raises `StrategyError`."""
    data = _loaded(path)
    if isinstance(data, dict) and set(data) == {"predicates"}:
        data = data["predicates"]
    try:
        return _LIST.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise StrategyError(
            f"{path}: {where + ': ' if where else ''}{first['msg']}. Write a list of questions, or of mappings with "
            "`question`, `expected` (yes or no) and `weight`."
        ) from error


def _loaded(path: Path) -> Any:
    import yaml

    try:
        return load_yaml(read_document(path, StrategyError), all_text=True)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise StrategyError(f"{path}: can't be read as YAML ({reason}). Put questions in quotes.") from error


def given_for(
    predicates: Mapping[str, Sequence[GivenPredicate]] | None, query_id: str, text: str
) -> Sequence[GivenPredicate]:
    """Those of a query, by its id or its text; none where it has none of its own."""
    known = predicates or {}
    return known.get(query_id) or known.get(text) or ()
