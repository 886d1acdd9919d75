"""The search page in a real browser: an ecologist looks for pictures, marks them, and takes the accepted ones away."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from fieldscope.service.server.app import create_app
from tests.agent.oracle import facts_of, oracle_of
from tests.service.api.facts import COLLECTION, FactsEncoder, painted, settings_of
from tests.ui.conftest import Arrive, Visitor, running

pytestmark = pytest.mark.ui

SOON = 30_000  # milliseconds


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service in this process, over pictures with a table about them."""
    folder = tmp_path_factory.mktemp("search-page")
    images = painted(folder / "pictures")
    table = folder / "stations.csv"
    rows = (f"{image},station {'A' if at % 2 else 'B'}\n" for at, image in enumerate(images.ids()))
    table.write_text("file,station\n" + "".join(rows))
    settings = settings_of(folder, metadata={COLLECTION: table})
    app = create_app(settings, lmm=oracle_of(images), encoder=FactsEncoder())
    with running(app) as address:
        yield address


def tiles(page: Page) -> list[str]:
    """The pictures in the grid, in their order."""
    return page.locator("#grid .tile .name").all_inner_texts()


def searched(page: Page, root: str, query: str, strategy: str = "agent") -> str:
    """Search as people do, wait for the ranking, and return the search's id."""
    page.goto(f"{root}search.html?strategy={strategy}")
    page.get_by_label("What to look for").fill(query)
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#found")).to_be_visible(timeout=SOON)
    return str(re.search(r"search=([\w-]+)", page.url)[1])  # type: ignore[index]


def test_the_story_from_a_question_to_a_table_of_finds(visitor: Visitor, root: str) -> None:
    page = visitor.page
    page.goto(root)
    page.get_by_role("link", name="Search", exact=True).first.click()
    page.get_by_label("What to look for").fill("crab, snow, no net")
    page.get_by_label("Strategy").select_option("agent")
    expect(page.locator("[data-price]")).to_contain_text("It asks at most", timeout=SOON)
    # The questions are read before any picture is asked about, and one is changed.
    page.get_by_text("Questions that are asked of each image").click()
    page.get_by_role("button", name="Show the model’s questions").click()
    expect(page.locator("#questions-list li")).to_have_count(3, timeout=SOON)
    page.get_by_label("Weight of question 1").fill("2")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator('[data-stage="verify"] .strip img')).to_have_count(32, timeout=SOON)
    expect(page.locator("#found")).to_be_visible(timeout=SOON)
    best = facts_of(tiles(page)[0])
    assert {"crab", "snow"} <= best and "net" not in best
    expect(page.locator("#large")).to_contain_text("✓ holds")
    expect(page.locator("#large")).to_contain_text("station")

    # Marks by key go on to the next picture; several are marked at once; the others are ranked by them.
    page.locator("#grid").focus()
    for key in "aar":
        page.keyboard.press(key)
    expect(page.locator('#grid [data-mark="accepted"]')).to_have_count(2, timeout=SOON)
    page.get_by_label("Name", exact=True).fill(tiles(page)[3])
    page.get_by_role("button", name="Select all shown").click()
    page.get_by_role("button", name="Accept", exact=True).click()
    page.get_by_label("Name", exact=True).fill("")
    expect(page.locator('#grid [data-mark="accepted"]')).to_have_count(3, timeout=SOON)
    page.get_by_role("button", name="Re-rank by marks").click()
    expect(page.locator("#changes")).to_contain_text("3 accepted and 1 rejected", timeout=SOON)
    page.locator("#tools [name=mark]").select_option("accepted")
    assert len(tiles(page)) == 3
    visitor.shot("search-page", full=True)
    with page.expect_download() as taken:
        page.get_by_role("link", name="CSV of the accepted").click()
    found = list(csv.DictReader(io.StringIO(Path(taken.value.path()).read_text())))
    assert sorted(each["image"] for each in found) == sorted(tiles(page))
    assert {each["station"] for each in found} <= {"station A", "station B"}


def test_a_link_opens_the_search_and_asks_nothing(visitor: Visitor, arrive: Arrive, root: str) -> None:
    search_id = searched(visitor.page, root, "night", "yes-no")
    shown = tiles(visitor.page)
    posted: list[str] = []
    other = arrive().page
    other.on("request", lambda request: posted.append(request.url) if request.method == "POST" else None)
    other.goto(f"{root}search.html?search={search_id}")
    expect(other.locator("#found")).to_be_visible(timeout=SOON)
    assert tiles(other) == shown
    assert [url for url in posted if not url.endswith("/estimate")] == []
    # An address with a query fills in the form, and starts nothing.
    other.goto(f"{root}search.html?q=rain+%26+%3Cb%3Esnow%3C%2Fb%3E")
    expect(other.get_by_label("What to look for")).to_have_value("rain & <b>snow</b>")
    expect(other.locator("#kept-list")).to_contain_text("night", timeout=SOON)
    assert [url for url in posted if not url.endswith("/estimate")] == []
    listed = httpx.get(f"{root}v1/searches", timeout=30).json()["searches"]
    assert not [each for each in listed if each["query"].startswith("rain")]


def test_the_queue_may_be_blind_and_is_worked_by_keys(visitor: Visitor, root: str) -> None:
    page = visitor.page
    searched(page, root, "crab, snow", "predicates")
    page.get_by_text("Review queue, and who marks").click()
    page.get_by_label("Draw").fill("6")
    page.get_by_label("blind").check()
    page.locator("#grid").focus()
    page.keyboard.press("n")
    expect(page.locator("#grid .tile")).to_have_count(6, timeout=SOON)
    expect(page.locator("#grid")).not_to_contain_text("%")
    expect(page.locator("#large")).not_to_contain_text("P(match)")
    for key in "arsarr":
        page.keyboard.press(key)
    expect(page.locator("#grid .chip")).to_have_count(6, timeout=SOON)
    page.get_by_label("Draw").fill("0")
    page.get_by_role("button", name="Next to look at").click()
    expect(page.locator("#changes")).to_contain_text("Above the line", timeout=SOON)


def test_an_error_is_said_in_a_sentence(arrive: Arrive, root: str) -> None:
    visitor = arrive()
    visitor.forgiven = ("Failed to load resource",)
    page = visitor.page
    page.goto(f"{root}search.html")
    page.get_by_label("What to look for").fill("crab")

    def fail(route: Route) -> None:
        if route.request.method != "POST":
            return route.continue_()
        sentence = "8 calls are at work <b>now</b>"
        return route.fulfill(status=429, json={"error": {"code": "too_many_requests", "message": sentence}})

    page.route("**/v1/searches", fail)
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("8 calls are at work <b>now</b>")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_is_accessible_and_fits(arrive: Arrive, root: str, scheme: str, width: int) -> None:
    page = arrive(scheme, width).page
    searched(page, root, "crab, snow")
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
