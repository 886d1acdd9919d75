"""Pictures come from allowed hosts and public addresses alone, whatever a name, a redirect or a server says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest

from fieldscope.core.errors import ImageTooLargeError
from fieldscope.service.server.api.documents import DocumentObject, read_inputs
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.fetching import Address, Fetcher, is_public
from tests.service.api.desk import RED, Desk, picture
from tests.waiting import PATIENCE

PNG = picture(RED)
Serve = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Web:
    """A server on loopback. `pages` maps a path to what it does; `asked` has each path with its Host header."""

    port: int = 0
    pages: dict[str, Serve] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def url(self, path: str, host: str = "pictures.test") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.path, self.headers["Host"]))
            made.pages[self.path](self)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = http.server_port
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    http.shutdown()
    http.server_close()


def page(body: bytes, status: int = 200, **headers: str) -> Serve:
    def serve(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return serve


def onward(location: str) -> Serve:
    return page(b"", 302, Location=location)


def fetcher(
    web: Web, *addresses: str, allow_all: bool = True, seconds: float = PATIENCE, size: int = 10_000
) -> Fetcher:
    """A fetcher for `pictures.test`, whose name leads to these addresses (by default to the server)."""

    async def resolve(host: str, port: int) -> Collection[Address]:
        return [ip_address(address) for address in addresses or ("127.0.0.1",)]

    allowed = (lambda address: True) if allow_all else is_public
    hosts = [f"Pictures.TEST:{web.port}"]
    return Fetcher(hosts, size, seconds=seconds, resolve=resolve, allowed=allowed)


async def refusal(fetcher: Fetcher, url: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await fetcher.fetch(url)
    return caught.value


async def test_a_picture_of_an_allowed_host(web: Web) -> None:
    web.pages["/a.png?x=1"] = page(PNG)
    assert await fetcher(web).fetch(web.url("/a.png?x=1#top")) == PNG
    assert await fetcher(web).fetch(web.url("/a.png?x=1", "PICTURES.test.")) == PNG
    assert web.asked[0] == ("/a.png?x=1", f"pictures.test:{web.port}")


async def test_without_allowed_hosts_nothing_is_fetched(web: Web) -> None:
    for url in (web.url("/a.png", "127.0.0.1"), web.url("/a.png"), "https://pictures.test/a.png"):
        error = await refusal(Fetcher((), 10_000), url)
        assert (error.status, error.code) == (400, "host_not_allowed")
        assert "--image-host" in str(error)
    assert web.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.test/a.png",
        "http://pictures.test.evil.test/a.png",
        "http://pictures.test/a.png",  # another port than the one allowed
        "https://pictures.test:1/a.png",
        "http://pictures.test@evil.test/a.png",
        "http://evil.test#pictures.test",
        "http://evil.test\\@pictures.test/",
        "http://user:password@pictures.test:{port}/a.png",
        "ftp://pictures.test:{port}/a.png",
        "http:///a.png",
        "http://",
        "http://pictures.test:99999/a.png",
        "http://[::1/a.png",
        "http://pictures.test:{port}\x00/a.png",
        "http://xn--\u202e.test/",
    ],
)
async def test_addresses_that_only_look_allowed(web: Web, url: str) -> None:
    error = await refusal(fetcher(web), url.format(port=web.port))
    assert error.status in (400, 422)
    assert web.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "192.0.2.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::1", "::", "fe80::1", "fc00::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:8.8.8.8", "2002:7f00:1::", "64:ff9b::7f00:1", "2001:0:7f00:1::", "::7f00:1",
    ],
)  # fmt: skip
async def test_names_that_lead_inside_lead_nowhere(web: Web, address: str) -> None:
    assert not is_public(ip_address(address))
    error = await refusal(fetcher(web, address, allow_all=False), web.url("/a.png"))
    assert (error.status, error.code) == (400, "address_not_allowed")
    error = await refusal(fetcher(web, "8.8.8.8", address, allow_all=False), web.url("/a.png"))
    assert error.code == "address_not_allowed"
    assert web.asked == []


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"])
def test_public_addresses(address: str) -> None:
    assert is_public(ip_address(address))


async def test_this_machine_by_name_and_by_number(web: Web) -> None:
    web.pages["/a.png"] = page(PNG)
    for host in ("localhost", "127.0.0.1", "[::1]"):
        url = web.url("/a.png", host)
        error = await refusal(Fetcher([f"{host.strip('[]')}:{web.port}"], 10_000), url)
        assert (error.status, error.code) == (400, "address_not_allowed"), host
    assert web.asked == []


async def test_a_name_is_looked_up_once_and_that_address_is_used(web: Web) -> None:
    web.pages["/a.png"] = page(PNG)
    answers = [["127.0.0.1"], ["127.0.0.2"]]

    async def rebinding(host: str, port: int) -> Collection[Address]:
        return [ip_address(address) for address in answers.pop(0)]

    made = Fetcher(
        [f"pictures.test:{web.port}"], 10_000, resolve=rebinding, allowed=lambda a: a == ip_address("127.0.0.1")
    )
    assert await made.fetch(web.url("/a.png")) == PNG
    assert len(answers) == 1
    assert (await refusal(made, web.url("/a.png"))).code == "address_not_allowed"


async def test_redirects_stay_with_their_host(web: Web) -> None:
    web.pages |= {
        "/a.png": page(PNG),
        "/one": onward("/two"),
        "/two": onward(web.url("/three")),
        "/three": onward("a.png"),
        "/zero": onward("/one"),
        "/round": onward("/round"),
    }
    assert await fetcher(web).fetch(web.url("/one")) == PNG
    assert "more than 3 times" in str(await refusal(fetcher(web), web.url("/zero")))
    assert "more than 3 times" in str(await refusal(fetcher(web), web.url("/round")))


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/a.png",
        "http://localhost:{port}/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://pictures.test/a.png",
        "//evil.test/a.png",
        "https://pictures.test:{port}/a.png",
        "file:///etc/passwd",
        "gopher://pictures.test:{port}/",
    ],
)
async def test_redirects_elsewhere_are_not_followed(web: Web, location: str) -> None:
    web.pages["/a.png"] = page(PNG)
    web.pages["/away"] = onward(location.format(port=web.port))
    error = await refusal(fetcher(web), web.url("/away"))
    assert error.status in (400, 422)
    assert [path for path, _ in web.asked] == ["/away"]


async def test_a_redirect_whose_name_now_leads_inside(web: Web) -> None:
    web.pages["/away"] = page(b"", 302, Location="/a.png", Connection="close")
    web.pages["/a.png"] = page(PNG)
    answers = [["127.0.0.1"], ["10.0.0.1"]]

    async def rebinding(host: str, port: int) -> Collection[Address]:
        return [ip_address(address) for address in answers.pop(0)]

    made = Fetcher([f"pictures.test:{web.port}"], 10_000, resolve=rebinding, allowed=lambda a: a.is_loopback)
    assert (await refusal(made, web.url("/away"))).code == "address_not_allowed"
    assert [path for path, _ in web.asked] == ["/away"]


async def test_sizes_are_counted_whatever_the_server_claims(web: Web) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(10_000):
            try:
                handler.wfile.write(b"x" * 1_000)
            except OSError:  # nobody listens any more
                return
        web.pages["/read to its end"] = page(b"")

    web.pages |= {"/claims": page(b"", Content_Length="10001"), "/endless": endless}
    for path in ("/claims", "/endless"):
        with pytest.raises(ImageTooLargeError, match="more than the limit"):
            await fetcher(web).fetch(web.url(path))
    assert "/read to its end" not in web.pages


async def test_a_slow_server_is_left(web: Web) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):  # until the fetcher leaves
            while True:
                handler.wfile.write(b"x")

    web.pages["/slow"] = slow
    error = await refusal(fetcher(web, seconds=0.2, size=10**9), web.url("/slow"))
    assert "took more than 0.2 s" in str(error)


async def test_faults_of_the_server_are_told_without_its_words(web: Web) -> None:
    web.pages["/gone"] = page(b"secret of the inside", 404)
    web.pages["/odd"] = lambda handler: handler.wfile.write(b"SSH-2.0-secret\r\n") and None
    assert "status 404" in str(await refusal(fetcher(web), web.url("/gone")))
    for path in ("/gone", "/odd"):
        error = await refusal(fetcher(web), web.url(path))
        assert error.status == 422
        assert "secret" not in str(error)


async def test_what_is_fetched_is_opened_as_a_picture_and_nothing_else(web: Web, tmp_path: Path) -> None:
    web.pages |= {"/a.png": page(PNG), "/a.html": page(b"<html>" + b" " * 600)}
    desk = Desk(tmp_path, hosts=(f"127.0.0.1:{web.port}",))
    with pytest.raises(ApiError, match=r"^document 0: .*private network"):
        await read_inputs("q", [DocumentObject(image=web.url("/a.png", "127.0.0.1"))], desk.engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fieldscope.service.server.api.documents.Fetcher", lambda hosts, size: fetcher(web))
        await read_inputs("q", [DocumentObject(image=web.url("/a.png"))], desk.engine)
        assert len(desk.pictures) == 1
        with pytest.raises(ApiError, match=r"^document 0: .*can't be read as an image"):
            await read_inputs("q", [DocumentObject(image=web.url("/a.html"))], desk.engine)
