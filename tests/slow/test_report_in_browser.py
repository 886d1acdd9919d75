"""The report of `fieldscope compare` in a real browser, from a file, with the network off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from fieldscope.eval.measures.run_comparison import compare_runs
from fieldscope.eval.runs.scored import read_scored
from fieldscope.service.viewer.comparison.html import render_page
from tests.eval.fabricated import fabricate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
)  # fmt: skip
QUERIES = [f"q{n:02d}" for n in range(40)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("no chromium on this machine: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    groups = {query: {"supercategory": ("Behavior", "Species")[n % 2]} for n, query in enumerate(QUERIES)}
    runs = [
        fabricate(folder / name, {q: gain(n) for n, q in enumerate(QUERIES)}, groups=groups, calls=calls)
        for name, calls, gain in (
            ("clip", 0, lambda n: 0.5),
            ("yes-no", 10, lambda n: 0.3 + n / 80),
            ("agent", 300, lambda n: 0.4 + n / 80),
        )
    ]
    page = folder / "report.html"
    page.write_text(render_page(compare_runs([read_scored(run) for run in runs])), encoding="utf-8")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_offline_with_its_figures_and_tables(browser: Browser, report: Path, scheme: str) -> None:
    told: list[str] = []
    asked: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        told.append(f"{message.type}: {message.text}")

    def requested(request: Request) -> None:
        asked.append(request.url)

    context = browser.new_context(offline=True, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.on("console", heard)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", requested)
    page.goto(report.as_uri())
    assert told == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    _look(page)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")) / 3
    assert (brightness > 200) == (scheme == "light")
    assert told == []
    context.close()


def _look(page: Page) -> None:
    assert "birds" in page.title()
    figures = page.locator("figure svg")
    assert figures.count() == 1 + 3  # cost and quality, and the queries of each pair
    for place in range(figures.count()):
        box = figures.nth(place).bounding_box()
        assert box is not None
        assert box["width"] > 500
        assert box["height"] > 150
    assert page.locator("#runs circle").count() == 3
    bars = page.locator("#queries svg rect.fill-better, #queries svg rect.fill-worse")
    assert bars.count() > 100
    assert page.locator("#runs tbody tr").count() == 2 * 3  # quality, and cost
    assert page.locator("#pairs tbody tr").count() == 3 * 3
    assert page.locator("#pairs .whisker").first.is_visible()
    groups = page.locator("details.pair").first.get_by_role("rowheader", name="Behavior", exact=True)
    assert groups.first.is_visible()
    # A bar leads to its query, also where the list is folded.
    page.locator("#queries svg a").first.click()
    row = page.locator("tr:target")
    assert row.is_visible()
    assert "fieldscope trace" in row.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
