"""Who a server's model is: what its server tells, as far as it stays the same."""

import json
from typing import Any

import pytest

from fieldscope.agent.lmm.identity import may_be, named_identity, server_identity
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.core.errors import LMMConnectionError, LMMRequestError
from fieldscope.core.server_facts import read_facts

VLLM = {"id": "vl", "object": "model", "created": 1, "owned_by": "vllm", "root": "org/vl-7b", "parent": None}


def listed(**entry: Any) -> str:
    return json.dumps({"object": "list", "data": [{"id": "other", "root": "org/other"}, VLLM | entry]})


def told(models: str | None = None, version: str | None = None) -> str:
    return server_identity("vl", None, None, read_facts(models or listed(), version, "vl"))


def test_an_identity_has_what_the_server_tells() -> None:
    assert told(version='{"version":"0.32.0"}') == "openai:vl#png#root=org/vl-7b,owned_by=vllm,version=0.32.0"
    llama = {"owned_by": "llamacpp", "root": None, "meta": {"n_params": 7, "size": 4_000, "n_ctx_train": 9}}
    assert told(listed(**llama)) == "openai:vl#png#params=7,size=4000,owned_by=llamacpp"
    assert told(listed(root=None, owned_by=None, quantization="awq")) == "openai:vl#png#quantization=awq"


@pytest.mark.parametrize(
    "change", [{"created": 2}, {"max_model_len": 9}, {"permission": [{"id": "modelperm-1"}]}, {"root": " org/vl-7b "}]
)
def test_what_changes_with_a_restart_is_not_in_it(change: dict[str, Any]) -> None:
    assert told(listed(**change)) == told()


@pytest.mark.parametrize(
    "change", [{"root": "org/vl-7b-awq"}, {"owned_by": "sglang"}, {"parent": "org/base"}, {"dtype": "float16"}]
)
def test_another_model_has_another_identity(change: dict[str, Any]) -> None:
    assert told(listed(**change)) != told()
    assert told(version='{"version":"0.33.0"}') != told(version='{"version":"0.32.0"}')


@pytest.mark.parametrize("root", ["/home/me/vl", "~/vl", "C:\\vl", "C:/vl", "http://host/vl", "a#b", "a,b=c", "x" * 99])
def test_paths_and_strange_values_are_hashed(root: str) -> None:
    identity = told(listed(root=root))
    assert root not in identity and named_identity(identity) == "openai:vl#png"
    assert identity != told(listed(root=root + "2"))


@pytest.mark.parametrize("body", [None, "", "<html>", "{}", '{"data":[{"id":5}]}', '{"version":null}', '{"data":[]}'])
def test_whatever_is_no_answer_tells_nothing(body: str | None) -> None:
    assert read_facts(body, body, "vl") == {}


def test_an_identity_without_facts_is_as_it_always_was() -> None:
    assert server_identity("vl", "r1", 16) == "openai:vl@r1#png<=16"
    for model in ("vl", "a#png#root=x", "org/vl:7b@q4"):
        for facts in ({}, {"root": "a", "version": "1"}):
            identity = server_identity(model, "r", 8, facts)
            assert named_identity(identity) == server_identity(model, "r", 8)
            assert may_be(server_identity(model, "r", 8), identity)
    assert not may_be(server_identity("vl", facts={"root": "a"}), server_identity("vl", facts={"root": "b"}))
    assert not may_be(server_identity("vl", facts={"root": "a"}), server_identity("vl"))
    assert named_identity("local:abc:float32") == "local:abc:float32"


async def test_the_server_is_asked_once(server) -> None:
    paths: list[str] = []

    def reply(n: int, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        paths.append(body["path"])
        return 200, {}, (listed() if body["path"] == "/v1/models" else '{"version":"0.32.0"}').encode()

    server.reply = reply
    lmm = OpenAILMM(server.url, "vl", None)  # type: ignore[arg-type]
    assert lmm.identity == "openai:vl#jpeg95"
    for _ in range(2):
        await lmm.identify()
    assert paths == ["/v1/models", "/version"]
    assert lmm.identity == "openai:vl#jpeg95#root=org/vl-7b,owned_by=vllm,version=0.32.0"
    await lmm.aclose()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 500, 501])
async def test_a_server_without_such_pages_tells_nothing(server, status: int) -> None:
    server.reply = lambda n, body: (status, {}, b"{}")
    lmm = OpenAILMM(server.url, "vl", None, attempts=1)  # type: ignore[arg-type]
    assert await lmm.identify() == {}
    await lmm.aclose()


async def test_a_server_that_is_busy_is_asked_again_and_one_of_other_models_is_refused(server, nobody_there) -> None:
    busy = iter([503, 429])
    server.reply = lambda n, body: (next(busy, 200), {}, listed().encode())
    lmm = OpenAILMM(server.url, "vl", None, backoff=0.001)  # type: ignore[arg-type]
    assert (await lmm.identify())["root"] == "org/vl-7b"
    another = OpenAILMM(server.url, "llava", None)  # type: ignore[arg-type]
    with pytest.raises(LMMRequestError, match="serves other, vl, not llava"):
        await another.identify()
    away = OpenAILMM(nobody_there, "vl", None, attempts=1)  # type: ignore[arg-type]
    with pytest.raises(LMMConnectionError, match="can't reach"):
        await away.identify()
    for each in (lmm, another, away):
        await each.aclose()


@pytest.fixture
def nobody_there(server) -> str:
    """The address of a port where nothing listens any more."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
        return f"http://127.0.0.1:{http.server_port}"
