"""The keyboard: next and previous, up, truth, matrix, compare, help; and everything is reached without a mouse."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from fieldscope.service.viewer import addresses
from tests.ui.conftest import QUERIES, Place, Visitor

pytestmark = [pytest.mark.ui, pytest.mark.timeout(300)]


def pressed(visitor: Visitor, key: str) -> str:
    """Press a key that leads to another page; its address below the site's root."""
    before = visitor.page.url
    visitor.page.keyboard.press(key)
    visitor.page.wait_for_url(lambda url: url != before)
    visitor.settled()
    return visitor.page.url.partition("?")[0]


def test_from_query_to_query(visitor: Visitor, place: Place) -> None:
    first, second = (place.url(addresses.query_page("agent", query)) for query in list(place.run("agent").digests)[:2])
    visitor.page.goto(first)
    assert pressed(visitor, "j") == second
    assert pressed(visitor, "k") == first
    assert pressed(visitor, "ArrowRight") == second
    assert pressed(visitor, "u") == place.url(addresses.run_page("agent"))
    assert "/compare/" in pressed(visitor, "c")


def test_from_image_to_image(visitor: Visitor, place: Place) -> None:
    query = QUERIES[0]
    ranking = place.run("agent").result(query).ranking
    pages = [place.url(addresses.image_page("agent", query, ranked.image_id)) for ranked in ranking[:3]]
    visitor.page.goto(pages[0])
    visitor.page.keyboard.press("k")  # there is none before the first
    assert pressed(visitor, "j") == pages[1]
    assert pressed(visitor, "j") == pages[2]
    assert pressed(visitor, "ArrowLeft") == pages[1]
    assert pressed(visitor, "u") == place.url(addresses.query_page("agent", query))


def test_truth_and_matrix(visitor: Visitor, place: Place) -> None:
    page = visitor.goes(place, addresses.query_page("agent", QUERIES[0]))
    page.keyboard.press("t")
    assert page.locator(".truth").locator("visible=true").count() == 0
    assert "truth=hide" in page.url
    page.keyboard.press("m")
    expect(page.locator(".matrix")).to_be_visible()
    assert "view=matrix" in page.url
    assert "truth=hide" in pressed_state(visitor, "j")
    page.keyboard.press("t")
    assert "truth" not in page.url


def pressed_state(visitor: Visitor, key: str) -> str:
    pressed(visitor, key)
    return visitor.page.url.partition("?")[2]


@pytest.mark.parametrize(
    "address", [addresses.INDEX, addresses.run_page("agent"), addresses.query_page("agent", QUERIES[0])]
)
def test_help_names_the_keys(visitor: Visitor, place: Place, address: str) -> None:
    page = visitor.goes(place, address)
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    expect(dialog).to_contain_text("this help")
    if "queries" in address:
        for words in ("next", "up: the page above", "human judgments", "the matrix"):
            expect(dialog).to_contain_text(words)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_keys_are_letters_where_somebody_writes(visitor: Visitor, live: Place) -> None:
    page = visitor.goes(live, addresses.run_page("agent"))
    page.keyboard.press("/")
    page.keyboard.type("jut")
    assert page.get_by_label("Text").input_value() == "jut"
    assert page.url.startswith(live.url(addresses.run_page("agent")))
    query = next(iter(live.run("agent").digests))
    image_id = live.run("agent").result(query).ranking[0].image_id
    page = visitor.goes(live, addresses.image_page("agent", query, image_id))
    note = page.locator("#annotate input[name=note]").first
    note.click()
    page.keyboard.type("just muck")
    page.keyboard.press("Enter")  # a note alone marks nothing
    assert note.input_value() == "just muck"
    assert page.locator("#annotate [aria-pressed=true]").count() == 0


def test_everything_is_reached_by_tabbing(visitor: Visitor, place: Place) -> None:
    page = visitor.goes(place, addresses.INDEX)
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
        )
        focus = page.evaluate(
            "(() => { const style = getComputedStyle(document.activeElement); "
            "return document.activeElement === document.body || style.outlineStyle !== 'none' })()"
        )
        assert focus, seen[-1]
    assert {"Compare agent", "agent", "clip", "predicates"} <= {text.strip() for text in seen}
