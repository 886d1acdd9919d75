from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from fieldscope.core.errors import ConfigError
from fieldscope.service.server.api.guard import Guard
from fieldscope.service.server.api.keys import KeyFile

LIMIT = 1000
JSON = ("content-type", "application/json")
LOCAL = ("host", "127.0.0.1:8080")


class Door:
    """A guard before an application that reads its body, and what passed through."""

    def __init__(self, keys: KeyFile | None = None) -> None:
        public = keys is not None
        keys = keys or KeyFile(Path("no-such-keys.json"))
        self.guard = Guard(self._app, keys=keys, max_body=LIMIT, max_seconds=600.0, public=public)
        self.let_in = 0
        self.taken = 0
        self.replies: list[Message] = []

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.let_in += 1
        body = await Request(scope, receive).body()
        await JSONResponse({"size": len(body)})(scope, receive, send)

    async def ask(
        self,
        *headers: tuple[str, str],
        method: str = "POST",
        path: str = "/v1/rerank",
        chunks: tuple[bytes, ...] = (b"{}",),
    ) -> int:
        """The status; `taken` counts the chunks that were read."""
        waiting = list(chunks)
        self.replies = []

        async def receive() -> Message:
            self.taken += 1
            chunk = waiting.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

        async def send(message: Message) -> None:
            self.replies.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        }
        await self.guard(scope, receive, send)
        status: int = self.replies[0]["status"]
        return status

    @property
    def reply(self) -> Any:
        return json.loads(self.replies[1]["body"])

    def header(self, name: str) -> str | None:
        found = dict(self.replies[0]["headers"]).get(name.encode())
        return None if found is None else found.decode()


async def test_a_body_that_says_it_is_too_large_is_refused_unread() -> None:
    door = Door()
    assert await door.ask(LOCAL, JSON, ("content-length", "1000000000")) == 413
    assert (door.let_in, door.taken) == (0, 0)
    assert door.reply["error"]["code"] == "body_too_large"
    assert door.reply["message"] == door.reply["error"]["message"]
    assert door.header("connection") == "close"


async def test_a_body_that_never_ends_is_refused_as_soon_as_it_is_too_large() -> None:
    from starlette.exceptions import HTTPException

    door = Door()
    chunks = (b"x" * 300,) * 1000
    with pytest.raises(HTTPException) as refused:  # which the application's handlers turn into JSON
        await door.ask(LOCAL, JSON, ("transfer-encoding", "chunked"), chunks=chunks)
    assert refused.value.status_code == 413
    assert door.taken == 4


async def test_a_body_that_lies_about_its_size_is_counted_all_the_same() -> None:
    from starlette.exceptions import HTTPException

    door = Door()
    with pytest.raises(HTTPException):
        await door.ask(LOCAL, JSON, ("content-length", "2"), chunks=(b"x" * LIMIT, b"x"))


async def test_a_body_of_just_the_limit_passes() -> None:
    assert await Door().ask(LOCAL, JSON, ("content-length", str(LIMIT)), chunks=(b"x" * LIMIT,)) == 200


@pytest.mark.parametrize("length", ["-1", "1e3", "²", "9" * 5000, ""])
async def test_a_length_that_is_none_is_refused(length: str) -> None:
    assert await Door().ask(LOCAL, JSON, ("content-length", length)) == 413


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9000", 200),
        ("localhost.", 200),
        ("127.0.0.1:8080", 200),
        ("127.9.9.9", 200),
        ("[::1]:8080", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1@evil.example", 403),
        ("192.168.1.7:8080", 403),
        ("0.0.0.0", 403),
        ("", 403),
        ("[::1", 403),
    ],
)
async def test_without_keys_the_host_is_this_machine(host: str, status: int) -> None:
    door = Door()
    assert await door.ask(("host", host), JSON) == status
    assert door.let_in == (status == 200)


async def test_without_keys_a_host_is_wanted_and_only_one() -> None:
    assert await Door().ask(JSON) == 403
    assert await Door().ask(LOCAL, ("host", "evil.example"), JSON) == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8080", 200),
        ("http://127.0.0.1", 403),
        ("http://127.0.0.1:9999", 403),
        ("http://localhost:8080", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("http://[", 403),
    ],
)
async def test_an_origin_is_the_services_own(origin: str, status: int) -> None:
    assert await Door().ask(LOCAL, JSON, ("origin", origin)) == status
    assert await Door().ask(LOCAL, ("origin", origin), method="GET") == status


async def test_a_form_of_the_services_own_page_may_come_without_an_origin_where_the_browser_says_so() -> None:
    null, own = ("origin", "null"), ("sec-fetch-site", "same-origin")
    assert await Door().ask(LOCAL, null, own, path="/runs/a/annotate") == 200
    assert await Door().ask(LOCAL, null, ("sec-fetch-site", "cross-site"), path="/runs/a/annotate") == 403
    assert await Door().ask(LOCAL, ("origin", "http://evil.example"), own) == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_what_is_not_json_is_refused(kind: str) -> None:
    door = Door()
    assert await door.ask(LOCAL, ("content-type", kind), ("content-length", "2")) == 415
    assert door.reply["error"]["code"] == "unsupported_media_type"
    assert await door.ask(LOCAL, ("content-type", kind), ("content-length", "2"), path="/runs/a") == 200
    assert await door.ask(LOCAL, ("content-type", kind), ("content-length", "0"), path="/v1/jobs/1/cancel") == 200


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "private" / "keys.json")


async def test_with_keys_each_request_needs_one(keys: KeyFile) -> None:
    secret = keys.add("alice")
    door = Door(keys)
    public = ("host", "reranker.example")
    assert await door.ask(public, JSON) == 401
    assert door.reply["error"]["code"] == "no_key"
    assert door.header("www-authenticate") == "Bearer"
    for wrong in ("Bearer nonsense", "Bearer ", f"Bearer {secret}x", "Basic !", "Digest x", "Bearer \xff", ""):
        assert await door.ask(public, JSON, ("authorization", wrong)) == 401
    assert await door.ask(public, JSON, ("x-api-key", secret[:-1])) == 401
    assert door.let_in == 0
    assert await door.ask(public, JSON, ("authorization", f"Bearer {secret}")) == 200
    assert await door.ask(public, JSON, ("authorization", f"bearer  {secret}")) == 200
    assert await door.ask(public, JSON, ("x-api-key", secret)) == 200


async def test_a_key_sent_by_a_program_may_come_from_any_page_and_a_browsers_password_may_not(keys: KeyFile) -> None:
    secret = keys.add("alice")
    door, host, foreign = Door(keys), ("host", "r.example"), ("origin", "https://app.example")
    assert await door.ask(host, JSON, foreign, ("x-api-key", secret)) == 200
    password = ("authorization", "Basic " + base64.b64encode(f"any:{secret}".encode()).decode())
    assert await door.ask(host, password, method="GET", path="/") == 200
    assert await door.ask(host, JSON, password, foreign) == 403
    assert await door.ask(host, JSON, password, ("origin", "https://r.example")) == 200


async def test_a_browser_is_asked_for_a_password(keys: KeyFile) -> None:
    keys.add("alice")
    door = Door(keys)
    assert await door.ask(("host", "r.example"), ("accept", "text/html,*/*"), method="GET", path="/") == 401
    assert door.header("www-authenticate") == 'Basic realm="fieldscope"'


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_whoever_watches_over_the_process_needs_no_key(keys: KeyFile, path: str) -> None:
    keys.add("alice")
    assert await Door(keys).ask(("host", "10.0.0.7"), method="GET", path=path) == 200


async def test_a_key_that_is_removed_opens_nothing_from_then_on(keys: KeyFile) -> None:
    first, second = keys.add("alice"), keys.add("bob")
    door = Door(KeyFile(keys.path))
    assert await door.ask(LOCAL, JSON, ("x-api-key", first)) == 200
    keys.remove("alice")
    assert await door.ask(LOCAL, JSON, ("x-api-key", first)) == 401
    assert await door.ask(LOCAL, JSON, ("x-api-key", second)) == 200
    keys.remove("bob")
    assert await door.ask(LOCAL, JSON, ("x-api-key", second)) == 401


def test_only_a_salted_hash_is_kept_and_only_the_owner_reads_it(keys: KeyFile) -> None:
    secret = keys.add("alice")
    assert secret not in keys.path.read_text(encoding="utf-8")
    assert keys.path.stat().st_mode & 0o077 == 0
    assert (keys.owner(secret), keys.owner(secret[:-1]), keys.owner("")) == ("alice", None, None)
    (kept,) = keys.all()
    again = KeyFile(keys.path.with_name("other.json"))
    again.add("alice")
    assert again.all()[0].salt != kept.salt


def test_names_are_told_apart(keys: KeyFile) -> None:
    keys.add("alice")
    with pytest.raises(ConfigError, match="a key called 'alice' exists"):
        keys.add("alice")
    with pytest.raises(ConfigError, match=r"unknown key 'alise'.*did you mean 'alice'"):
        keys.remove("alise")
    with pytest.raises(ConfigError, match="can't be a key's name"):
        keys.add("../x")
    keys.path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not a file of API keys"):
        keys.all()
