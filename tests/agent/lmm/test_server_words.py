"""What servers say when they refuse, connections that can't be made, and keys: each its own sentence, no key in any."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which

import pytest

from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.core.errors import ConfigError, ContextLengthError, FieldscopeError, LMMConnectionError, LMMRequestError
from fieldscope.core.server_words import server_words
from tests.agent.lmm.conftest import Pictures, Server

KEY = "sk-a-secret-of-mine"
Ask = Callable[..., LMMRequest]


async def failure(url: str, pictures: Pictures, request: LMMRequest | None = None, key: str | None = KEY) -> Exception:
    """What one attempt ends in: at the model list, or at a question where there is a `request`."""
    with pytest.raises(FieldscopeError) as caught:
        lmm = OpenAILMM(url, "served", pictures, api_key=key, attempts=1)
        try:
            await (lmm.generate(request) if request else lmm.check())
        finally:
            await lmm.aclose()
    assert KEY.strip() not in str(caught.value) and "\n" not in str(caught.value)
    return caught.value


PAGE = (
    "<!DOCTYPE html><html><head><title>502 Bad Gateway</title><style>b {}</style></head>"
    "<body><h1>Try again</h1><hr>nginx</body></html>"
)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "no such model", "type": "x"}}, "no such model"),
        ({"detail": "Not authenticated"}, "Not authenticated"),
        (
            {"detail": [{"loc": ["body", "messages", 0], "msg": "field required", "type": "missing"}]},
            "body.messages.0: field required",
        ),
        ({"detail": {"error": "over quota"}}, "over quota"),
        ({"error": "model is loading", "estimated_time": 20}, "model is loading"),
        ({"error": ["a", "b"]}, "a; b"),
        ({"errors": [{"message": "one"}, {"message": "two"}]}, "one; two"),
        ({"message": "Forbidden"}, "Forbidden"),
        ({"title": "Bad Request", "status": 400}, "Bad Request"),
        ({"object": "error", "message": "too many images", "code": 40303}, "too many images"),
        ([{"error": {"message": "a list (Gemini)"}}], "a list (Gemini)"),
        ({"code": 7}, '{"code": 7}'),
        ("plain words", "plain words"),
        (PAGE, "502 Bad Gateway Try again nginx"),
        (f"<html>{'x ' * 5000}</html>", "..."),
    ],
)
async def test_a_server_s_own_words_survive(
    server: Server, pictures: Pictures, ask: Ask, body: object, words: str
) -> None:
    data = body if isinstance(body, str) else json.dumps(body)
    server.reply = lambda n, asked: (400, {}, data.encode())
    said = str(await failure(server.url, pictures, ask("is it red ?", "p0")))
    assert said.startswith(f"{server.url}/v1 answered 400: ")
    assert words in said
    assert len(said) < 400 and "<" not in said


@pytest.mark.parametrize("odd", [None, "", {}, [], 7, True, {"detail": None}, {"error": {}}, {"detail": [[[]]]}])
def test_bodies_without_words(odd: object) -> None:
    assert "\n" not in server_words(odd)


@pytest.mark.parametrize("where", ["error", "detail"])
@pytest.mark.parametrize("before", [0, 200])
async def test_a_server_that_echoes_the_key_is_not_quoted_with_it(
    server: Server, pictures: Pictures, ask: Ask, where: str, before: int
) -> None:
    server.reply = lambda n, asked: (401, {}, json.dumps({where: "x" * before + f" Bearer {KEY} is wrong"}).encode())
    said = str(await failure(server.url, pictures, ask("is it red ?", "p0")))
    assert KEY[:8] not in said
    assert "check that the API key in FIELDSCOPE_API_KEY is this server's" in said


async def test_no_key_is_another_advice_than_a_wrong_one(
    server: Server, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIELDSCOPE_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.reply = lambda n, asked: (403, {}, b'{"detail": "who are you?"}')
    said = str(await failure(server.url, pictures, key=None))
    assert said.endswith("answered 403: who are you?; put the server's API key in FIELDSCOPE_API_KEY")


@pytest.mark.parametrize("key", [f"{KEY} ", f"{KEY}\n", f"\t{KEY}\r\n"])
async def test_blanks_around_a_key_do_not_matter(server: Server, pictures: Pictures, ask: Ask, key: str) -> None:
    lmm = OpenAILMM(server.url, "served", pictures, api_key=key, attempts=1)
    await lmm.generate(ask("is it red ?", "p0"))
    await lmm.aclose()
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("odd", ["é", "\n", "\0", "\N{ZERO WIDTH SPACE}", "’"])
async def test_a_key_that_can_t_be_sent_is_named_by_its_place(server: Server, pictures: Pictures, odd: str) -> None:
    error = await failure(server.url, pictures, key=f"{KEY}{odd}x")
    assert isinstance(error, ConfigError)
    assert f"at place {len(KEY) + 1} of {len(KEY) + 2}" in str(error)
    assert KEY[:6] not in str(error)


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 1024 tokens. However, you requested 1200 tokens (700 in the messages, "
        "500 in the completion). Please reduce the length of the messages or completion.",
        "The decoder prompt (length 1729) is longer than the maximum model length of 1024.",
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        "the request exceeds the available context size, try increasing it",
        "Requested tokens (3000) exceed context window of 2048",
        "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 512 `max_new_tokens`",
        "prompt is too long: 210000 tokens > 200000 maximum",
    ],
)
@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_prompt_longer_than_the_context_is_an_error_of_its_own(
    server: Server, pictures: Pictures, ask: Ask, words: str, status: int
) -> None:
    server.reply = lambda n, asked: (status, {}, json.dumps({"error": {"message": words}}).encode())
    error = await failure(server.url, pictures, ask("is it red ?", "p0"))
    assert type(error) is ContextLengthError
    assert words[:60] in str(error) and "--max-model-len" in str(error) and "--max-side" in str(error)


async def test_another_refusal_is_none(server: Server, pictures: Pictures, ask: Ask) -> None:
    server.reply = lambda n, asked: (400, {}, b'{"error": {"message": "At most 1 image(s) may be provided"}}')
    assert type(await failure(server.url, pictures, ask("is it red ?", "p0"))) is LMMRequestError


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that nobody but us signed, and its key."""
    openssl = which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    made, key = folder / "made.pem", folder / "key.pem"
    line = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    line += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)]
    subprocess.run(line, check=True, capture_output=True)
    return made, key


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[str]:
    """The address of a server that speaks TLS and refuses everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that does not trust us says so to us."""

    http = Quiet(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*map(str, certificate))
    http.socket = context.wrap_socket(http.socket, server_side=True)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield f"https://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


async def test_a_certificate_that_is_not_trusted(
    secure: str, pictures: Pictures, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = await failure(secure, pictures)
    assert isinstance(error, LMMRequestError)  # another attempt would not help
    assert "is not trusted (self-signed certificate): name its authority's file in SSL_CERT_FILE" in str(error)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    assert "answered 401" in str(await failure(secure, pictures))


async def test_tls_where_there_is_none_and_the_reverse(server: Server, secure: str, pictures: Pictures) -> None:
    error = await failure(server.url.replace("http://", "https://"), pictures)
    assert isinstance(error, LMMRequestError) and str(error).endswith("write http:// in --lmm")
    error = await failure(secure.replace("https://", "http://"), pictures)
    assert isinstance(error, LMMConnectionError | LMMRequestError) and "write https:// " in str(error)


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080", "ALL_PROXY names a SOCKS proxy: run pip install socksio"),
        ("all_proxy", "socks5h://127.0.0.1:1080", "ALL_PROXY names a SOCKS proxy"),
        ("HTTPS_PROXY", "foo://127.0.0.1:1080", "HTTPS_PROXY is no proxy's address"),
        ("SSL_CERT_FILE", "/nowhere/at/all.pem", "SSL_CERT_FILE=/nowhere/at/all.pem can't be read"),
        ("SSL_CERT_FILE", __file__, f"SSL_CERT_FILE={__file__} can't be read"),
    ],
)
async def test_a_variable_that_no_client_can_be_made_with_is_named(
    server: Server, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, name: str, value: str, advice: str
) -> None:
    monkeypatch.setenv(name, value)
    error = await failure(server.url, pictures)
    assert isinstance(error, ConfigError)
    assert advice in str(error)
