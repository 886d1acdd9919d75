"""Results with their trace as JSON lines: writing them, reading them back, and the schema of a line."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema

from fieldscope.agent.types import RerankResult, TraceEvent
from fieldscope.core.errors import ConfigError

EVENTS = {
    "started": "The query began: the fingerprints of strategy, prompts and model.",
    "synthesized": "The request was thought out, or its own words stand in: the calls and what they cost.",
    "retrieved": "The candidates are there, found or given: how many, and how they were searched.",
    "scored": "The scoring model scored images: how many pairs, for the query or a predicate, and each score.",
    "decomposed": "The instructions became predicates, or the fallback did.",
    "checked": "The predicates of a composed request were asked about its reference image: what it contradicts.",
    "planned": "A wave of questions was chosen: how many, about how many images.",
    "inspected": "Regions of images were proposed for closer looks: each with its box and its similarity.",
    "verified": "One image's questions of a wave came back: their states, tokens and cache hits.",
    "assessed": "What was found was judged: what is missing, and whether to think again.",
    "refined": "A round of refinement began: why, and how far the window was widened.",
    "paired": "A wave of comparisons was chosen: which candidates, and why those.",
    "compared": "Candidates that were shown together came back: their states, tokens and cache hits.",
    "ranked": "The ranking was made: how many questions were answered, unknown and not asked.",
    "explained": "The reasons came back.",
}
"""The kinds of trace event, in the order in which they can first occur."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def result_to_json(result: RerankResult) -> str:
    """The whole result as one line of JSON, without a line break."""
    return result.model_dump_json()


def result_from_json(line: str) -> RerankResult:
    """The result that `result_to_json` wrote. Raises `ConfigError` for a cut-off or foreign line."""
    try:
        return RerankResult.model_validate_json(line)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(step) for step in fault["loc"])
        raise ConfigError(
            f"not a rerank result of this version ({key or 'JSON'}: {fault['msg']}); rank the query again"
        ) from error


def trace_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of one line of a run's results, with the records' docstrings as descriptions."""
    schema = RerankResult.model_json_schema(mode="serialization", schema_generator=_Described)
    kind = schema["$defs"][TraceEvent.__name__]["properties"]["kind"]
    kinds = "\n".join(f"- {name}: {meaning}" for name, meaning in EVENTS.items())
    kind["description"] = f"What happened; pass over a kind that is not among these:\n{kinds}"
    head = {"$schema": _DIALECT, "$id": "urn:fieldscope:trace", "title": "A line of a run's results.jsonl"}
    return head | {key: value for key, value in schema.items() if key not in head}


class _Described(GenerateJsonSchema):
    """Without a title for every field: it would only repeat the field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
