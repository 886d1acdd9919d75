"""Many clients at once, for minutes, on a service with the bundled models in a separate process.

Each client reranks its own choice of images, some of them as data URLs, for its own query, which the response cache
soon knows, and in between for new queries. Meanwhile the service's memory is measured. At the end more requests arrive
at once than the queue holds. Run as a script, it prints the results, and exits with 1 if a reply's status was not 200,
an order differs from that of the graph called directly, the mean memory of the last quarter differs by more than 5 %
from that of the second, or the refused requests had no `Retry-After` or the service did not recover.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from checks.running import Running, running
from fieldscope.core.types import Candidate, Query
from fieldscope.fieldnotes.grammar import Words
from fieldscope.fieldnotes.sampling import random_scene, random_spec
from fieldscope.retrieval.collection import FilesCollection
from fieldscope.retrieval.encoder import inputs_of
from fieldscope.service.server.api.engine import Engine
from fieldscope.service.server.api.opening import open_engine
from fieldscope.service.server.settings import ServerSettings
from fieldscope.service.wiring.fieldnotes import pictures

CLIENTS = 64
SECONDS = 120.0
IMAGES = 20
STRATEGY = "yes-no-fused"
DRIFT = 0.05

_FRESH = 0.2  # of the requests
_UPLOADED = 0.3  # of the requests have some of their pictures as data URLs
_UPLOADS = 4
_SAMPLES = 0.25  # seconds between two measurements of the memory
_OVERFLOW = 200  # at once; 8 places and a queue of 128 are the default
_HEADERS = {"Content-Type": "application/json"}
_PATIENCE = 120.0


@dataclass(frozen=True)
class Asked:
    """A request: the query's text and the images' ids, in the order in which they were sent."""

    query: str
    images: tuple[str, ...]


@dataclass
class Seen:
    """The results. `memory` is (seconds, bytes); `orders` are the replies, best first; `overflow` counts statuses;
    `unannounced` counts refusals without `Retry-After`."""

    seconds: float
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    orders: list[tuple[Asked, tuple[str, ...]]] = field(default_factory=list)
    fresh: int = 0
    wrong: int = 0
    overflow: Counter[int] = field(default_factory=Counter)
    unannounced: int = 0
    recovered: bool = False

    def quarter(self, number: int) -> float:
        """The mean of the memory in a quarter of the time, from 1, in bytes."""
        bounds = self.seconds * (number - 1) / 4, self.seconds * number / 4
        return statistics.mean(size for at, size in self.memory if bounds[0] <= at < bounds[1])

    @property
    def drift(self) -> float:
        """The difference between the last and the second quarter's memory, as a share of the second."""
        return self.quarter(4) / self.quarter(2) - 1

    def faults(self, drift: float = DRIFT) -> list[str]:
        """The failed checks; `drift` is the allowed drift of the memory."""
        checks = {
            f"replies other than 200: {dict(self.statuses)}": set(self.statuses) != {200},
            f"{self.wrong} of {len(self.orders)} orders are not those of the graph": self.wrong > 0,
            f"memory went from {self.quarter(2) / 1e6:.0f} to {self.quarter(4) / 1e6:.0f} MB": abs(self.drift) > drift,
            f"an overflow was answered with {dict(self.overflow)}": set(self.overflow) != {200, 429},
            f"{self.unannounced} refusals without Retry-After": self.unannounced > 0,
            "the service did not recover": not self.recovered,
        }
        return [sentence for sentence, failed in checks.items() if failed]

    def __str__(self) -> str:
        at_once = sorted(self.latencies)
        quarters = ", ".join(f"{self.quarter(number) / 1e6:.0f}" for number in (1, 2, 3, 4))
        return (
            f"{len(at_once)} requests in {self.seconds:g} s, {self.fresh} of them new queries; statuses "
            f"{dict(self.statuses)}\nlatency: median {statistics.median(at_once):.2f} s, "
            f"95 % below {at_once[int(0.95 * len(at_once))]:.2f} s\nmemory by quarters: {quarters} MB; the last is "
            f"{self.drift:+.1%} from the second\norders compared: {len(self.orders)}, different: {self.wrong}\n"
            f"overflow of {_OVERFLOW}: {dict(self.overflow)}; recovered: {self.recovered}"
        )


class Client:
    """One client with its own images and its own query, and sometimes a new query."""

    def __init__(self, number: int, pictures: FilesCollection) -> None:
        self._random = random.Random(number)
        self._pictures = pictures
        self._images = self._random.sample(pictures.ids(), IMAGES)
        self._query = self._words()

    async def ask(self, http: httpx.AsyncClient, seen: Seen, until: float) -> None:
        """Send requests one after the other, each with its images in a different order."""
        while time.monotonic() < until:
            fresh = self._random.random() < _FRESH
            asked = Asked(
                self._words() if fresh else self._query, tuple(self._random.sample(self._images, len(self._images)))
            )
            uploads = _UPLOADS if self._random.random() < _UPLOADED else 0
            began = time.monotonic()
            reply = await http.post("/v1/rerank", json=self._body(asked, uploads), headers=_HEADERS)
            seen.latencies.append(time.monotonic() - began)
            seen.statuses[reply.status_code] += 1
            seen.fresh += fresh
            if reply.status_code == 200:
                order = tuple(asked.images[result["index"]] for result in reply.json()["results"])
                seen.orders.append((asked, order))

    def new(self, images: int) -> dict[str, Any]:
        """The body of a new request."""
        return self._body(Asked(self._words(), tuple(self._images[:images])), 0)

    def _words(self) -> str:
        words = Words(self._random)
        return words.spec(random_spec(random_scene(self._random), self._random))

    def _body(self, asked: Asked, uploads: int) -> dict[str, Any]:
        documents = [f"fieldscope://fieldnotes/{image_id}" for image_id in asked.images]
        for place in range(uploads):
            picture = self._pictures.path(asked.images[place]).read_bytes()
            documents[place] = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        return {"query": asked.query, "documents": documents, "strategy": STRATEGY, "return_documents": False}


async def load(service: Running, pictures: FilesCollection, clients: int, seconds: float, warm_up: float) -> Seen:
    """Run the clients for `seconds`, after a warm-up, then send many requests at once."""
    seen = Seen(seconds)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=f"http://{service.address}", limits=limits, timeout=_PATIENCE) as http:
        began = time.monotonic() + warm_up
        watching = asyncio.create_task(_watch(service.pid, began, seen))
        made = [Client(number, pictures) for number in range(clients)]
        await asyncio.gather(*(client.ask(http, seen, began + seconds) for client in made))
        watching.cancel()
        late = Client(clients, pictures)
        bodies = [late.new(images=5) for _ in range(_OVERFLOW)]
        replies = await asyncio.gather(*(http.post("/v1/rerank", json=body) for body in bodies))
        seen.overflow.update(reply.status_code for reply in replies)
        refused = [reply for reply in replies if reply.status_code == 429]
        seen.unannounced = sum(not reply.headers.get("Retry-After", "").isdecimal() for reply in refused)
        seen.recovered = (await http.post("/v1/rerank", json=late.new(images=5))).status_code == 200
    return seen


async def compare(seen: Seen, data: Path, cache: Path) -> None:
    """Count the orders that differ from those of the graph, called directly over the same answers."""
    expected: dict[Asked, tuple[str, ...]] = {}
    async with open_engine(ServerSettings(data=data, cache_file=cache, cache_mode="replay")) as engine:
        for asked, order in seen.orders:
            key = Asked(asked.query, tuple(sorted(asked.images)))
            if key not in expected:
                expected[key] = await _directly(engine, key)
            seen.wrong += order != expected[key]


async def _directly(engine: Engine, asked: Asked) -> tuple[str, ...]:
    collection = engine.collections["fieldnotes"]
    library = collection.library
    assert library is not None
    query = Query(id="query", text=asked.query)
    wanted = library.encoder.encode_query(inputs_of(query))
    names = {collection.reference(image_id): image_id for image_id in asked.images}
    await engine.images.learn(names)
    priors = library.index.vectors_of(list(names.values())) @ wanted
    candidates = [Candidate(name, float(prior)) for name, prior in zip(names, priors, strict=True)]
    result = await engine.agent(STRATEGY).rerank(query, candidates)
    return tuple(names[ranked.image_id] for ranked in result.ranking)


async def _watch(pid: int, began: float, seen: Seen) -> None:
    while True:
        seen.memory.append((time.monotonic() - began, _resident(pid)))
        await asyncio.sleep(_SAMPLES)


def _resident(pid: int) -> int:
    """The resident memory of a process in bytes (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def measure(folder: Path, clients: int = CLIENTS, seconds: float = SECONDS, warm_up: float = 0.0) -> Seen:
    """Load a service with its files in `folder`, and compare its orders. A warm-up before the measurement of the memory
    lets caches fill."""
    images = pictures("test")
    cache = folder / "responses.sqlite"
    with running("--data", folder / "served", "--cache-file", cache) as service:
        seen = asyncio.run(load(service, images, clients, seconds, warm_up))
    asyncio.run(compare(seen, folder / "direct", cache))
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen = measure(Path(folder), options.clients, options.seconds)
    print(seen)
    for fault in seen.faults():
        print(f"FAULT: {fault}")
    return 1 if seen.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
