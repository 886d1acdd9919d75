"""A vLLM is asked for an image that it has by its name; other servers always get the image."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.core.errors import LMMRequestError, LMMServerError
from tests.agent.lmm.conftest import Reply, Server, write_completion

Body = dict[str, Any]
MISS = 400, {}, b'{"error": {"message": "Cache miss for image at index 0 but data is not provided."}}'


class VLLM:
    """Answers as a vLLM does that keeps images by their `uuid`: an image that it does not have is an error."""

    def __init__(self, owner: str = "vllm", version: str = "0.32.0", miss: Reply = MISS, forgets: bool = False) -> None:
        self._entry = {"id": "vl", "owned_by": owner}
        self._version = version
        self._miss = miss
        self._forgets = forgets
        self.held: set[str] = set()

    def __call__(self, number: int, body: Body) -> Reply:
        if body.get("path") == "/v1/models":
            return 200, {}, json.dumps({"data": [self._entry]}).encode()
        if body.get("path") == "/version":
            return 200, {}, json.dumps({"version": self._version}).encode()
        for part in images(body):
            if part["image_url"] is None and part["uuid"] not in self.held:
                return self._miss
            if "uuid" in part and not self._forgets:
                self.held.add(part["uuid"])
        return write_completion("Yes")


def images(body: Body) -> list[Body]:
    return [part for part in body["messages"][0]["content"] if part["type"] == "image_url"]


def sent(server: Server) -> list[list[bool]]:
    """Of each call's images, whether the image itself was sent."""
    return [[part["image_url"] is not None for part in images(body)] for body in server.requests]


@pytest.fixture
def vllm(server) -> Iterator[VLLM]:
    server.reply = VLLM()
    yield server.reply


async def client(server: Server, pictures: Any, **options: Any) -> OpenAILMM:
    lmm = OpenAILMM(server.url, "vl", pictures, backoff=0.001, **options)
    await lmm.identify()
    return lmm


async def test_an_image_is_sent_once_and_then_named(vllm, server, ask, pictures) -> None:
    lmm = await client(server, pictures)
    for text, *shown in (("a ?", "p0"), ("b ?", "p0"), ("c ?", "p1", "p0"), ("d ?", "p0", "p1")):
        await lmm.generate(ask(text, *shown))
    assert sent(server) == [[True], [False], [True, False], [False, False]]
    names = {part["uuid"] for body in server.requests for part in images(body)}
    assert names == {f"{pictures.pixel_hash(name)}-jpeg95" for name in ("p0", "p1")}
    await lmm.aclose()


async def test_an_image_that_is_encoded_otherwise_has_another_name(vllm, server, ask, pictures) -> None:
    for max_side in (None, 8):
        lmm = await client(server, pictures, max_side=max_side)
        await lmm.generate(ask("a ?", "p0"))
        await lmm.aclose()
    assert sent(server) == [[True], [True]] and len(vllm.held) == 2


@pytest.mark.parametrize("miss", [MISS, (500, {}, b"{}")])
async def test_an_image_that_the_server_has_no_more_is_sent_again(server, ask, pictures, miss: Reply) -> None:
    server.reply = vllm = VLLM(miss=miss)
    lmm = await client(server, pictures)
    await lmm.generate(ask("a ?", "p0"))
    vllm.held.clear()
    assert (await lmm.generate(ask("b ?", "p0"))).text == "Yes"
    assert (await lmm.generate(ask("c ?", "p0"))).text == "Yes"
    assert sent(server) == [[True], [False], [True], [False]]
    await lmm.aclose()


async def test_a_server_that_never_has_an_image_is_soon_not_asked_by_name(server, ask, pictures) -> None:
    server.reply = VLLM(forgets=True)
    lmm = await client(server, pictures)
    for number in range(12):
        assert (await lmm.generate(ask(f"{number} ?", "p0"))).text == "Yes"
    assert sum(not part for call in sent(server) for part in call) == 4
    assert "uuid" not in images(server.requests[-1])[0]
    await lmm.aclose()


@pytest.mark.parametrize(
    ("owner", "version"), [("sglang", "0.32.0"), ("vllm", "0.10.2"), ("vllm", "dev"), ("vllm", ""), ("me", "")]
)
async def test_no_other_server_is_asked_by_name(server, ask, pictures, owner: str, version: str) -> None:
    server.reply = VLLM(owner, version)
    lmm = await client(server, pictures)
    for text in ("a ?", "b ?"):
        await lmm.generate(ask(text, "p0"))
    assert sent(server) == [[True], [True]] and "uuid" not in images(server.requests[1])[0]
    await lmm.aclose()


async def test_nor_is_a_server_that_was_not_identified(vllm, server, ask, pictures) -> None:
    lmm = OpenAILMM(server.url, "vl", pictures)
    for text in ("a ?", "b ?"):
        await lmm.generate(ask(text, "p0"))
    assert sent(server) == [[True], [True]]
    await lmm.aclose()


async def test_a_refusal_for_another_reason_is_raised_as_it_is(server, ask, pictures) -> None:
    vllm = VLLM()
    server.reply = lambda n, body: (400, {}, b'{"error": {"message": "no"}}') if n > 0 else vllm(n, body)
    lmm = await client(server, pictures)
    await lmm.generate(ask("a ?", "p0"))
    with pytest.raises(LMMRequestError, match="no"):
        await lmm.generate(ask("b ?", "p0"))
    await lmm.aclose()


# Several addresses of one model


@pytest.fixture
def second() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


async def test_two_addresses_share_the_images_and_each_image_has_one(server, second, ask, pictures) -> None:
    for one in (server, second):
        one.reply = VLLM()
    pictures.pictures |= {name: Image.new("RGB", (9, 9), (n, 0, 0)) for n, name in enumerate("abcdefgh")}
    lmm = OpenAILMM(f"{server.url},{second.url}/v1", "vl", pictures, max_concurrency=4)
    await lmm.identify()
    await asyncio.gather(*(lmm.generate(ask("1 ?", name)) for name in "abcdefgh"))
    assert len(server.requests) == len(second.requests) == 4
    await asyncio.gather(*(lmm.generate(ask("2 ?", name)) for name in "abcdefgh"))
    for one in (server, second):
        first, again = one.requests[:4], one.requests[4:]
        assert {images(body)[0]["uuid"] for body in first} == {images(body)[0]["uuid"] for body in again}
        assert all(images(body)[0]["image_url"] is None for body in again)
    await lmm.aclose()


async def test_a_call_that_one_address_fails_goes_to_the_other(server, second, ask, pictures) -> None:
    server.reply = lambda n, body: (503, {}, b"{}")
    lmm = OpenAILMM(f"{server.url},{second.url}", "vl", pictures, backoff=0.001, attempts=2)
    assert (await lmm.generate(ask("a ?", "p0"))).text == "Yes"
    assert len(server.requests) == len(second.requests) == 1
    second.reply = server.reply
    with pytest.raises(LMMServerError):
        await lmm.generate(ask("b ?", "p0"))
    await lmm.aclose()


async def test_addresses_of_different_models_are_refused(server, second, pictures) -> None:
    server.reply, second.reply = VLLM(version="0.32.0"), VLLM(version="0.31.0")
    lmm = OpenAILMM(f"{server.url},{second.url}", "vl", pictures)
    with pytest.raises(LMMRequestError, match=r"different models or versions as vl \(version\)"):
        await lmm.identify()
    await lmm.aclose()


async def test_a_server_that_asks_to_slow_down_gets_fewer_calls_at_once(server, ask, pictures) -> None:
    lmm = OpenAILMM(server.url, "vl", pictures, max_concurrency=8, backoff=0.001)
    server.reply = lambda n, body: (429, {}, b"{}") if n < 8 else write_completion("Yes")
    await asyncio.gather(*(lmm.generate(ask(f"{n} ?")) for n in range(8)))
    server.at_once = server.most_at_once = 0
    await asyncio.gather(*(lmm.generate(ask(f"{n} ?")) for n in range(16)))
    assert server.most_at_once <= 5
    await lmm.aclose()
