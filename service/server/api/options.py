"""Fieldscope's own options of a call: strategy, budget and reasons, in a body or in headers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic.json_schema import SkipJsonSchema

from fieldscope.agent.budget import Budget
from fieldscope.service.server.api.calls import Options
from fieldscope.service.server.api.filters import GivenFilter, wanted_filter
from fieldscope.service.server.api.promises import CONFIDENT, PRECISION, Wanted
from fieldscope.service.server.api.questions import GivenPredicates, fixed_predicates

EXPLAINED = 10
"""How many of the best images get a reason with `explain: true`."""

_MOST_EXPLAINED = 1000

# Headers are strings, so their schemas are patterns.
_COUNT = r"^[0-9]{1,12}$"
_SECONDS = r"^([1-9][0-9]{0,5}(\.[0-9]{1,3})?|0\.[0-9]{0,2}[1-9])$"
_EXPLAIN = r"^(true|false|[0-9]{1,3}|1000)$"


def _whole(given: Any) -> Any:
    """3.0 as 3, because JSON has no integers of its own."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


INSTRUCTION = Field(
    default=None,
    pattern=r"\S",
    description="What a match is, for an encoder that reads an instruction. Default: as the strategy says.",
)
"""The field of a request for the first stage's instruction."""

Whole = Annotated[int, BeforeValidator(_whole), Strict()]
"""An integer, not a string or a boolean that could be read as one."""

_Absent = SkipJsonSchema[None]  # a header has no null, only no header


class BudgetFields(BaseModel):
    """What a call may spend: calls to the LMM, tokens (read and written), seconds before the last call begins."""

    model_config = ConfigDict(strict=True, extra="forbid")

    max_calls: Annotated[Whole, Field(ge=0)] | None = None
    max_tokens: Annotated[Whole, Field(ge=0)] | None = None
    deadline: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    def budget(self) -> Budget:
        """The agent's record of it."""
        return Budget(self.max_calls, self.max_tokens, self.deadline)


class OptionFields(BaseModel):
    """Fieldscope's own fields in a body."""

    model_config = ConfigDict(strict=True, extra="allow")

    strategy: str | None = Field(
        default=None, description="One of /v1/strategies. Default: the service's own choice.", examples=["agent"]
    )
    budget: BudgetFields | None = Field(default=None, examples=[{"max_calls": 200, "deadline": 30.0}])
    instruction: str | None = INSTRUCTION
    explain: Annotated[Whole, Field(ge=0, le=_MOST_EXPLAINED)] | bool = Field(
        default=0,
        description=f"How many of the best images get a reason; true means {EXPLAINED}. Adds `p_match` and `reason` to "
        "results.",
    )
    predicates: GivenPredicates | None = Field(
        default=None, description="Asked in place of those that the model would derive from the query."
    )
    filter: GivenFilter | None = None
    precision: float | None = PRECISION
    confidence: float = CONFIDENT


class OptionHeaders(BaseModel):
    """The same options as headers, for clients that can send only their own fields. A field of the body wins."""

    x_fieldscope_strategy: Annotated[str, Field(min_length=1)] | _Absent = None
    x_fieldscope_budget_max_calls: Annotated[str, Field(pattern=_COUNT)] | _Absent = None
    x_fieldscope_budget_max_tokens: Annotated[str, Field(pattern=_COUNT)] | _Absent = None
    x_fieldscope_budget_deadline: Annotated[str, Field(pattern=_SECONDS)] | _Absent = None
    x_fieldscope_explain: Annotated[str, Field(pattern=_EXPLAIN)] | _Absent = None


Headers = Annotated[OptionHeaders, Header()]


def options(fields: OptionFields, headers: OptionHeaders) -> Options:
    """The options of a call, from the body or else from headers."""
    sent = {name: getattr(headers, f"x_fieldscope_budget_{name}") for name in BudgetFields.model_fields}
    limits = {name: float(value) for name, value in sent.items() if value is not None}
    limits |= fields.budget.model_dump(exclude_none=True) if fields.budget else {}
    return Options(
        strategy=fields.strategy or headers.x_fieldscope_strategy,
        budget=BudgetFields.model_validate(limits).budget() if limits else None,
        explain=_explained(fields, headers),
        instruction=fields.instruction,
        predicates=fixed_predicates(fields.predicates),
        wanted=Wanted(fields.precision, fields.confidence),
        filter=wanted_filter(fields.filter),
    )


def _explained(fields: OptionFields, headers: OptionHeaders) -> int:
    explain, text = fields.explain, headers.x_fieldscope_explain
    if text is not None and "explain" not in fields.model_fields_set:
        explain = int(text) if text.isdecimal() else text == "true"
    return EXPLAINED if explain is True else int(explain)
