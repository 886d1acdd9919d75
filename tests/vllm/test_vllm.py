"""The bundled LMM under a real vLLM: the same model, through the same door, over HTTP."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMM, ImagePart, LMMRequest, LMMResponse, Message, TextPart
from fieldscope.agent.lmm.local import LocalLMM
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.agent.lmm.yes_no import p_yes
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.core.errors import LMMRequestError
from fieldscope.eval.harness import evaluate
from fieldscope.fieldnotes.render import render
from fieldscope.fieldnotes.sampling import random_scene
from fieldscope.fieldnotes.scene import Scene
from fieldscope.fieldnotes.tasks import ask_fact, ask_joint, ask_query, near_spec, random_fact
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.service.wiring.fieldnotes import rerank_benchmark
from fieldscope.service.wiring.settings import Settings
from tests.vllm.server import Server

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

SCENES = 10
QUESTIONS = 5  # per image


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    rng = random.Random("vllm")
    return {f"{i:02}.png": random_scene(rng) for i in range(SCENES)}


@pytest.fixture(scope="module")
def images(scenes: dict[str, Scene], tmp_path_factory: pytest.TempPathFactory) -> FolderCollection:
    folder = tmp_path_factory.mktemp("scenes")
    for name, scene in scenes.items():
        render(scene).save(folder / name)
    return FolderCollection(folder)


@pytest.fixture
async def served(server: Server, images: FolderCollection) -> AsyncIterator[OpenAILMM]:
    lmm = OpenAILMM(server.url, server.model, images)
    yield lmm
    await lmm.aclose()


@pytest.fixture
async def local(checkpoint: Path, images: FolderCollection) -> AsyncIterator[LocalLMM]:
    lmm = LocalLMM.from_path(checkpoint, images, device="cpu", dtype="float32")
    yield lmm
    await lmm.aclose()


def ask(images: FolderCollection, names: tuple[str, ...], text: str, **settings: object) -> LMMRequest:
    parts = tuple(ImagePart(image_id=name, sha256=images.pixel_hash(name)) for name in names)
    message = Message(content=(*parts, TextPart(text=text)))
    return LMMRequest.model_validate({"messages": (message,), "top_logprobs": 20, **settings})


async def ask_all(lmm: LMM, requests: list[LMMRequest]) -> list[LMMResponse]:
    return await asyncio.gather(*(lmm.generate(request) for request in requests))


async def test_p_yes_agrees_with_the_same_model_in_process(
    served: OpenAILMM, local: LocalLMM, images: FolderCollection, scenes: dict[str, Scene]
) -> None:
    rng = random.Random("questions")
    requests = []
    for name, scene in scenes.items():
        segments = [ask_fact(scene, random_fact(scene, rng), rng) for _ in range(QUESTIONS - 1)]
        segments.append(ask_query(scene, near_spec(scene, rng), rng))
        requests += [ask(images, (name,), segment.prompt) for segment in segments]
    over_http, in_process = await ask_all(served, requests), await ask_all(local, requests)
    assert len(requests) == 50
    differences = []
    for theirs, ours in zip(over_http, in_process, strict=True):
        assert len(theirs.answer_logprobs) == 20
        assert theirs.usage == ours.usage
        read_theirs, read_ours = p_yes(theirs.answer_logprobs), p_yes(ours.answer_logprobs)
        assert read_theirs.p_yes is not None and read_ours.p_yes is not None
        differences.append(abs(read_theirs.p_yes - read_ours.p_yes))
    assert max(differences) < 0.02
    # Answers that were all alike would agree as well.
    assert len({response.text.strip() for response in over_http}) > 1


@pytest.mark.nightly
async def test_an_evaluation_gives_the_same_scores(server: Server, checkpoint: Path, tmp_path: Path) -> None:
    """All of FieldNotes-Rerank's validation queries, uncached, over HTTP and in process."""
    benchmark, _ = rerank_benchmark("validation", Settings())
    strategy = load_strategy("yes-no", prompts="fieldnotes")
    scores = {}
    for name, lmm in (
        ("served", OpenAILMM(server.url, server.model, benchmark.images, image_format="png")),
        ("local", LocalLMM.from_path(checkpoint, benchmark.images, device="cpu", dtype="float32")),
    ):
        reranker = Agent(Resources(images=benchmark.images, lmm=lmm), strategy)
        try:
            [summary] = await evaluate(benchmark, [reranker], tmp_path / name)
        finally:
            await lmm.aclose()
        assert summary.queries == 40
        assert summary.unknown == 0
        assert summary.cost.calls == 40 * 100
        scores[name] = summary.metrics
    for metric, value in scores["local"].items():
        assert scores["served"][metric] == pytest.approx(value, abs=0.005), metric


async def test_several_images_in_one_request(served: OpenAILMM, local: LocalLMM, images: FolderCollection) -> None:
    names = tuple(images.ids())
    requests = [ask(images, names[:n], "which image shows a crab?", max_tokens=3) for n in (2, 3, 4)]
    for theirs, ours in zip(await ask_all(served, requests), await ask_all(local, requests), strict=True):
        assert theirs.text == ours.text
        assert theirs.usage == ours.usage


async def test_a_structured_answer_follows_its_schema(
    served: OpenAILMM, images: FolderCollection, scenes: dict[str, Scene]
) -> None:
    name, scene = next(iter(scenes.items()))
    rng = random.Random("joint")
    segment = ask_joint(scene, [random_fact(scene, rng) for _ in range(3)], rng)
    answers = {"type": "array", "items": {"enum": ["yes", "no"]}, "minItems": 3, "maxItems": 3}
    schema = {
        "type": "object",
        "properties": {"answers": answers},
        "required": ["answers"],
        "additionalProperties": False,
    }
    request = ask(images, (name,), segment.prompt, max_tokens=64, json_schema=schema, top_logprobs=0)
    response = await served.generate(request)
    answer = json.loads(response.text)
    assert response.finish_reason == "stop"
    assert list(answer) == ["answers"]
    assert len(answer["answers"]) == 3
    assert set(answer["answers"]) <= {"yes", "no"}


async def test_an_images_next_question_finds_it_prefilled(
    server: Server, served: OpenAILMM, images: FolderCollection
) -> None:
    """Image first, question last, and blocks that short prompts can fill: the 64 patches are computed once."""
    name = images.ids()[0]
    await served.generate(ask(images, (name,), "is there a crab?"))
    before = prefilled_tokens(server)
    await served.generate(ask(images, (name,), "is it raining?"))
    assert prefilled_tokens(server) - before >= 64


def prefilled_tokens(server: Server) -> float:
    """How many prompt tokens the server has taken from its prefix cache so far."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:prefix_cache_hits_total"))


async def test_the_server_says_what_it_does_not_serve(server: Server, images: FolderCollection) -> None:
    stranger = OpenAILMM(server.url, "another-model", images)
    try:
        with pytest.raises(LMMRequestError, match=server.model):
            await stranger.check()
    finally:
        await stranger.aclose()
