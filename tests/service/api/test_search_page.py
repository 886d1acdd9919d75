"""The search page: there on a live service and nowhere else, and what its scripts ask for is there."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from fieldscope.service.server.app import create_app
from fieldscope.service.viewer.page import NoPage
from fieldscope.service.viewer.pages.workbench import SCRIPTS
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.server import STATIC
from fieldscope.service.viewer.site import Site
from tests.agent.oracle import oracle_of
from tests.service.api.facts import FactsEncoder, painted, settings_of


class Markup(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def scripts() -> str:
    return "".join((STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS)


def test_the_page_is_there_only_where_there_is_a_service(tmp_path: Path) -> None:
    with pytest.raises(NoPage):
        Site(RunList(tmp_path), live=True).page("search.html")
    live = Site(RunList(tmp_path), live=True, try_it=True)
    text = live.render(live.page("search.html"))
    assert "search.html" not in Site(RunList(tmp_path), live=False).addresses()
    assert "<h1>Search</h1>" in text


def test_it_keeps_to_the_strict_policy_and_is_labelled(tmp_path: Path) -> None:
    live = Site(RunList(tmp_path), live=True, try_it=True)
    text = live.render(live.page("search.html"))
    tags = Markup(text).tags
    assert not [attrs for _, attrs in tags if any(name == "style" or name.startswith("on") for name in attrs)]
    assert all(attrs.get("src") for tag, attrs in tags if tag == "script")
    fields = [attrs["name"] for tag, attrs in tags if tag in ("input", "select", "textarea") and "name" in attrs]
    assert {"q", "collection", "strategy", "budget", "dialogue", "key", "mark", "part", "cut"} <= set(fields)
    for name in fields:
        assert re.search(rf"<label[^>]*>[^<]*<(input|select|textarea) name=\"{name}\"", text), name
    ids = [attrs["id"] for _, attrs in tags if attrs.get("id")]
    assert len(ids) == len(set(ids))


def test_the_script_writes_no_markup_from_data_and_asks_only_this_service() -> None:
    script = scripts()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", script)


async def test_the_service_has_all_that_the_page_asks_for(tmp_path: Path) -> None:
    images = painted(tmp_path / "pictures")
    app = create_app(settings_of(tmp_path), lmm=oracle_of(images), encoder=FactsEncoder())
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        page = await client.get("/search.html")
        assert page.status_code == 200
        assert "script-src 'self'" in page.headers["content-security-policy"]
        for tag, attrs in Markup(page.text).tags:
            address = attrs.get("src") or (attrs.get("href") if tag == "link" else None)
            if address:
                assert (await client.get(f"/{address}")).status_code == 200, address
        script = scripts()
        for address in ("v1/collections", "v1/strategies", "v1/searches"):
            assert f'"{address}"' in script
            assert (await client.get(f"/{address}")).status_code == 200
        wanted = {"query": "crab", "strategy": "agent", "top_n": 24, "explain": 3, "predicates": True, "stream": True}
        found = await client.post("/v1/search", json=wanted)
        kinds = set(re.findall(r"^event: (\w+)$", found.text, re.MULTILINE))
        handled = set(re.findall(r"^    (\w+)\(data\) \{", script, re.MULTILINE))
        assert "result" in kinds
        assert {"synthesized", "retrieved", "decomposed", "planned", "verified", "ranked"} <= kinds & handled
        trace_id = re.search(r'"trace_id":"(\w+)"', found.text)
        assert trace_id is not None
        to_page = await client.get(f"/v1/traces/{trace_id[1]}/page")
        shown = await client.get(to_page.headers["location"])
        assert shown.status_code == 200 and "crab" in shown.text
        pictures = re.findall(r'src="([^"]*thumbnails/[^"]*)"', shown.text)
        assert pictures
        thumbnail = await client.get(str(httpx.URL(f"http://localhost{to_page.headers['location']}").join(pictures[0])))
        assert (thumbnail.status_code, thumbnail.headers["content-type"]) == (200, "image/webp")
