"""The whole agent under a real vLLM: it thinks, verifies, compares and explains over HTTP as it does in process."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import BaseModel

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMM, LMMRequest
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.local import LocalLMM
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.schemas import PredicatesAnswer, SynthesisAnswer
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import Call, RerankResult
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.core.types import Candidate, ImageSource, Query
from fieldscope.eval.types import Benchmark
from fieldscope.fieldnotes.collection import read_split
from fieldscope.fieldnotes.queries import BenchmarkQuery
from fieldscope.fieldnotes.render import render
from fieldscope.retrieval.collection import FilesCollection
from tests.vllm.server import Server

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

QUERIES = 10
CANDIDATES = 12
MOST = 9  # of ten queries: one whose text is read otherwise is no fault of the server's
SCHEMAS: dict[str, type[BaseModel]] = {
    "synthesize": SynthesisAnswer,
    "refine": SynthesisAnswer,
    "decompose": PredicatesAnswer,
}

Case = tuple[Query, tuple[Candidate, ...]]
Results = dict[str, RerankResult]


@pytest.fixture(scope="module")
def cases(rerank_test: Benchmark) -> list[Case]:
    """Ten queries with the best candidates of their prior."""
    found = []
    for query in rerank_test.queries[:QUERIES]:
        candidates = rerank_test.candidates(query.id)
        assert candidates is not None
        found.append((query, tuple(sorted(candidates, key=lambda c: -c.prior)[:CANDIDATES])))
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path_factory.mktemp("agent") / "cache.sqlite")) as store:
        yield store


@pytest.fixture(scope="module")
def served(server: Server, rerank_test: Benchmark, cases: list[Case], store: SqliteStore) -> Results:
    return asyncio.run(rerank_all(over_http(server, rerank_test.images, store), rerank_test.images, cases))


@pytest.fixture(scope="module")
def in_process(checkpoint: Path, rerank_test: Benchmark, cases: list[Case]) -> Results:
    async def run() -> Results:
        lmm = LocalLMM.from_path(checkpoint, rerank_test.images, device="cpu", dtype="float32")
        return await rerank_all(lmm, rerank_test.images, cases)

    return asyncio.run(run())


def over_http(server: Server, images: ImageSource, store: SqliteStore) -> CachedLMM:
    return CachedLMM(OpenAILMM(server.url, server.model, images, image_format="png"), store)


async def rerank_all(lmm: LMM, images: ImageSource, cases: Sequence[Case]) -> Results:
    """All at once, as an evaluation would; the model is closed in the end."""
    agent = Agent(Resources(images=images, lmm=lmm), load_strategy("agent", prompts="fieldnotes"))
    try:
        results = await asyncio.gather(*(agent.rerank(query, candidates) for query, candidates in cases))
    finally:
        await lmm.aclose()
    return {result.query_id: result for result in results}


def asked_of(store: SqliteStore, request_key: str | None) -> LMMRequest:
    entry = store.get(request_key or "")
    assert entry is not None, "what was asked is in the cache"
    return LMMRequest.model_validate_json(entry.request)


def assert_finished(result: RerankResult, images: set[str]) -> None:
    """A strict order of all images, an answer to every question about them, and each pair in both orders."""
    assert {ranked.image_id for ranked in result.ranking} == images
    assert len(result.ranking) == len(images)
    assert all(above.score > below.score for above, below in itertools.pairwise(result.ranking))
    assert result.ended is None
    assert result.verdicts and "unknown" not in {verdict.state for verdict in result.verdicts}
    assert any(verdict.state == "answered" for verdict in result.verdicts)
    shown = [comparison.shown for comparison in result.comparisons]
    assert all(comparison.state == "answered" for comparison in result.comparisons)
    assert {order[::-1] for order in shown} == set(shown)
    assert [reason.image_id for reason in result.reasons] == [ranked.image_id for ranked in result.ranking[:3]]
    assert all(reason.state == "answered" and reason.text for reason in result.reasons)


def structured(result: RerankResult) -> list[Call]:
    return [call for call in result.calls if call.stage in SCHEMAS]


def test_every_query_ends_with_a_strict_ranking_and_its_reasons(served: Results, cases: list[Case]) -> None:
    assert len(served) == QUERIES
    for query, candidates in cases:
        assert_finished(served[query.id], {candidate.image_id for candidate in candidates})
    moved = [result for result in served.values() if any(r.rank != r.prior_rank for r in result.ranking)]
    assert len(moved) > QUERIES / 2, "the model's answers change rankings"


def test_requests_are_thought_out_and_taken_apart(served: Results, cases: list[Case]) -> None:
    thought_out = [r.synthesis for r in served.values() if r.synthesis is not None and r.synthesis.fallback is None]
    assert len(thought_out) >= MOST
    assert all(synthesis.thought and synthesis.instructions for synthesis in thought_out)
    predicates = [(query, predicate) for query, _ in cases for predicate in served[query.id].predicates]
    assert all(served[query.id].predicates for query, _ in cases)
    said = [p.words for query, p in predicates if p.words and p.words.casefold() in query.text.casefold()]
    assert len(said) >= 0.9 * len(predicates), "a predicate is traceable to the query's words"
    for query, predicate in predicates:
        asked = {verdict.image_id for verdict in served[query.id].verdicts if verdict.predicate == predicate.id}
        assert len(asked) == CANDIDATES


def test_structured_answers_come_under_their_schema_without_a_repair(served: Results, store: SqliteStore) -> None:
    for result in served.values():
        calls = structured(result)
        assert {"synthesize", "decompose"} <= {call.stage for call in calls}
        for call in calls:
            schema = SCHEMAS[call.stage]
            assert (call.state, call.error) == ("answered", None)
            assert asked_of(store, call.request_key).json_schema == schema.model_json_schema()
            schema.model_validate_json(call.text)  # nothing stands around it
            assert list(json.loads(call.text)) == list(schema.model_json_schema()["properties"])


def test_what_was_asked_over_http_is_replayed_without_a_server(
    rerank_test: Benchmark, cases: list[Case], served: Results, server: Server, store: SqliteStore
) -> None:
    nowhere = OpenAILMM("http://127.0.0.1:9", server.model, rerank_test.images, image_format="png", attempts=1)
    replayed = asyncio.run(rerank_all(CachedLMM(nowhere, store, mode="replay"), rerank_test.images, cases))
    for query_id, result in served.items():
        again = replayed[query_id]
        assert [r.image_id for r in again.ranking] == [r.image_id for r in result.ranking]
        assert [r.score for r in again.ranking] == pytest.approx([r.score for r in result.ranking], abs=1e-9)
        assert all(asked.cached for asked in again.asked)


def test_the_same_model_in_process_thinks_and_sees_the_same(served: Results, in_process: Results) -> None:
    same_synthesis = [query for query, result in served.items() if in_process[query].synthesis == result.synthesis]
    same_predicates = [query for query, result in served.items() if in_process[query].predicates == result.predicates]
    assert len(same_synthesis) >= MOST
    assert len(same_predicates) >= MOST
    differences = []
    for query_id, result in served.items():
        ours = {(v.predicate, v.image_id): v.p_expected for v in in_process[query_id].verdicts if v.p_expected}
        for verdict in result.verdicts:
            p = ours.get((verdict.predicate, verdict.image_id))
            if p is not None and verdict.p_expected is not None:
                differences.append(abs(verdict.p_expected - p))
    assert len(differences) > QUERIES * CANDIDATES / 2
    assert max(differences) < 1e-3


def test_a_composed_query_from_end_to_end(server: Server, store: SqliteStore, tmp_path: Path) -> None:
    asked = read_split("test", "composed").queries[0]
    result, images = rerank_drawn(server, store, tmp_path, "composed", asked)
    assert_finished(result, images - {asked.reference_image or ""})
    assert result.reference_image == asked.reference_image
    (caption,) = (call for call in result.calls if call.stage == "caption")
    assert caption.state == "answered" and caption.text
    assert asked_of(store, caption.request_key).images[0].image_id == asked.reference_image
    assert result.synthesis is not None and result.synthesis.fallback is None
    for comparison in result.comparisons:
        shown = [image.image_id for image in asked_of(store, comparison.request_key).images]
        assert shown == [asked.reference_image, *comparison.shown]


def test_a_dialogue_from_end_to_end(server: Server, store: SqliteStore, tmp_path: Path) -> None:
    """The first dialogue after its last round."""
    queries = read_split("test", "dialogue").queries
    first = queries[0].id.partition(".")[0]
    asked = [query for query in queries if query.id.partition(".")[0] == first][-1]
    assert len(asked.dialogue) >= 2
    result, images = rerank_drawn(server, store, tmp_path, "dialogue", asked)
    assert_finished(result, images)
    assert result.dialogue == asked.dialogue
    assert result.synthesis is not None and result.synthesis.fallback is None
    assert result.predicates
    request = asked_of(store, structured(result)[0].request_key)
    assert all(turn.question in request.text and turn.answer in request.text for turn in asked.dialogue)


def rerank_drawn(
    server: Server, store: SqliteStore, folder: Path, task: str, asked: BenchmarkQuery
) -> tuple[RerankResult, set[str]]:
    """A query of a task over its matches and the nearest others of its collection, and the ids of all that was drawn.

    Only these pictures are drawn. The priors know nothing.
    """
    split = read_split("test", task)
    others = [image_id for image_id in split.scenes if image_id != asked.reference_image]
    nearest = sorted(others, key=lambda image_id: -asked.spec.satisfied(split.scenes[image_id]))[:CANDIDATES]
    drawn = {*nearest, *([asked.reference_image] if asked.reference_image else [])}
    files = {image_id: folder / f"{image_id}.png" for image_id in drawn}
    for image_id, path in files.items():
        render(split.scenes[image_id]).save(path)
    images = FilesCollection(files)
    candidates = tuple(Candidate(image_id, -float(image_id)) for image_id in sorted(nearest, key=int))
    results = asyncio.run(rerank_all(over_http(server, images, store), images, [(asked.query, candidates)]))
    return results[asked.id], drawn
