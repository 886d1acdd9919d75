"""What clients of compatible services expect: a list of models, other makers' fields, and how a result was judged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.strategies.strategy import list_strategies
from fieldscope.agent.trace_view import judged_images
from fieldscope.agent.types import Comparison, ImageScore, RankedCandidate, RerankResult, Verdict
from tests.service.api.facts import COLLECTION, Service, open_service

DOCUMENTS = [f"fieldscope://{COLLECTION}/{n:02}.png" for n in range(4)]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with open_service(tmp_path) as opened:
        yield opened


async def rerank(service: Service, **fields: Any) -> dict[str, Any]:
    body = {"query": "crab", "documents": DOCUMENTS, "strategy": "yes-no", **fields}
    reply = await service.client.post("/v1/rerank", json={k: v for k, v in body.items() if v is not None})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


async def test_models_are_the_strategies_in_the_format_of_openai(service: Service) -> None:
    listed = (await service.client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert {model["id"] for model in listed["data"]} == set(list_strategies())
    assert all(model["object"] == "model" and isinstance(model["created"], int) for model in listed["data"])
    first = listed["data"][0]
    assert (first["id"], first["default"], first["collections"]) == ("agent", True, [COLLECTION])
    assert (await service.client.get("/v1/models/agent")).json() == first
    missing = await service.client.get("/v1/models/agnet")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_model")


async def test_a_model_that_is_a_strategy_chooses_it_unless_one_is_named(service: Service) -> None:
    assert (await rerank(service, model="clip", strategy=None))["strategy"] == "clip"
    assert (await rerank(service, model="clip", strategy="yes-no"))["strategy"] == "yes-no"
    assert (await rerank(service, model="rerank-v3.5", strategy=None))["strategy"] == "agent"


async def test_top_k_is_top_n_which_takes_precedence(service: Service) -> None:
    assert len((await rerank(service, top_k=2))["results"]) == 2
    assert len((await rerank(service, top_k=2, top_n=3))["results"]) == 3


async def test_rank_fields_choose_what_is_judged(service: Service) -> None:
    document = {"image": DOCUMENTS[1], "text": "a title", "note": "a crab"}
    by_picture = await rerank(service, documents=[document], rank_fields=["image"])
    assert by_picture["results"][0]["judged"] == "picture"
    crab, owl = ({"title": title, "note": note, "text": ""} for title, note in (("a crab", "owl"), ("an owl", "crab")))
    for names, best in ((["title"], 0), (["note"], 1)):
        ranked = await rerank(service, documents=[crab, owl], rank_fields=names, strategy="clip")
        first = ranked["results"][0]
        assert (first["index"], first["judged"]) == (best, "text")
    absent = await rerank(service, documents=[crab, "a crab"], rank_fields=["colour"], strategy="clip")
    assert [(result["index"], result["judged"]) for result in absent["results"]] == [(1, "text"), (0, "not judged")]
    assert "document 0 has no words and no image" in " ".join(absent["meta"]["warnings"])


async def test_other_fields_are_named_and_filters_refused(service: Service) -> None:
    warned = await rerank(service, max_tokens_per_doc=4096, truncation=True)
    assert warned["meta"]["warnings"] == ["unknown fields were not used: 'max_tokens_per_doc', 'truncation'"]
    assert "warnings" not in (await rerank(service))["meta"]
    body = {"query": "crab", "strategy": "yes-no", "rank_fields": ["text"]}
    found = await service.client.post("/v1/search", json=body)
    assert found.json()["flags"][0] == "unknown fields were not used: 'rank_fields'"
    refused = await service.client.post("/v1/rerank", json={"query": "a", "documents": ["b"], "filter": {"a": 1}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "no_metadata")


async def test_each_result_says_how_it_was_judged(service: Service) -> None:
    mixed = await rerank(service, documents=[DOCUMENTS[0], "a crab", {"text": " "}], strategy="clip")
    judged = {result["index"]: result["judged"] for result in mixed["results"]}
    assert judged == {0: "picture", 1: "text", 2: "not judged"}
    one = await rerank(service, budget={"max_calls": 1})
    assert [result["judged"] for result in one["results"]].count("picture") == 1
    first_stage = await rerank(service, strategy="clip")
    assert {result["judged"] for result in first_stage["results"]} == {"picture"}
    body = {"query": "crab", "strategy": "yes-no", "top_k": 8, "budget": {"max_calls": 3}}
    found = (await service.client.post("/v1/search", json=body)).json()
    assert [result["judged"] for result in found["results"]].count("picture") == 3


async def test_predicates_of_ones_own_are_asked_and_changing_one_asks_only_that_one(service: Service) -> None:
    async def search(*facts: str) -> dict[str, Any]:
        predicates = [{"question": f"is there {fact}?"} for fact in facts]
        body = {"query": "crab, snow", "strategy": "predicates", "top_k": 8, "top_n": 8, "predicates": predicates}
        found: dict[str, Any] = (await service.client.post("/v1/search", json=body)).json()
        assert [each["question"] for each in found["predicates"] if each["kind"] != "query"] == [
            f"is there {fact}?" for fact in facts
        ]
        return found

    await search("crab", "snow")
    changed = await search("crab", "rain")
    assert changed["usage"]["calls"] - changed["usage"]["cached"] == 8
    assert (await search("rain", "crab"))["usage"]["cached"] == changed["usage"]["calls"]
    trace = (await service.client.get(f"/v1/traces/{changed['trace_id']}")).json()
    assert [event["data"].get("given") for event in trace["trace"] if event["kind"] == "decomposed"] == [True]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"strategy": "yes-no"}, "no_predicates"),
        ({"strategy": "agent", "predicates": []}, "invalid_request"),
        ({"strategy": "agent", "predicates": [{"question": " "}]}, "invalid_request"),
        ({"strategy": "agent", "predicates": [{"question": "is there crab?", "expected": "maybe"}]}, "invalid_request"),
        ({"strategy": "agent", "precision": 0.9}, "not_promised"),
    ],
)
async def test_predicates_that_can_not_be_asked_are_refused(
    service: Service, fields: dict[str, Any], code: str
) -> None:
    given = {"query": "crab", "predicates": [{"question": "is there crab?"}], **fields}
    for path, body in (("/v1/search", given), ("/v1/rerank", given | {"documents": DOCUMENTS})):
        reply = await service.client.post(path, json=body)
        assert reply.json()["error"]["code"] == code, reply.text


async def test_a_job_checks_them_before_it_begins(service: Service) -> None:
    crab = {"image": DOCUMENTS[1], "text": "a title"}
    usable = {"query": "crab", "documents": [crab], "rank_fields": ["image"], "strategy": "yes-no"}
    for more, status in (({}, 202), ({"predicates": [{"question": "is there crab?"}]}, 422), ({"filter": 1}, 422)):
        job = {"calls": [{"url": "/v1/rerank", "body": usable | more}]}
        assert (await service.client.post("/v1/jobs", json=job)).status_code == status


async def test_given_predicates_rank_the_documents_of_a_rerank(service: Service) -> None:
    documents = [f"fieldscope://{COLLECTION}/{n:02}.png" for n in range(32)]
    asked = [{"question": "is there crab?"}, {"question": "is there snow?", "expected": "no"}]
    reply = await rerank(service, query="net", documents=documents, strategy="predicates", predicates=asked)
    trace = (await service.client.get(f"/v1/traces/{reply['id']}")).json()
    questions = [(each["question"], each["expected"]) for each in trace["predicates"] if each["kind"] != "query"]
    assert questions == [("is there crab?", "yes"), ("is there snow?", "no")]


def test_an_image_is_judged_by_a_verdict_a_comparison_or_a_score() -> None:
    ranking = tuple(
        RankedCandidate(image_id=x, rank=n, score=-n, prior=0, prior_rank=n) for n, x in enumerate("abcd", 1)
    )
    result = RerankResult(query_id="q", query_text="q", strategy="s", ranking=ranking)
    assert judged_images(result) == set("abcd")
    assert judged_images(result.model_copy(update={"ended": "verify"})) == set()
    asked = {
        "verdicts": (
            Verdict(image_id="a", predicate="p", state="answered", p_yes=0.5, p_expected=0.5),
            Verdict(image_id="d", predicate="p", state="unknown", error="no answer"),
        ),
        "comparisons": (Comparison(shown=("b",), probabilities=(0.5,), state="answered"),),
        "scores": (ImageScore(image_id="c", value=0.1, state="answered"),),
    }
    assert judged_images(result.model_copy(update=asked)) == set("abc")
