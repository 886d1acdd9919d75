"""A run that is full of HTML, scripts, right-to-left marks and 10,000 characters is shown escaped and readable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.site import Site
from tests.service.viewer.shelves import LONG, SCRIPT
from tests.ui.conftest import Arrive, Place, Visitor, exported, served

pytestmark = [pytest.mark.ui, pytest.mark.timeout(300)]


@pytest.fixture(params=["live", "export"])
def evil(request: pytest.FixtureRequest, hostile: RunList, tmp_path: Path) -> Iterator[Place]:
    if request.param == "export":
        yield exported(hostile, tmp_path / "site")
        return
    with served(hostile) as place:
        yield place


def test_nothing_of_it_runs(visitor: Visitor, evil: Place) -> None:
    page = visitor.page
    opened: list[str] = []
    page.on("dialog", lambda dialog: (opened.append(dialog.message), dialog.dismiss()))
    for address in Site(evil.shelf, live=False).addresses():
        visitor.goes(evil, address)
        assert opened == []
        assert page.locator("main img[src=x], main script, main b:text-is('bold')").count() == 0
        assert page.locator("[onerror]").count() == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_readable(arrive: Arrive, evil: Place, width: int) -> None:
    visitor = arrive(width=width)
    run = evil.shelf.runs()[0]
    query = next(iter(run.digests))
    image_id = run.result(query).ranking[0].image_id
    for name, address in (
        ("runs", addresses.INDEX),
        ("run", addresses.run_page(run.key)),
        ("query", addresses.query_page(run.key, query)),
        ("image", addresses.image_page(run.key, query, image_id)),
        ("prompts", addresses.prompts_page(run.key)),
    ):
        page = visitor.goes(evil, address)
        assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"), name
        visitor.shot(f"hostile-{evil.kind}-{name}-{width}")
        if name in ("query", "image"):
            shown = page.locator("main")
            expect(shown).to_contain_text(SCRIPT)
            assert LONG in (shown.text_content() or "")
        # What reads from right to left does not turn what stands beside it.
        assert page.evaluate("getComputedStyle(document.body).direction") == "ltr"


def test_a_picture_with_a_hostile_name_is_shown(visitor: Visitor, evil: Place) -> None:
    run = evil.shelf.runs()[0]
    query = next(iter(run.digests))
    for ranked in run.result(query).ranking:
        page = visitor.goes(evil, addresses.image_page(run.key, query, ranked.image_id))
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.querySelector('main img').naturalWidth") == 40
