"""*Try it* in a real browser, over a service whose model tells the truth about painted pictures."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect
from uvicorn import Config, Server

from fieldscope.service.server.app import create_app
from tests.agent.oracle import facts_of, oracle_of
from tests.service.api.facts import COLLECTION, FactsEncoder, painted, settings_of
from tests.ui.conftest import Arrive, Visitor

pytestmark = pytest.mark.ui


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service in this process."""
    folder = tmp_path_factory.mktemp("try-it")
    lmm = oracle_of(painted(folder / "pictures"))
    app = create_app(settings_of(folder), lmm=lmm, encoder=FactsEncoder())
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = Server(Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


def shown(page: Page) -> list[str]:
    return page.locator(".ranking .id").all_inner_texts()


def test_a_query_is_typed_watched_and_answered(visitor: Visitor, root: str) -> None:
    page = visitor.page
    page.goto(root)
    page.get_by_role("link", name="Try it").click()
    page.get_by_label("What to look for").fill("crab, snow, no net")
    page.get_by_label("Strategy").select_option("agent")
    expect(page.locator("[data-about]")).to_contain_text("It asks at most")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#found")).to_be_visible(timeout=30_000)
    visitor.shot("try-it", full=True)

    assert {"crab", "snow"} <= facts_of(shown(page)[0]) and "net" not in facts_of(shown(page)[0])
    expect(page.locator('[data-stage="synthesize"]')).to_contain_text("as it says.")
    questions = page.locator('[data-stage="decompose"] li')
    expect(questions).to_have_text([re.compile("crab"), re.compile("snow"), re.compile("net.*must be no")])
    expect(page.locator('[data-stage="verify"] .strip img')).to_have_count(32)
    expect(page.locator('[data-stage="rank"]')).to_contain_text("answers")
    expect(page.locator(".ranking .why").first).to_have_text(re.compile("^yes"))
    width = page.locator(".ranking img").first.evaluate("image => image.decode().then(() => image.naturalWidth)")
    assert width == 8

    page.get_by_role("link", name="Open the trace").click()
    expect(page).to_have_url(re.compile("/served/runs/.*/queries/"))
    expect(page.locator("h1")).to_contain_text("crab, snow, no net")


def test_the_address_brings_the_same_search_back(visitor: Visitor, root: str) -> None:
    page = visitor.page
    page.goto(f"{root}try.html?q=night&strategy=yes-no&budget=50&collection={COLLECTION}")
    expect(page.locator("#found")).to_be_visible(timeout=30_000)
    assert page.get_by_label("Strategy").input_value() == "yes-no"
    assert page.get_by_label("Questions").input_value() == "50"
    wanted = {"query": "night", "strategy": "yes-no", "top_n": 24, "budget": {"max_calls": 50}}
    said = httpx.post(f"{root}v1/search", json=wanted, timeout=30).json()
    assert shown(page) == [found["image"] for found in said["results"]]
    page.get_by_label("What to look for").fill("rain & <b>snow</b>")
    page.get_by_role("button", name="Search").click()
    expect(page).to_have_url(re.compile(re.escape("q=rain+%26+%3Cb%3Esnow%3C%2Fb%3E")))


def test_a_promised_precision_is_sent_and_what_it_keeps_is_shown(visitor: Visitor, root: str) -> None:
    page = visitor.page
    cutoff = {"kept": 1, "threshold": 0.875, "promise": "At least <b>0.9</b> of the kept images match.", "caveats": []}

    def promise(route: Route) -> None:
        assert (route.request.post_data_json["precision"], route.request.post_data_json["confidence"]) == (0.9, 0.8)
        reply = httpx.post(
            f"{root}v1/search", json={"query": "night", "strategy": "yes-no", "top_n": 2}, timeout=30
        ).json()
        reply["results"][0]["kept"], reply["results"][1]["kept"] = True, False
        event = f"event: result\ndata: {json.dumps({**reply, 'cutoff': cutoff})}\n\n"
        route.fulfill(status=200, content_type="text/event-stream", body=event)

    page.route("**/v1/search", promise)
    page.goto(f"{root}try.html?q=night&strategy=yes-no&precision=0.9&confidence=0.8&collection={COLLECTION}")
    expect(page.locator("[data-promise]")).to_have_text(
        "Kept: 1 image, those with P(match) of at least 0.875. At least <b>0.9</b> of the kept images match."
    )
    expect(page.locator(".ranking li").first).to_contain_text("kept")
    expect(page.locator(".ranking li").last).not_to_contain_text("kept")


def test_a_strategy_without_a_model_shows_its_stages_only(visitor: Visitor, root: str) -> None:
    page = visitor.page
    page.goto(f"{root}try.html?q=night&strategy=clip")
    expect(page.locator("#found")).to_be_visible(timeout=30_000)
    assert [each.get_attribute("data-stage") for each in page.locator("[data-stage]:visible").all()] == [
        "retrieve", "rank",
    ]  # fmt: skip
    expect(page.locator("[data-about]")).to_contain_text("It asks no model")


def test_an_error_is_said_in_a_sentence(arrive: Arrive, root: str) -> None:
    visitor = arrive()
    visitor.forgiven = ("Failed to load resource",)
    page = visitor.page
    page.goto(f"{root}try.html")
    page.get_by_label("What to look for").fill("crab")

    def fail(route: Route) -> None:
        sentence = "8 calls are at work <b>now</b>"
        route.fulfill(status=429, json={"error": {"code": "too_many_requests", "message": sentence}})

    page.route("**/v1/search", fail)
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("alert")).to_have_text("8 calls are at work <b>now</b>")


def test_a_key_is_asked_for_sent_in_a_header_and_kept_in_the_tab(arrive: Arrive, root: str) -> None:
    visitor = arrive()
    visitor.forgiven = ("Failed to load resource",)
    page = visitor.page
    refused: list[str] = []

    def guard(route: Route) -> None:
        if route.request.headers.get("x-api-key") == "secret":
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=401, json={"error": {"code": "no_key", "message": "this service needs an API key"}})

    page.route("**/v1/**", guard)
    page.goto(f"{root}try.html?q=crab&strategy=yes-no")
    page.get_by_label("This service needs an API key").fill("secret")
    assert refused
    refused.clear()
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#found")).to_be_visible(timeout=30_000)
    expect(page.locator(".ranking img").first).to_have_attribute("src", re.compile("^data:image/webp"))
    page.reload()
    expect(page.locator("#found")).to_be_visible(timeout=30_000)
    assert refused == []
    assert "secret" not in page.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_is_accessible_and_fits(arrive: Arrive, root: str, scheme: str, width: int) -> None:
    page = arrive(scheme, width).page
    page.goto(f"{root}try.html?q=crab%2C+snow&strategy=agent")
    expect(page.locator("#found")).to_be_visible(timeout=30_000)
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
