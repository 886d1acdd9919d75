"""A scoring model behind the service: pictures and texts under `cross-encoder`, and what is refused without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.retrieval.rerankers import MODEL, Reranker
from tests.service.api.conftest import Opened, ids

pytestmark = pytest.mark.usefixtures("world")

CROSS = {"strategy": "cross-encoder", "query": "a unicycle"}  # which no bundled model knows


@pytest.fixture
def reranker() -> Iterator[Reranker]:
    """A server that likes long texts, and pictures less than any text."""
    with Reranker(
        score=lambda query, read: -1 - int(read[-2:], 16) / 999 if read.startswith("image:") else len(read) / 100
    ).serving() as served:
        yield served


async def test_texts_and_pictures_are_ranked_by_the_scoring_model(opened: Opened, reranker: Reranker) -> None:
    documents = ["a wheel", *ids(1, 2), "a wheel and a saddle"]
    async with opened(scorer=f"{reranker.url}#{MODEL}", image_format="png") as service:
        reply = await service.client.post("/v1/rerank", json={**CROSS, "documents": documents})
        assert reply.status_code == 200, reply.text
        told = reply.json()
        assert [result["index"] for result in told["results"]][:2] == [3, 0]
        assert told["model"] == f"{reranker.url}#{MODEL}" and told["usage"]["prompt_tokens"] > 100
        assert {result["index"] for result in told["results"]} == {0, 1, 2, 3}
        asked = len(reranker.asked)
        again = await service.client.post("/v1/rerank", json={**CROSS, "documents": documents})
        assert [r["index"] for r in again.json()["results"]] == [r["index"] for r in told["results"]]
        assert len(reranker.asked) == asked
        trace = (await service.client.get(f"/v1/traces/{told['id']}")).json()
        assert {score["image_id"] for score in trace["scores"]} >= {"document 0", "document 3"}


async def test_a_text_that_the_model_could_not_score_ranks_last(opened: Opened, reranker: Reranker) -> None:
    scored = reranker.score
    reranker.score = lambda query, read: float("nan") if read == "what" else scored(query, read)
    async with opened(scorer=f"{reranker.url}#{MODEL}") as service:
        reply = await service.client.post("/v1/rerank", json={**CROSS, "documents": ["what", "a wheel"]})
        told = reply.json()
        assert [result["index"] for result in told["results"]] == [1, 0]
        assert "the scoring model could not judge the text: document 0" in told["meta"]["warnings"][0]
        nothing = await service.client.post("/v1/rerank", json={**CROSS, "documents": ["what"]})
        assert (nothing.status_code, nothing.json()["error"]["code"]) == (503, "scorer_failed")


async def test_a_search_is_scored(opened: Opened, reranker: Reranker) -> None:
    async with opened(scorer=f"{reranker.url}#{MODEL}") as service:
        body = {"query": "a red crab", "strategy": "cross-encoder", "top_k": 3}
        reply = await service.client.post("/v1/search", json=body)
        assert reply.status_code == 200, reply.text
        assert len(reranker.asked) == 2 + 3


async def test_without_a_scoring_model_the_strategy_is_refused(opened: Opened) -> None:
    async with opened() as service:
        reply = await service.client.post("/v1/rerank", json={**CROSS, "documents": ["a wheel"]})
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "no_scorer")


async def test_the_service_starts_before_the_server_of_its_scoring_model(opened: Opened) -> None:
    with Reranker().serving() as gone:
        url = gone.url
    async with opened(scorer=f"{url}#{MODEL}", attempts=1) as service:
        reply = await service.client.post("/v1/rerank", json={**CROSS, "documents": ["a wheel"]})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "lmm_failed")
