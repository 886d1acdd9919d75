"""The story of a researcher: from two prompts to a difference with its interval, and to the query that shows why, in
the browser of `fieldscope serve` with the bundled LMM."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from click.testing import CliRunner
from playwright.sync_api import expect

from fieldscope.service.cli.main import cli
from fieldscope.service.server.app import create_app
from fieldscope.service.server.settings import ServerSettings
from fieldscope.service.viewer.runs.run_list import RunList
from tests.ui.conftest import CACHE, Arrive, Visitor, aside, running
from tests.ui.truths import hurt_most, percent

pytestmark = [pytest.mark.ui, pytest.mark.timeout(1800)]

SOON = 600_000  # milliseconds; a busy machine asks 400 questions in minutes
QUERIES = 4
BEFORE = 'does this image match the description: "{{ query }}"? answer yes or no.'
AFTER = "query: {{ query }}. is it night? answer yes or no."
"""It asks the wrong thing last."""

PRICES = "input_per_million: 2\noutput_per_million: 8\ncurrency: EUR\n"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a service, and its runs folder, in which there is a run of a strategy with one prompt."""
    folder = tmp_path_factory.mktemp("researcher")
    (folder / "prices.yaml").write_text(PRICES)
    runs = folder / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDSCOPE_CACHE", str(CACHE))
        wanted = ("eval", "fieldnotes-rerank", "--split", "validation", "--strategy", "yes-no", "--limit", str(QUERIES))
        made = aside(lambda: CliRunner().invoke(cli, [*wanted, "--out", str(runs)]))
        assert made.exit_code == 0, made.output
        settings = ServerSettings(
            data=folder / "data",
            runs=runs,
            prices=folder / "prices.yaml",
            cache_file=CACHE / "responses.sqlite",
            collections={"pictures": CACHE / "fieldnotes" / "validation"},
            encoder="none",
        )
        app = create_app(settings)
        with running(app) as address:
            yield address, runs


def test_from_two_prompts_to_the_query_that_shows_why(visitor: Visitor, desk: tuple[str, Path]) -> None:
    root, folder = desk
    page = visitor.page
    page.goto(root)
    page.get_by_role("link", name="yes-no", exact=True).click()
    page.get_by_role("link", name="Prompts", exact=True).click()
    page.get_by_role("link", name="Edit and compare").click()

    # One prompt beside another, and what it costs to run the other one.
    template = page.get_by_label("Template of match_yes_no in B")
    expect(template).to_have_value(BEFORE)
    run = page.get_by_role("button", name="Run and compare")
    expect(run).to_be_disabled()
    template.fill(AFTER)
    expect(page.locator("[data-price]")).to_contain_text(f"B asks about {100 * QUERIES} questions", timeout=SOON)
    expect(page.locator("[data-price]")).to_contain_text("EUR")
    page.get_by_label("Name of B").fill("asks-last")
    expect(run).to_be_enabled(timeout=SOON)
    assert Axe().run(page).response["violations"] == []
    visitor.shot("researcher-1-prompts", full=True)
    run.click()

    # The difference with its interval.
    page.wait_for_url("**/compare/**/index.html", timeout=SOON)
    by_name = {each.name.rpartition("/")[2]: each for each in RunList(folder).runs()}
    before, after = by_name["yes-no"], by_name["asks-last"]
    assert len(after.digests) == QUERIES
    verdict = page.locator(".versus .verdict")
    means = [sum(d.scores["AP@50"] for d in each.digests.values()) / QUERIES for each in (before, after)]
    expect(verdict).to_contain_text(f"from {percent(means[0])} to {percent(means[1])}")
    expect(verdict).to_contain_text(re.compile(r"95 % interval [−+]\d+\.\d to [−+]\d+\.\d, p ="))
    assert Axe().run(page).response["violations"] == []
    visitor.shot("researcher-2-difference", full=True)

    # The query that lost most, side by side, with what either prompt was answered.
    worst = hurt_most(before, after)
    page.locator(".both-ways").get_by_role("link", name=after.digests[worst].text).first.click()
    visitor.settled()
    expect(page.get_by_role("heading", level=1)).to_contain_text(after.digests[worst].text)
    assert page.locator(".ranking").count() == 2
    expect(page.locator(".furthest", has=page.get_by_role("heading", name="Lost the most ranks"))).to_be_visible()
    visitor.shot("researcher-3-query", full=True)


def test_the_page_fits_a_phone(arrive: Arrive, desk: tuple[str, Path]) -> None:
    page = arrive(width=390).page
    page.goto(f"{desk[0]}compare/yes-no/prompts.html")
    expect(page.get_by_label("Template of match_yes_no in A")).to_be_visible()
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
