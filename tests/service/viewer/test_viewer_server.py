"""The viewer over HTTP: its pages and headers, pictures, marks, and who is turned away."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from PIL import Image as PILImage

from fieldscope.core.paths import cache_folder
from fieldscope.eval.runs.annotations import NAME, read_annotations
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.server import HEADERS, create_viewer, is_loopback
from fieldscope.service.viewer.site import Site
from tests.service.viewer import shelves
from tests.service.viewer.shelves import LONG, SCRIPT, Made

HERE = "http://localhost:8600"
OWN = {"Sec-Fetch-Site": "same-origin"}


@asynccontextmanager
async def client(shelf: RunList, live: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_viewer(Site(shelf, live=live)))
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as http:
        yield http


def an_image(made: Made, run: str = "agent") -> tuple[str, str, str]:
    """Query, image, and the address of its page."""
    found = made.shelf().run(run)
    assert found is not None
    query_id = next(iter(found.digests))
    image_id = found.result(query_id).ranking[0].image_id
    return query_id, image_id, f"/{addresses.image_page(run, query_id, image_id)}"


def a_picture(made: Made, image_id: str, size: Callable[[str, str], str] = addresses.thumbnail) -> str:
    found = made.shelf().run("agent") or made.shelf().runs()[0]
    return f"/{size(found.collection_key, image_id)}"


def pages_of(shelf: RunList) -> Iterator[str]:
    """Every kind of page, and some of those there are many of."""
    for number, address in enumerate(Site(shelf, live=False).addresses()):
        if "/images/" not in address or number % 7 == 0:
            yield address


async def test_every_page_of_three_strategies(small: Made) -> None:
    shelf = small.shelf()
    async with client(shelf) as http:
        assert (await http.get("/")).text == (await http.get("/index.html")).text
        for address in pages_of(shelf):
            answer = await http.get(f"/{address}")
            assert answer.status_code == 200, address
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert {name: answer.headers[name] for name in HEADERS} == HEADERS
            assert 'style="' not in answer.text, address
            assert "<script>" not in answer.text, address
            assert answer.text.count("<h1") == 1, address
        folder = (await http.get("/runs/agent/")).text
        assert folder == (await http.get("/runs/agent/index.html")).text


async def test_a_hostile_run_is_escaped(hostile_shelf: Made) -> None:
    shelf = hostile_shelf.shelf()
    async with client(shelf) as http:
        for address in Site(shelf, live=False).addresses():
            answer = await http.get(f"/{address}")
            assert answer.status_code == 200, address
            assert SCRIPT not in answer.text, address
            assert "<img src=x" not in answer.text, address
            assert "<b>bold" not in answer.text, address
            assert "{{ 49 }}" not in answer.text.replace("49", "{{ 49 }}") or "{{ 7 * 7 }}" in answer.text, address
            if "/queries/" in address:
                assert LONG in answer.text, address
            if "/images/" in address:
                assert "&lt;script&gt;alert(" in answer.text, address
        run = shelf.runs()[0]
        for image_id in (ranked.image_id for ranked in run.result(next(iter(run.digests))).ranking):
            picture = await http.get(f"/{addresses.thumbnail(run.collection_key, image_id)}")
            assert picture.status_code == 200


@pytest.mark.parametrize(
    "address",
    [
        "/nowhere.html", "/runs/none/index.html", "/runs/agent/queries/none/index.html", "/runs/agent/nothing.html",
        "/runs/agent/queries/q00/images/none.html", "/compare/agent/index.html", "/compare/agent+agent/index.html",
        "/compare/agent+none/index.html", "/static/none.css", "/static/..%2f..%2fsite.py", "/static/%2e%2e/site.py",
        "/runs/..%2f..%2f/index.html", "/runs/agent/queries/~~0/index.html", "/runs/none/annotations.csv",
        "/elsewhere/x/y.webp", "/runs/%00/index.html", "/runs/agent/queries/~FF~FE/index.html",
        f"/{quote(SCRIPT)}.html",
    ],
)  # fmt: skip
async def test_what_is_not_there_is_a_page_with_a_sentence(small_shelf: Made, address: str) -> None:
    async with client(small_shelf.shelf()) as http:
        answer = await http.get(address)
    assert answer.status_code == 404
    assert 'class="sentence' in answer.text
    assert SCRIPT not in answer.text
    assert "Traceback" not in answer.text
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("change", [shelves.newer, shelves.damaged, shelves.begun, shelves.half_written, shelves.bare])
async def test_runs_that_are_not_whole_show_a_sentence(small: Made, change: Callable[[Path], None]) -> None:
    change(small.run("agent"))
    shelf = small.shelf()
    async with client(shelf) as http:
        for address in pages_of(shelf):
            assert (await http.get(f"/{address}")).status_code == 200, address
        own = await http.get("/runs/agent/index.html")
        broken = change in (shelves.newer, shelves.damaged, shelves.begun)
        assert own.status_code == (404 if broken else 200)
        # The list of all runs says why, too.
        if broken:
            problem = shelf.run("agent")
            assert problem is not None
            assert 'class="sentence' in own.text
            assert str(problem.problem) in unescape((await http.get("/")).text)


async def test_an_empty_folder_shows_a_sentence(tmp_path: Path) -> None:
    async with client(RunList(tmp_path)) as http:
        answer = await http.get("/")
    assert answer.status_code == 200
    assert "sentence" in answer.text


async def test_a_run_that_arrives_later_is_shown(small: Made) -> None:
    async with client(small.shelf()) as http:
        assert (await http.get("/runs/late/index.html")).status_code == 404
        shelves.copied(small, "agent", "late")
        assert (await http.get("/runs/late/index.html")).status_code == 200


async def test_styles_and_scripts(small_shelf: Made) -> None:
    async with client(small_shelf.shelf()) as http:
        style, script = await http.get("/static/viewer.css"), await http.get("/static/viewer.js")
    assert style.headers["content-type"].startswith("text/css")
    assert "javascript" in script.headers["content-type"]
    assert style.headers["x-content-type-options"] == "nosniff"


async def test_a_head_is_a_get_without_its_body(small_shelf: Made) -> None:
    async with client(small_shelf.shelf()) as http:
        for address in ("/", "/static/viewer.css", a_picture(small_shelf, "00.png")):
            assert (await http.head(address)).status_code == 200
        assert (await http.put("/")).status_code == 405


async def test_thumbnails_are_made_once(small: Made) -> None:
    PILImage.new("RGB", (3000, 1500), "red").save(small.images / "large.png")
    try:
        async with client(small.shelf()) as http:
            sizes = {}
            for size in (addresses.thumbnail, addresses.picture):
                answer = await http.get(a_picture(small, "large.png", size))
                assert answer.headers["content-type"] == "image/webp"
                with PILImage.open(io.BytesIO(answer.content)) as image:
                    sizes[size.__name__] = image.size
            assert sizes == {"thumbnail": (160, 80), "picture": (1024, 512)}
            kept = list((cache_folder() / "viewer" / "thumbnails").rglob("*.webp"))
            assert len(kept) == 1
            made = kept[0].stat().st_mtime_ns
            await http.get(a_picture(small, "large.png"))
            assert kept[0].stat().st_mtime_ns == made
            # A picture that changed is made anew.
            PILImage.new("RGB", (300, 100), "blue").save(small.images / "large.png")
            answer = await http.get(a_picture(small, "large.png"))
            with PILImage.open(io.BytesIO(answer.content)) as image:
                assert image.size == (160, 53)
    finally:
        (small.images / "large.png").unlink()


@pytest.mark.parametrize(
    "image_id", ["none.png", "../responses.sqlite", "/etc/hostname", "..", "broken.png", ".hidden.png"]
)
async def test_what_is_no_picture_is_a_placeholder(small: Made, image_id: str) -> None:
    (small.images / "broken.png").write_bytes(b"\x89PNG no more")
    (small.images / ".hidden.png").write_bytes((small.images / "00.png").read_bytes())
    try:
        async with client(small.shelf()) as http:
            answers = [await http.get(a_picture(small, image_id)), await http.get(f"/thumbnails/none/{'x'}.webp")]
        for answer in answers:
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "image/webp"
            with PILImage.open(io.BytesIO(answer.content)) as image:
                assert image.size == (160, 120)
    finally:
        (small.images / "broken.png").unlink()
        (small.images / ".hidden.png").unlink()


async def test_a_collection_that_is_gone_leaves_pages_whole(few: Made) -> None:
    for name in ("agent", "clip"):
        (few.run(name) / "collection.json").write_text('{"kind": "folder", "root": "/nowhere/at/all"}')
    async with client(few.shelf()) as http:
        for address in pages_of(few.shelf()):
            assert (await http.get(f"/{address}")).status_code == 200, address


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True), ("localhost:8600", True), ("127.0.0.1:1", True), ("[::1]:80", True), ("127.9.9.9", True),
        ("evil.example", False), ("localhost.evil.example", False), ("192.168.0.1:80", False), ("", False),
        ("evil.example@localhost", True), ("0.0.0.0", False), ("[::1", False), ("127.0.0.1.evil.example", False),
    ],
)  # fmt: skip
def test_names_of_this_machine(host: str, own: bool) -> None:
    assert is_loopback(host) is own


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8600", "10.0.0.7", ""])
async def test_a_foreign_host_is_turned_away(small_shelf: Made, host: str) -> None:
    async with client(small_shelf.shelf()) as http:
        answer = await http.get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert "Fieldscope" not in answer.text


async def test_a_mark_over_http(small: Made) -> None:
    query_id, image_id, address = an_image(small)
    async with client(small.shelf()) as http:
        answer = await http.post(f"{address}?truth=hide", data={"mark": "wrong", "note": "a <b>net</b>"}, headers=OWN)
        assert answer.status_code == 303
        assert answer.headers["location"] == f"{address}?truth=hide#annotate"
        page = (await http.get(address)).text
        assert "a &lt;b&gt;net&lt;/b&gt;" in page
        assert 'aria-pressed="true"' in page
        listed = (await http.get(f"/{addresses.annotations_page('agent')}")).text
        assert "a &lt;b&gt;net&lt;/b&gt;" in listed
        table = await http.get(f"/{addresses.annotations_file('agent')}")
        assert table.headers["content-type"].startswith("text/csv")
        (row,) = csv.DictReader(io.StringIO(table.text))
        assert (row["query_id"], row["image_id"], row["note"]) == (query_id, image_id, "a <b>net</b>")
    (told,) = read_annotations(small.run("agent"))
    assert (told.image_id, told.mark) == (image_id, "wrong")


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site", "Origin": HERE}, {"Sec-Fetch-Site": "none"},
    ],
)  # fmt: skip
async def test_a_page_from_elsewhere_marks_nothing(small: Made, headers: dict[str, str]) -> None:
    *_, address = an_image(small)
    async with client(small.shelf()) as http:
        answer = await http.post(address, data={"mark": "wrong"}, headers=headers)
    assert answer.status_code == 403
    assert not (small.run("agent") / NAME).exists()


async def test_an_older_browser_says_only_where_it_comes_from(small: Made) -> None:
    *_, address = an_image(small)
    async with client(small.shelf()) as http:
        assert (await http.post(address, data={"mark": "right"}, headers={"Origin": HERE})).status_code == 303


async def test_forms_that_are_refused(small: Made) -> None:
    *_, address = an_image(small)
    async with client(small.shelf()) as http:
        assert (await http.post(address, data={"mark": "maybe"}, headers=OWN)).status_code == 409
        assert (await http.post(address, content=b"\xff" * 100, headers=OWN)).status_code == 409
        assert (await http.post(address, content="&".join("a=1" for _ in range(99)), headers=OWN)).status_code == 409
        assert (await http.post(address, content=b"x" * 200_000, headers=OWN)).status_code == 413
        assert (await http.post("/runs/agent/queries/none/images/x.html", headers=OWN)).status_code == 404
        assert (await http.post("/runs/agent/index.html", headers=OWN)).status_code == 409
        assert (await http.post("/runs/agent/index.html", data={"tags": "x", "note": ""})).status_code == 403
        assert (await http.post("/runs/agent/prompts.html", headers=OWN)).status_code == 405
    async with client(small.shelf(), live=False) as http:
        assert (await http.post(address, data={"mark": "right"}, headers=OWN)).status_code == 405
    assert not (small.run("agent") / NAME).exists()


async def test_a_page_that_fails_says_so(small: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(address: str) -> None:
        raise KeyError(address)

    site = Site(small.shelf(), live=True)
    monkeypatch.setattr(site, "page", broken)
    transport = httpx.ASGITransport(create_viewer(site), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as http:
        answer = await http.get("/runs/agent/index.html")
    assert answer.status_code == 500
    assert "unexpected KeyError" in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
