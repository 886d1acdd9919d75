"""The published schema is what the records say, results fit it, and it documents every event."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import fieldscope.agent
from fieldscope.agent.trace import EVENTS, result_to_json, trace_schema
from fieldscope.agent.types import (
    Call,
    Comparison,
    Instruction,
    Predicate,
    RankedCandidate,
    Reason,
    RerankResult,
    Synthesis,
    TraceEvent,
    Verdict,
)
from fieldscope.core.types import Turn
from tests.agent.traced import agentic, single

ROOT = Path(fieldscope.agent.__file__).parents[1]
SCHEMA = ROOT / "docs" / "trace.schema.json"

finite = st.floats(allow_nan=False, allow_infinity=False)
share = st.floats(min_value=0, max_value=1)
asked: dict[str, Any] = {"latency": st.floats(min_value=0, max_value=1e6)}
plain_data = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def some(record: Any, **fields: Any) -> st.SearchStrategy[Any]:
    return st.lists(st.builds(record, **fields), max_size=2).map(tuple)


results = st.builds(
    RerankResult,
    query_id=st.text(),
    query_text=st.text(),
    reference_image=st.none() | st.text(),
    dialogue=some(Turn),
    strategy=st.text(),
    ranking=some(RankedCandidate, score=finite, prior=finite, p_match=st.none() | share,
                 contributions=st.dictionaries(st.text(max_size=5), finite, max_size=2)),
    synthesis=st.none() | st.builds(Synthesis, instructions=some(Instruction)),
    predicates=some(Predicate),
    verdicts=some(Verdict, p_yes=st.none() | share, p_expected=st.none() | share, **asked),
    comparisons=some(Comparison, probabilities=st.lists(share, max_size=3).map(tuple), **asked),
    reasons=some(Reason, **asked),
    calls=some(Call, **asked),
    trace=some(TraceEvent, at=finite, data=st.dictionaries(st.text(max_size=5), plain_data, max_size=2)),
    ended=st.none() | st.text(),
    flags=st.lists(st.text(), max_size=2).map(tuple),
)  # fmt: skip


@pytest.fixture(scope="module")
def published() -> Draft202012Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_published_schema_is_what_the_records_say() -> None:
    stale = "write it anew: fieldscope trace --schema > docs/trace.schema.json"
    assert SCHEMA.read_text(encoding="utf-8") == json.dumps(trace_schema(), indent=2) + "\n", stale


def test_it_introduces_itself_and_describes_every_record(published: Draft202012Validator) -> None:
    schema: Any = published.schema
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"$id", "title", "description"} <= schema.keys()
    assert [name for name, record in schema["$defs"].items() if not record.get("description")] == []


@pytest.mark.parametrize("result", [single(), agentic()])
def test_results_fit_it(published: Draft202012Validator, result: RerankResult) -> None:
    published.validate(json.loads(result_to_json(result)))


@given(results)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_result_fits_it(published: Draft202012Validator, result: RerankResult) -> None:
    published.validate(json.loads(result_to_json(result)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("ranking", 0, "rank"), 0),
        (("ranking", 0, "score"), None),
        (("verdicts", 0, "state"), "no"),
        (("predicates", 0, "expected"), "perhaps"),
        (("comparisons", 0, "probabilities"), "0.7"),
        (("trace", 0, "data"), []),
        (("synthesis", "cost"), 1),
        (("query_id",), None),
        (("unheard_of",), 1),
    ],
)
def test_what_is_no_result_does_not_fit_it(published: Draft202012Validator, path: tuple[Any, ...], value: Any) -> None:
    told = json.loads(result_to_json(agentic()))
    inside = told
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    assert not published.is_valid(told)


def test_every_event_that_a_stage_writes_is_documented(published: Draft202012Validator) -> None:
    sources = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "agent" / "nodes").glob("*.py"))
    written = set(re.findall(r'(?:TraceEvent\(\s*kind=|\.event\(\s*)"(\w+)"', sources))
    assert {"started", "retrieved", "ranked"} <= written <= EVENTS.keys()
    schema: Any = published.schema
    told = schema["$defs"]["TraceEvent"]["properties"]["kind"]["description"]
    page = (ROOT / "docs" / "trace.md").read_text(encoding="utf-8")
    assert [kind for kind in EVENTS if f"- {kind}:" not in told or f"`{kind}`" not in page] == []
