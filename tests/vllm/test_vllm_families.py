"""Tiny random checkpoints of Qwen3-VL and InternVL3 under a real vLLM: every shipped strategy gets all its answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image as PILImage

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import list_strategies, load_strategy
from fieldscope.core.errors import FieldscopeError
from fieldscope.core.types import Candidate, ImageSource, Query
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.documents import open_documents
from fieldscope.service.cli.main import cli
from tests.vllm.server import Server, serving
from tests.vllm.tiny_checkpoints import make

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

CONTEXT = ("--max-model-len", "8192")
QUERIES = 3
CANDIDATES = 5


@pytest.fixture(scope="module", params=["qwen3-vl", "internvl3"])
def family_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    with serving(make(request.param, folder), folder / "server.log", *CONTEXT) as server:
        yield server


class Watched:
    """A server's model, with the errors of calls that got no answer."""

    def __init__(self, server: Server, images: ImageSource) -> None:
        self._lmm = OpenAILMM(server.url, server.model, images)
        self.answers = 0
        self.errors: list[FieldscopeError] = []

    @property
    def identity(self) -> str:
        return self._lmm.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        try:
            response = await self._lmm.generate(request)
        except FieldscopeError as error:
            self.errors.append(error)
            raise
        self.answers += 1
        return response

    async def aclose(self) -> None:
        await self._lmm.aclose()


STRATEGIES = {name: load_strategy(name) for name in list_strategies()}
ASKING = [name for name, strategy in STRATEGIES.items() if strategy.verify and not strategy.score]


@pytest.mark.parametrize("name", ASKING)
def test_a_shipped_strategy_gets_all_its_answers(family_server: Server, rerank_test: Benchmark, name: str) -> None:
    async def run() -> Watched:
        lmm = Watched(family_server, rerank_test.images)
        agent = Agent(Resources(images=rerank_test.images, lmm=lmm), STRATEGIES[name])
        for query in rerank_test.queries[:QUERIES]:
            candidates: list[Candidate] = list(rerank_test.candidates(query.id) or ())[:CANDIDATES]
            result = await agent.rerank(Query(id=query.id, text=query.text), candidates)
            assert len(result.ranking) == CANDIDATES
        await lmm.aclose()
        return lmm

    lmm = asyncio.run(run())
    assert lmm.errors == []
    assert lmm.answers > 0


def test_the_doctor_examines_it(family_server: Server, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli, ["doctor", "--lmm", family_server.url, "--model", family_server.model, "--json"], catch_exceptions=False
    )
    found = {finding["name"]: finding["state"] for finding in json.loads(result.stdout)["findings"]}
    assert found["server"] == found["log-probabilities"] == "ok", result.output


@pytest.mark.parametrize("name", ["true-false-documents", "true-false-reference"])
def test_every_kind_of_query_and_document_gets_its_answers(family_server: Server, tmp_path: Path, name: str) -> None:
    for picture, colour in (("query", "blue"), ("picture", "red"), ("both", "green")):
        PILImage.new("RGB", (64, 64), colour).save(tmp_path / f"{picture}.png")
    lines = [
        {"id": "query", "image": "query.png"},
        {"id": "picture", "image": "picture.png"},
        {"id": "text", "text": "A red square."},
        {"id": "both", "image": "both.png", "text": "A green square."},
    ]
    (tmp_path / "documents.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    documents = open_documents(tmp_path / "documents.jsonl")

    async def run() -> Watched:
        lmm = Watched(family_server, documents)
        agent = Agent(Resources(images=documents, lmm=lmm), STRATEGIES[name])
        for number, (text, reference) in enumerate((("what is red?", None), ("", "query"), ("in red", "query"))):
            candidates = [Candidate(document, 0.5) for document in ("picture", "text", "both")]
            await agent.rerank(Query(id=str(number), text=text, reference_image=reference), candidates)
        await lmm.aclose()
        return lmm

    lmm = asyncio.run(run())
    assert lmm.errors == []
    assert lmm.answers == 9
