import asyncio
import base64
import io
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion
from PIL import Image

from fieldscope.agent.lmm.base import ImagePart, LMMRequest, Message, TextPart
from fieldscope.agent.lmm.connection import lmm_error
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.agent.lmm.yes_no import p_yes
from fieldscope.core.errors import (
    BrokenImageError,
    ConfigError,
    FieldscopeError,
    LMMConnectionError,
    LMMError,
    LMMRateLimitError,
    LMMRequestError,
    LMMResponseError,
    LMMServerError,
)
from fieldscope.core.retrying import LONGEST_WAIT
from tests.waiting import PATIENCE


@pytest.fixture
async def lmm(server, pictures) -> AsyncIterator[OpenAILMM]:
    made = OpenAILMM(server.url, "served", pictures, backoff=0.01, timeout=PATIENCE)
    yield made
    await made.aclose()


def pixels(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


# What is sent


async def test_the_request_says_all_that_was_asked(lmm, server, ask, completion) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    server.reply = lambda n, body: completion("Yes", ("Yes", {"Yes": -0.1, "No": -3.0}))
    await lmm.generate(
        ask(
            "is it red ?",
            "p0",
            "p1",
            max_tokens=7,
            temperature=0.5,
            seed=3,
            sample=2,
            top_logprobs=20,
            json_schema=schema,
            extra_body={"chat_template_kwargs": {"enable_thinking": False}},
        )
    )
    sent = server.requests[0]
    content = sent.pop("messages")[0]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert sent == {
        "model": "served",
        "max_tokens": 7,
        "temperature": 0.5,
        "seed": (3 << 16) + 2,
        "logprobs": True,
        "top_logprobs": 20,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        },
        "chat_template_kwargs": {"enable_thinking": False},
    }


async def test_a_plain_request_says_no_more_than_it_must(lmm, server) -> None:
    messages = (
        Message(role="system", content=(TextPart(text="be brief"),)),
        Message(content=(TextPart(text="a"), TextPart(text="b"))),
    )
    await lmm.generate(LMMRequest(messages=messages, max_tokens=5))
    assert server.requests[0] == {
        "model": "served",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        ],
        "max_tokens": 5,
        "temperature": 0.0,
        "seed": 0,
    }


async def test_the_server_sees_the_very_pixels_and_each_image_is_encoded_once(lmm, server, ask, pictures) -> None:
    for text in ("a ?", "b ?"):
        await lmm.generate(ask(text, "p0"))
    sent = [pixels(body["messages"][0]["content"][0]["image_url"]["url"]) for body in server.requests]
    assert [image.tobytes() for image in sent] == [pictures.pictures["p0"].tobytes()] * 2
    assert pictures.loads == {"p0": 1}


async def test_new_pixels_under_an_old_id_are_sent_anew(lmm, server, ask, pictures) -> None:
    await lmm.generate(ask("a ?", "p0"))
    pictures.pictures["p0"] = Image.new("RGB", (4, 4), "red")
    await lmm.generate(ask("a ?", "p0"))
    assert pixels(server.requests[1]["messages"][0]["content"][0]["image_url"]["url"]).size == (4, 4)


async def test_max_side_scales_large_images_down_and_leaves_small_ones(server, ask, pictures) -> None:
    pictures.pictures |= {"large": Image.new("RGB", (100, 50)), "small": Image.new("RGB", (20, 10))}
    lmm = OpenAILMM(server.url, "served", pictures, max_side=40)
    await lmm.generate(ask("?", "large", "small"))
    sent = [pixels(p["image_url"]["url"]).size for p in server.requests[0]["messages"][0]["content"][:2]]
    assert sent == [(40, 20), (20, 10)]
    assert pictures.pictures["large"].size == (100, 50)
    await lmm.aclose()


async def test_an_unreadable_image_is_an_image_error_and_nothing_is_sent(lmm, server) -> None:
    broken = LMMRequest(messages=(Message(content=(ImagePart(image_id="gone", sha256="0"),)),))
    with pytest.raises(BrokenImageError, match="gone"):
        await lmm.generate(broken)
    assert server.requests == []


@pytest.mark.parametrize(
    ("given", "environment", "sent"),
    [
        ("mine", {"FIELDSCOPE_API_KEY": "f", "OPENAI_API_KEY": "o"}, "Bearer mine"),
        (None, {"FIELDSCOPE_API_KEY": "f", "OPENAI_API_KEY": "o"}, "Bearer f"),
        (None, {"OPENAI_API_KEY": "o"}, "Bearer o"),
        (None, {}, "Bearer none"),
        ("", {"FIELDSCOPE_API_KEY": "f", "OPENAI_API_KEY": "o"}, "Bearer none"),
    ],
)
async def test_where_the_key_comes_from(server, ask, pictures, monkeypatch, given, environment, sent) -> None:
    for name in ("FIELDSCOPE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    lmm = OpenAILMM(server.url, "served", pictures, api_key=given)
    await lmm.generate(ask("?"))
    assert server.headers[0]["authorization"] == sent
    await lmm.aclose()


def test_identity_tells_models_revisions_and_preprocessing_apart(pictures) -> None:
    options: list[dict[str, Any]] = [{}, {"revision": "a"}, {"revision": "b"}, {"max_side": 64}, {"max_side": 32}]
    made = [OpenAILMM("http://localhost:1", "qwen", pictures, **o).identity for o in options]
    assert len(set(made)) == len(made) and all("qwen" in identity for identity in made)
    assert OpenAILMM("http://elsewhere:2", "qwen", pictures).identity == made[0], "where it stands is not who it is"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("https://gpu/v1/", "https://gpu/v1"),
        ("http://gpu/proxy/lmm", "http://gpu/proxy/lmm"),
    ],
)
def test_the_address_may_leave_v1_out(pictures, given: str, used: str) -> None:
    assert OpenAILMM(given, "m", pictures).url == used


@pytest.mark.parametrize("bad", ["localhost:8000", "", "ftp://gpu", "http://", "http://gpu:99999", "http://me:pw@gpu"])
def test_an_address_that_is_none_says_how_to_write_one(pictures, bad: str) -> None:
    with pytest.raises(ConfigError, match="http://localhost:8000"):
        OpenAILMM(bad, "m", pictures)


# What comes back


async def test_an_answer_with_log_probabilities(lmm, server, ask, completion) -> None:
    server.reply = lambda n, body: completion("Yes", ("Yes", {"No": -2.0, "Yes": -0.2, "The": -9999.0}))
    response = await lmm.generate(ask("is it red ?", "p0", top_logprobs=20))
    assert response.text == "Yes" and response.finish_reason == "stop" and not response.cached
    assert [(lp.token, lp.logprob) for lp in response.answer_logprobs] == [
        ("Yes", -0.2),
        ("No", -2.0),
        ("The", -9999.0),
    ]
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (70, 1)
    assert response.latency > 0
    assert p_yes(response.answer_logprobs).state == "answered"


async def test_the_answer_of_a_model_that_thinks_aloud(lmm, server, ask, completion) -> None:
    tokens = [("Well", {"Well": -0.1}), ("</think>", {"</think>": 0.0}), ("\n\n", {"\n\n": 0.0}), ("No", {"No": -0.3})]
    server.reply = lambda n, body: completion("Well</think>\n\nNo", *tokens)
    response = await lmm.generate(ask("?", top_logprobs=5, answer_after="</think>", max_tokens=9))
    assert [lp.token for lp in response.answer_logprobs] == ["No"]
    assert response.thought == "Well"
    response = await lmm.generate(ask("?", top_logprobs=5, answer_after="Answer:", max_tokens=9))
    assert [lp.token for lp in response.answer_logprobs] == ["No"], "a model that thought may leave the marker out"
    assert p_yes(response.answer_logprobs).state == "answered"


async def test_a_server_that_gives_only_the_chosen_tokens_log_probability(lmm, server, ask) -> None:
    choice = {
        "message": {"content": "Yes"},
        "logprobs": {"content": [{"token": "Yes", "logprob": -0.5}]},
    }
    server.reply = lambda n, body: (200, {}, json.dumps({"choices": [choice]}).encode())
    response = await lmm.generate(ask("?", top_logprobs=5))
    assert [(lp.token, lp.logprob) for lp in response.answer_logprobs] == [("Yes", -0.5)]
    assert response.usage.prompt_tokens == 0 and response.finish_reason == "stop"


async def test_log_probabilities_that_are_no_numbers_are_left_out(lmm, server, ask) -> None:
    body = (
        '{"choices":[{"message":{"content":"Yes"},"logprobs":{"content":[{"token":"Yes","logprob":0,"top_logprobs":'
        '[{"token":"Yes","logprob":-0.1},{"token":"No","logprob":NaN},{"token":"x","logprob":-Infinity}]}]}}]}'
    )
    server.reply = lambda n, _: (200, {}, body.encode())
    assert [lp.token for lp in (await lmm.generate(ask("?", top_logprobs=5))).answer_logprobs] == ["Yes"]


HTML = b"<html><body><h1>It works!</h1></body></html>"


@pytest.mark.parametrize(
    "reply",
    [
        (200, {}, b"\x00\xff garbage"),
        (200, {}, b""),
        (200, {}, b"{}"),
        (200, {}, b"[]"),
        (200, {}, b"null"),
        (200, {}, b'"a string"'),
        (200, {"Content-Type": "text/html"}, HTML),
        (200, {}, HTML),
        (200, {"Content-Type": "text/event-stream"}, b"data: {}\n\n"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": null}'),
        (200, {}, b'{"choices": [{}]}'),
        (200, {}, b'{"choices": [{"message": null}]}'),
        (200, {}, b'{"choices": [{"message": {"content": 7}}]}'),
        (200, {}, b'{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}'),
        (200, {}, b'{"choices": [{"message": {"content": "Yes"}}], "usage": {"prompt_tokens": "many"}}'),
        (200, {}, b'{"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [{"token": 1}]}}]}'),
        (200, {}, b'{"error": {"message": "out of memory"}}'),
        (204, {}, b""),
    ],
)
async def test_an_answer_that_is_none_says_so_in_one_line_and_is_not_asked_again(lmm, server, ask, reply) -> None:
    server.reply = lambda n, body: reply
    with pytest.raises(LMMResponseError) as caught:
        await lmm.generate(ask("?", top_logprobs=20))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert len(server.requests) == 1


@pytest.mark.parametrize("logprobs", [None, {"content": None}, {"content": []}])
async def test_missing_log_probabilities_are_an_error_only_where_some_were_asked_for(
    lmm, server, ask, completion, logprobs
) -> None:
    server.reply = lambda n, body: completion("Yes", logprobs=logprobs)
    with pytest.raises(LMMResponseError, match=r"no log-probabilities.*--max-logprobs"):
        await lmm.generate(ask("?", top_logprobs=20))
    assert (await lmm.generate(ask("?"))).text == "Yes"


async def test_a_body_that_breaks_off_can_pass(lmm, server, ask, completion) -> None:
    status, headers, body = completion("Yes")
    replies = [(200, {"Content-Encoding": "gzip"}, b"no gzip"), (status, headers, body)]
    server.reply = lambda n, _: replies[n]
    assert (await lmm.generate(ask("?"))).text == "Yes"


# What fails


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
async def test_what_can_pass_is_asked_again(lmm, server, ask, completion, status: int) -> None:
    server.reply = lambda n, body: (status, {}, b'{"error": {"message": "busy"}}') if n < 2 else completion("Yes")
    assert (await lmm.generate(ask("?"))).text == "Yes"
    assert len(server.requests) == 3
    assert server.requests[0] == server.requests[2]


@pytest.mark.parametrize("code", [408, 429, "503", 502.0, "rate_limit_exceeded", "internal_server_error"])
@pytest.mark.parametrize("in_choice", [False, True])
async def test_an_error_in_200_is_asked_again_where_its_code_says_so(
    lmm, server, ask, completion, code: object, in_choice: bool
) -> None:
    error = {"error": {"message": "busy", "code": code}}
    failed = {"choices": [{**error, "message": {"content": ""}}]} if in_choice else error
    server.reply = lambda n, body: (200, {}, json.dumps(failed).encode()) if n < 2 else completion("Yes")
    assert (await lmm.generate(ask("?"))).text == "Yes"
    assert len(server.requests) == 3


async def test_an_error_in_200_that_can_not_pass_keeps_the_servers_words(lmm, server, ask) -> None:
    server.reply = lambda n, body: (200, {}, b'{"error": {"message": "at most 4 images", "code": 400}}')
    with pytest.raises(LMMRequestError, match="at most 4 images"):
        await lmm.generate(ask("?"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 415, 422, 451])
async def test_what_cannot_pass_is_not_asked_again_and_keeps_the_servers_words(lmm, server, ask, status: int) -> None:
    server.reply = lambda n, body: (status, {}, b'{"error": {"message": "at most 4 images\\n per prompt"}}')
    with pytest.raises(LMMRequestError) as caught:
        await lmm.generate(ask("?"))
    assert str(caught.value).startswith(f"{server.url}/v1 answered {status}: at most 4 images per prompt")
    assert ("API key" in str(caught.value)) == (status in (401, 403))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"), [(408, LMMConnectionError), (429, LMMRateLimitError), (503, LMMServerError)]
)
async def test_what_never_passes_ends_as_its_own_error(server, ask, pictures, status: int, kind: type) -> None:
    lmm = OpenAILMM(server.url, "served", pictures, backoff=0.01, attempts=3)
    server.reply = lambda n, body: (status, {"Content-Type": "text/html"}, HTML)
    with pytest.raises(kind) as caught:
        await lmm.generate(ask("?"))
    assert len(server.requests) == 3
    assert str(status) in str(caught.value) and "\n" not in str(caught.value)
    await lmm.aclose()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date", "date without zone"])
async def test_retry_after_is_honoured(server, ask, pictures, completion, status: int, form: str) -> None:
    """`due` is when it may be asked again, and no date says more than whole seconds."""
    due: list[datetime] = []
    again: list[datetime] = []

    def reply(n: int, body: object) -> object:
        if n > 0:
            return completion("Yes")
        due.append((datetime.now(UTC) + timedelta(seconds=100)).replace(microsecond=0))
        date = due[0].strftime("%a, %d %b %Y %H:%M:%S -0000")
        date = format_datetime(due[0], usegmt=True) if form == "date" else date
        return status, {"Retry-After": "100.0" if form == "seconds" else date}, b"{}"

    async def sleep(seconds: float) -> None:
        again.append(datetime.now(UTC) + timedelta(seconds=seconds))
        assert seconds < 101

    server.reply = reply
    lmm = OpenAILMM(server.url, "served", pictures, backoff=0.01, timeout=PATIENCE, sleep=sleep)
    assert (await lmm.generate(ask("?"))).text == "Yes"
    assert len(server.requests) == 2
    assert again[0] >= due[0]
    await lmm.aclose()


@pytest.mark.parametrize("words", ["soon", "", "nan", "-5", "inf", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_a_retry_after_that_says_nothing_is_ignored(server, ask, pictures, completion, words: str) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    server.reply = lambda n, body: completion("Yes") if n else (429, {"Retry-After": words}, b"{}")
    lmm = OpenAILMM(server.url, "served", pictures, backoff=0.01, timeout=PATIENCE, sleep=sleep)
    assert (await lmm.generate(ask("?"))).text == "Yes"
    assert len(pauses) == 1 and 0 <= pauses[0] <= 0.01
    await lmm.aclose()


async def test_a_server_that_asks_for_a_long_pause_is_taken_at_its_word(lmm, server, ask) -> None:
    server.reply = lambda n, body: (429, {"Retry-After": str(LONGEST_WAIT + 1)}, b'{"error": {"message": "quota"}}')
    with pytest.raises(LMMRateLimitError, match="quota") as caught:
        await lmm.generate(ask("?"))
    assert caught.value.retry_after == LONGEST_WAIT + 1
    assert len(server.requests) == 1


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_an_unreachable_server_is_named_with_what_to_do(ask, pictures) -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    lmm = OpenAILMM(url, "m", pictures, backoff=0.01, attempts=2)
    for call in (lmm.generate(ask("?")), lmm.check()):
        with pytest.raises(LMMConnectionError) as caught:
            await call
        assert str(caught.value).startswith(f"can't reach {url}/v1 (") and "fieldscope lmm serve" in str(caught.value)
        assert "\n" not in str(caught.value)
    await lmm.aclose()


async def test_a_server_that_hangs_up_is_unreachable(ask, pictures) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    hangs_up = await asyncio.start_server(cut, "127.0.0.1", 0)
    lmm = OpenAILMM(f"http://127.0.0.1:{hangs_up.sockets[0].getsockname()[1]}", "m", pictures, backoff=0.01, attempts=2)
    with pytest.raises(LMMConnectionError, match="can't reach"):
        await lmm.generate(ask("?"))
    hangs_up.close()
    await lmm.aclose()


async def test_a_slow_answer_is_given_up_and_asked_again(server, ask, pictures, completion) -> None:
    lmm = OpenAILMM(server.url, "m", pictures, backoff=0.01, timeout=1.0, attempts=60)  # one is quick enough
    asked_again = threading.Event()

    def reply(n: int, body: object) -> object:
        if n == 0:
            asked_again.wait(PATIENCE)
        asked_again.set()
        return completion("Yes" if n else "late")

    server.reply = reply
    assert (await lmm.generate(ask("?"))).text == "Yes"
    await lmm.aclose()


async def test_a_server_that_drips_does_not_hold_a_call_for_ever(ask, pictures) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n")
        while not writer.is_closing():  # the client gives up
            writer.write(b" ")
            await asyncio.sleep(0)

    dripping = await asyncio.start_server(drip, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{dripping.sockets[0].getsockname()[1]}"
    lmm = OpenAILMM(url, "m", pictures, timeout=0.4, attempts=1)
    with pytest.raises(LMMConnectionError, match=r"did not answer within 0\.4 s"):
        await lmm.generate(ask("?"))
    dripping.close()
    await lmm.aclose()


async def test_no_more_calls_are_out_at_once_than_allowed(server, ask, pictures, completion) -> None:
    lmm = OpenAILMM(server.url, "m", pictures, max_concurrency=3)

    three = threading.Barrier(3)

    def reply(n: int, body: object) -> object:
        three.wait(PATIENCE)
        return completion("Yes")

    server.reply = reply
    await asyncio.gather(*(lmm.generate(ask(f"{n} ?")) for n in range(12)))
    assert len(server.requests) == 12 and server.most_at_once == 3
    await lmm.aclose()


async def test_one_calls_retries_do_not_count_for_another(server, ask, pictures, completion) -> None:
    lmm = OpenAILMM(server.url, "m", pictures, backoff=0.01, attempts=3)
    failures: dict[str, int] = {}

    def reply(n: int, body: dict[str, Any]) -> object:
        text = body["messages"][0]["content"]
        failures[text] = failures.get(text, 0) + 1
        return (503, {}, b"{}") if failures[text] < 3 else completion(text)

    server.reply = reply
    responses = await asyncio.gather(*(lmm.generate(ask(str(n))) for n in range(10)))
    assert [response.text for response in responses] == [str(n) for n in range(10)]
    await lmm.aclose()


# Asking whether it is there


async def test_check_passes_where_the_model_is_served(lmm, server) -> None:
    server.reply = lambda n, body: (200, {}, b'{"object": "list", "data": [{"id": "other"}, {"id": "served"}]}')
    assert (await lmm.check()).listed


@pytest.mark.parametrize("odd", [b'{"data": null}', b'{"data": ["served"]}', b"{}"])
async def test_check_passes_where_a_list_of_models_can_not_be_read(lmm, server, odd: bytes) -> None:
    server.reply = lambda n, body: (200, {}, odd)
    assert not (await lmm.check()).listed


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        ((200, {}, b'{"data": [{"id": "a"}, {"id": "b"}]}'), LMMRequestError, "serves a, b, not served: set --model"),
        ((200, {}, b'{"data": []}'), LMMRequestError, "serves no model"),
        ((200, {"Content-Type": "text/html"}, HTML), LMMResponseError, "no list of models"),
        ((401, {}, b'{"error": {"message": "who are you"}}'), LMMRequestError, "401: who are you"),
        ((503, {}, b""), LMMServerError, "503"),
    ],
)
async def test_check_says_what_is_wrong(lmm, server, reply, kind: type, words: str) -> None:
    server.reply = lambda n, body: reply
    with pytest.raises(kind, match=words):
        await lmm.check()


# Every failure of the library has its place in our tree


def subclasses(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def an_instance(cls: type[Exception]) -> Exception:
    request = httpx2.Request("POST", "http://gpu/v1/chat/completions")
    status = {
        "BadRequestError": 400,
        "AuthenticationError": 401,
        "OAuthError": 401,
        "PermissionDeniedError": 403,
        "NotFoundError": 404,
        "ConflictError": 409,
        "UnprocessableEntityError": 422,
        "RateLimitError": 429,
    }.get(cls.__name__, 500)
    response = httpx2.Response(status, request=request, json={"error": "oauth", "error_description": "x"})
    truncated = ChatCompletion.model_construct(choices=[], usage=None)
    attempts: list[dict[str, Any]] = [
        {"message": "it\nfailed", "response": response, "body": {"message": "it\nfailed"}},
        {"response": response, "body": None},
        {"response": response},
        {"message": "it\nfailed", "request": request, "body": None},
        {"message": "it\nfailed", "request": request},
        {"request": request},
        {"completion": truncated},
        {"message": "it\nfailed", "unsent_messages": []},
        {"message": "it\nfailed"},
        {"symbol": "Completion"},
        {},
    ]
    for arguments in attempts:
        try:
            return cls(**arguments)
        except TypeError:
            continue
    raise AssertionError(f"don't know how to make a {cls.__name__}")


ERRORS = [openai.OpenAIError, *sorted(set(subclasses(openai.OpenAIError)), key=lambda c: c.__name__)]


@pytest.mark.parametrize("cls", ERRORS, ids=lambda c: c.__name__)
def test_every_error_of_the_library_is_one_of_ours_in_one_line(cls: type[Exception]) -> None:
    mapped = lmm_error(an_instance(cls), "http://gpu/v1", 60)
    assert isinstance(mapped, LMMError)
    assert "http://gpu/v1" in str(mapped) and "\n" not in str(mapped)


def test_the_errors_that_matter_land_where_they_belong() -> None:
    expected: dict[type[Exception], type[FieldscopeError]] = {
        openai.APIConnectionError: LMMConnectionError,
        openai.APITimeoutError: LMMConnectionError,
        openai.RateLimitError: LMMRateLimitError,
        openai.ConflictError: LMMRateLimitError,
        openai.InternalServerError: LMMServerError,
        openai.BadRequestError: LMMRequestError,
        openai.AuthenticationError: LMMRequestError,
        openai.NotFoundError: LMMRequestError,
        openai.UnprocessableEntityError: LMMRequestError,
        openai.APIResponseValidationError: LMMResponseError,
        openai.LengthFinishReasonError: LMMResponseError,
        openai.ContentFilterFinishReasonError: LMMResponseError,
        TimeoutError: LMMConnectionError,
    }
    for cls, ours in expected.items():
        assert type(lmm_error(an_instance(cls), "http://gpu/v1", 60)) is ours, cls
