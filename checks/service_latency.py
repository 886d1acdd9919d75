"""How much longer a cached rerank of 20 images takes over HTTP than as a call of the graph.

One run calls both in turn: `fieldscope serve` in a separate process, over a connection that stays open, and the same
agent in this process, over the same response cache. Run as a script, it prints both medians and their difference, and
exits with 1 if that is 5 ms or more.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from checks.running import running
from fieldscope.agent.graph import Agent
from fieldscope.core.types import Candidate, Query
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.service.server.api.engine import Engine
from fieldscope.service.server.api.opening import open_engine
from fieldscope.service.server.settings import ServerSettings

QUERY = "two red crabs on a beach in the rain"
IMAGES = 20
ALLOWED_MS = 5.0
_HEADERS = {"Content-Type": "application/json"}


def over_http(connection: http.client.HTTPConnection, body: bytes) -> float:
    """Seconds for one request."""
    began = time.perf_counter()
    connection.request("POST", "/v1/rerank", body, _HEADERS)
    reply = connection.getresponse()
    text = reply.read()
    seconds = time.perf_counter() - began
    if reply.status != 200:
        raise SystemExit(text.decode())
    return seconds


async def directly(agent: Agent, candidates: list[Candidate]) -> float:
    """Seconds for one call of the graph."""
    began = time.perf_counter()
    await agent.rerank(Query(id="query", text=QUERY), candidates)
    return time.perf_counter() - began


async def candidates_of(engine: Engine) -> tuple[list[str], list[Candidate]]:
    """The first images of FieldNotes, with their priors."""
    collection = engine.collections["fieldnotes"]
    library = collection.library
    assert library is not None
    ids = list(collection.images.ids())[:IMAGES]
    wanted = library.encoder.encode_query(QueryInputs(QUERY))
    names = [collection.reference(image_id) for image_id in ids]
    await engine.images.learn(names)
    priors = [float(similarity) for similarity in library.index.vectors_of(ids) @ wanted]
    return names, [Candidate(*pair) for pair in zip(names, priors, strict=True)]


async def measure(strategy: str, rounds: int, data: Path) -> tuple[float, float]:
    """The medians of both ways, in milliseconds."""
    with running("--data", data / "served") as service:
        connection = http.client.HTTPConnection(service.address, timeout=120)
        async with open_engine(ServerSettings(data=data / "direct", cache_mode="replay")) as engine:
            names, candidates = await candidates_of(engine)
            body = json.dumps({"query": QUERY, "documents": names, "strategy": strategy}).encode()
            await asyncio.to_thread(over_http, connection, body)  # fills the cache
            agent = engine.agent(strategy)
            times: list[tuple[float, float]] = []
            for _ in range(rounds + rounds // 10):
                times.append((await directly(agent, candidates), await asyncio.to_thread(over_http, connection, body)))
    direct, http_ = zip(*times[rounds // 10 :], strict=True)
    return 1000 * statistics.median(direct), 1000 * statistics.median(http_)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategy", default="yes-no-fused")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        direct, over = asyncio.run(measure(options.strategy, options.rounds, Path(folder)))
    added = over - direct
    print(f"graph {direct:.2f} ms, service {over:.2f} ms, added {added:.2f} ms (medians of {options.rounds})")
    return 0 if added < ALLOWED_MS else 1


if __name__ == "__main__":
    sys.exit(main())
