"""The client's own share of a call: what the agent adds to a plain loop that posts the same bodies.

Made photographs of 500 pixels are asked about with the strategy "predicates" through the agent, the account and the
client, without the response cache. A fast server in another process counts what arrives, and a plain httpx loop posts
the same bodies to it. A real vLLM of the bundled LMM on the CPU (`make test-vllm` makes its environment) measures
requests a second against the loop, and how much of an image's prefix is reused. Run as a script, it prints ratios, and
exits with 1 where one misses its aim:

    OMP_NUM_THREADS=1 python -m checks.client_speed [--without-vllm]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import orjson

from checks.fast_server import MODEL
from checks.photographs import photographs
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, LMMResponse
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.chat_request import chat_request
from fieldscope.agent.lmm.completion import read_cached_tokens
from fieldscope.agent.lmm.image_encoding import EncodedImages
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.cache.store import MemoryStore
from fieldscope.core.image_encoding import ImageEncoding, ImageFormat
from fieldscope.core.types import Candidate, Query
from fieldscope.fieldnotes.collection import read_split
from fieldscope.fieldnotes.vocabulary import MODELS
from fieldscope.retrieval.collection import FolderCollection
from tests.vllm.server import Server, serving

AIMS = {
    "encodings an image": ("at most", 1.2),
    "bytes a call, to those of PNG": ("at most", 1 / 3),
    "CPU a call, to the plain loop's": ("at most", 1.5),
    "requests a second under vLLM, to the plain loop's": ("at least", 0.95),
    "followers that reuse every whole block of the image": ("at least", 0.95),
}
_ROUNDS = 3
_BLOCK = 32  # tokens, as tests/vllm/server.py serves


@dataclass
class Spent:
    """What so many calls took: seconds of this process's CPU, seconds, and bytes sent."""

    calls: int
    cpu: float
    wall: float
    sent_bytes: int = 0
    encodings: float = 0.0

    @property
    def cpu_a_call(self) -> float:
        return self.cpu / self.calls

    @property
    def bytes_a_call(self) -> float:
        return self.sent_bytes / self.calls


@dataclass
class Recorder:
    """The client, with its calls about images, the (prompt, cached) tokens of each image's calls in the order of their
    answers, and when the first call began and the last one ended. Thinking before it is no part of the comparison."""

    lmm: OpenAILMM
    tokens: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    requests: list[LMMRequest] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0

    @property
    def identity(self) -> str:
        return self.lmm.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        if request.images and not self.began:
            self.began = time.perf_counter()
        response, body = await self.lmm.exchange(request)
        if request.images:
            cached = read_cached_tokens(body) or 0
            self.tokens[request.images[0].sha256].append((response.usage.prompt_tokens, cached))
            self.requests.append(request)
            self.ended = time.perf_counter()
        return response

    async def aclose(self) -> None:
        await self.lmm.aclose()


async def ask_agent(lmm: OpenAILMM, images: FolderCollection, queries: Sequence[Query], concurrency: int) -> Recorder:
    """Rerank all images for each query, without the response cache."""
    recorder = Recorder(lmm)
    uncached = CachedLMM(recorder, MemoryStore(), "off", lmm.identify)
    resources = Resources(images=images, lmm=uncached, max_concurrency=concurrency)
    agent = Agent(resources, load_strategy("predicates", prompts="fieldnotes"))
    candidates = [Candidate(image_id, 1.0 - place / 1000) for place, image_id in enumerate(images.ids())]
    for query in queries:
        await agent.rerank(query, candidates)
    return recorder


async def post_all(url: str, bodies: Sequence[bytes], concurrency: int) -> Spent:
    """The plain loop: as many workers as calls may be out at once, each posting the next body."""
    waiting = iter(bodies)

    async def work(client: httpx.AsyncClient) -> None:
        for body in waiting:
            response = await client.post(
                f"{url}/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
            )
            response.raise_for_status()
            response.json()

    async with httpx.AsyncClient(timeout=600.0) as client:
        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.gather(*(work(client) for _ in range(concurrency)))
        return Spent(len(bodies), time.process_time() - cpu, time.perf_counter() - wall)


async def measure_client(
    url: str, images: FolderCollection, queries: Sequence[Query], concurrency: int, image_format: ImageFormat
) -> tuple[Spent, list[bytes]]:
    """What the agent takes with the fast server, and the bodies that it sent."""
    lmm = OpenAILMM(url, MODEL, images, image_format=image_format, max_concurrency=concurrency)
    await lmm.identify()
    async with httpx.AsyncClient(timeout=600.0) as client:
        await client.get(f"{url}/statistics")
        await client.get(f"{url}/bodies")
        cpu, wall = time.process_time(), time.perf_counter()
        await ask_agent(lmm, images, queries, concurrency)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        counted = (await client.get(f"{url}/statistics")).json()
        bodies = [json.dumps(body).encode() for body in (await client.get(f"{url}/bodies")).json()]
    await lmm.aclose()
    return Spent(counted["calls"], cpu, wall, counted["bytes"], lmm.images.encoded / len(images)), bodies


@contextmanager
def fast_server(*options: str) -> Iterator[str]:
    command = [sys.executable, "-m", "checks.fast_server", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def with_fast_server(folder: Path, images: int, queries: Sequence[Query], concurrency: int) -> dict[str, float]:
    """The ratios that need no model: a server that knows nothing of images' names, and one that says it is a vLLM."""
    ratios: dict[str, float] = {}
    for options in ((), ("--vllm",)):
        agents, loops = [], []
        with fast_server(*options) as url:
            for number in range(_ROUNDS):
                collection = photographs(folder / f"fast{number}{''.join(options)}", 1000 * number, images)
                agent, bodies = asyncio.run(measure_client(url, collection, queries, concurrency, "jpeg"))
                agents.append(agent)
                loops += [asyncio.run(post_all(url, bodies, concurrency)) for _ in range(2)]
            if not options:
                png, _ = asyncio.run(measure_client(url, collection, queries, concurrency, "png"))
                ratios["bytes a call, to those of PNG"] = agent.bytes_a_call / png.bytes_a_call
                ratios["encodings an image"] = max(agent.encodings for agent in agents)
        # The least of each, since whatever else runs on the machine can only add to it.
        own, plain = (min(spent.cpu_a_call for spent in each) for each in (agents, loops))
        print(
            f"{'a vLLM' if options else 'any server'}: {agent.calls} calls, {agent.bytes_a_call:,.0f} bytes a call, "
            f"CPU {1000 * own:.2f} ms a call, the loop's {1000 * plain:.2f} ms: {own / plain:.2f}"
        )
        name = "CPU a call, to the plain loop's"
        ratios[name] = max(own / plain, ratios.get(name, 0.0))
    return ratios


def with_vllm(folder: Path, images: int, queries: Sequence[Query], concurrency: int) -> dict[str, float]:
    """The ratios that need a real server. Agent and loop take turns, each with images that the server has not seen, and
    with one query's calls about them."""
    rates: dict[str, list[float]] = {"agent": [], "loop": []}
    reused = followers = 0
    with serving(MODELS / "lmm", folder / "vllm.log") as server:
        shown = photographs(folder / "warm-up", 9000, images)
        recorder, _ = asyncio.run(_time_agent(server, shown, queries[:1], concurrency))
        for number in range(_ROUNDS):
            for kind in ("agent", "loop") if number % 2 else ("loop", "agent"):
                collection = photographs(folder / f"{kind}{number}", 3000 * (kind == "loop") + 100 * number, images)
                if kind == "agent":
                    asked, rate = asyncio.run(_time_agent(server, collection, queries[:1], concurrency))
                    whole, of = _reuse(asked)
                    reused, followers = reused + whole, followers + of
                    print(f"vLLM: {whole} of {of} followers reuse every whole block of their image")
                else:
                    bodies = asyncio.run(_bodies(server, recorder.requests, shown, collection))
                    loop = asyncio.run(post_all(server.url, bodies, concurrency))
                    rate = loop.calls / loop.wall
                rates[kind].append(rate)
                print(f"vLLM, {kind}: {rate:.1f} requests a second")
    ratios = [agent / loop for agent, loop in zip(rates["agent"], rates["loop"], strict=True)]
    print(f"requests a second, the agent's to the loop's: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    return {
        "requests a second under vLLM, to the plain loop's": median(ratios),
        "followers that reuse every whole block of the image": reused / max(followers, 1),
    }


async def _time_agent(
    server: Server, images: FolderCollection, queries: Sequence[Query], concurrency: int
) -> tuple[Recorder, float]:
    lmm = OpenAILMM(server.url, server.model, images, max_concurrency=concurrency, timeout=600.0)
    await lmm.identify()
    recorder = await ask_agent(lmm, images, queries, concurrency)
    rate = len(recorder.requests) / (recorder.ended - recorder.began)
    await lmm.aclose()
    return recorder, rate


async def _bodies(
    server: Server, requests: Sequence[LMMRequest], shown: FolderCollection, images: FolderCollection
) -> list[bytes]:
    """The bodies of these requests, with one image after the other in place of those that were shown."""
    places = {image_id: place for place, image_id in enumerate(shown.ids())}
    encoded = EncodedImages(images, ImageEncoding())

    async def write_image(part: ImagePart) -> dict[str, Any]:
        image_id = images.ids()[places[part.image_id]]
        other = ImagePart(image_id=image_id, sha256=images.pixel_hash(image_id))
        return {"type": "image_url", "image_url": orjson.Fragment(await encoded.part(other))}

    return [orjson.dumps(await chat_request(request, server.model, write_image)) for request in requests]


def _reuse(recorder: Recorder) -> tuple[int, int]:
    """How many of an image's calls but the first found every whole block of it in the cache, and of how many."""
    config = json.loads((MODELS / "lmm" / "config.json").read_bytes())
    vision = config["vision_config"]
    image_tokens = (vision["image_size"] // vision["patch_size"]) ** 2
    whole = (1 + image_tokens) // _BLOCK * _BLOCK  # the user's tag stands before the image
    followers = [cached for calls in recorder.tokens.values() for _, cached in calls[1:]]
    return sum(cached >= whole for cached in followers), len(followers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--queries", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--without-vllm", action="store_true")
    chosen = parser.parse_args()
    texts = [query.query.text for query in read_split("validation").queries[: chosen.queries]]
    queries = [Query(id=str(number), text=text) for number, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as name:
        folder, size = Path(name), (chosen.images, queries, chosen.concurrency)
        ratios = with_fast_server(folder, *size)
        if not chosen.without_vllm:
            ratios |= with_vllm(folder, *size)
    missed = 0
    for name, ratio in ratios.items():
        bound, aim = AIMS[name]
        kept = ratio <= aim if bound == "at most" else ratio >= aim
        missed += not kept
        print(f"{name}: {ratio:.2f} ({bound} {aim:.2f}){'' if kept else '  MISSED'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
