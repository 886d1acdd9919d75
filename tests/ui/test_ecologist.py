"""The story of an ecologist: a folder of 500 pictures and a table about them, `fieldscope workbench FOLDER`, and a CSV
of 20 accepted finds; at a desk, on a phone and by keyboard only.

The command is a process of its own with the bundled models. The pictures are FieldNotes' validation split, whose scenes
say what a person would see in each.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from fieldscope.fieldnotes.collection import read_split
from fieldscope.service.wiring.fieldnotes import pictures
from tests.ui.conftest import CACHE, Arrive, aside

pytestmark = [pytest.mark.ui, pytest.mark.timeout(1800)]

SOON = 300_000  # milliseconds; a busy machine asks 200 questions in minutes
QUERY, SPECIES = "a fox", "fox"
COLUMNS = ("station", "eventDate", "decimalLatitude", "decimalLongitude", "recordedBy", "battery level")
STATIONS = "ABCD"
WANTED = 20
CANDIDATES = 60


@dataclass(frozen=True)
class Survey:
    """The address of the workbench, the metadata of each picture by file name, and the pictures with a match."""

    root: str
    table: dict[str, dict[str, str]]
    matches: frozenset[str]


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survey]:
    """Photographs in a folder for each station, with a table, behind the real command."""
    folder = tmp_path_factory.mktemp("ecologist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDSCOPE_CACHE", str(CACHE))
        files = aside(lambda: pictures("validation"))
    scenes = read_split("validation").scenes
    table, matches = {}, set()
    for number, (image_id, scene) in enumerate(scenes.items()):
        station = STATIONS[number % len(STATIONS)]
        name = f"{station}/IMG_{number:04d}.png"
        path = folder / "photographs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files.path(image_id), path)
        day = f"2024-0{1 + number % 9}-1{number % 10}"
        values = (station, day, f"{46 + number / 1000:.3f}", "7.5", "Ana, =2+2", "9 %")
        table[name] = dict(zip(COLUMNS, values, strict=True))
        if any(group.species == SPECIES for group in scene.groups):
            matches.add(name)
    assert len(table) == 500
    metadata = folder / "deployments.csv"
    with metadata.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["file", *COLUMNS])
        writer.writeheader()
        writer.writerows({"file": name, **cells} for name, cells in table.items())
    command = [
        *(sys.executable, "-m", "fieldscope", "workbench", str(folder / "photographs")),
        *("--metadata", str(metadata), "--port", "0", "--data", str(folder / "data"), "--runs", str(folder / "runs")),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "FIELDSCOPE_CACHE": str(CACHE), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"(http://127\.0\.0\.1:\d+/)search\.html", line):
            # The log goes on, and a full pipe would stop the service.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield Survey(found[1], table, frozenset(matches))
            break
    else:
        pytest.fail("".join(said))
    process.terminate()
    assert process.wait(300) == 0


def require_accessible(page: Page) -> None:
    """axe-core finds nothing, and the page is no wider than the window."""
    found = Axe().run(page).response["violations"]
    assert [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def current(page: Page) -> str:
    """The picture that is shown in large."""
    return page.locator("#large h3.name").inner_text()


def accepted(page: Page) -> int:
    """How many pictures are marked as a match, as the page says."""
    return int(str(re.search(r"(\d+) accepted", page.locator("[data-shown]").inner_text())[1]))  # type: ignore[index]


def require_finds(text: str, survey: Survey, shown: set[str]) -> None:
    """The CSV has 20 finds with every column of the metadata as it was, and why each is one."""
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["image"] for row in rows} == shown
    assert len(rows) == WANTED
    for row in rows:
        cells = survey.table[row["image"]]
        assert {name: row[name].removeprefix("'") for name in COLUMNS} == cells
        assert row["mark"] == "accepted"
        assert row["why"]
        assert float(row["p_match"]) > 0
    assert any(row["reason"] for row in rows)


def downloaded(page: Page) -> str:
    """The CSV behind the link that has the focus."""
    with page.expect_download() as taken:
        page.keyboard.press("Enter")
    return Path(taken.value.path()).read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [1280, 390])
def test_from_a_question_to_twenty_finds(arrive: Arrive, survey: Survey, width: int) -> None:
    visitor = arrive(width=width)
    page = visitor.page
    page.goto(f"{survey.root}search.html")
    page.get_by_label("What to look for").fill(QUERY)
    page.get_by_label("Strategy").select_option("predicates")
    page.get_by_label("Images", exact=True).fill(str(CANDIDATES))
    page.get_by_text("Filter, reference image, dialogue").click()
    page.get_by_label("Filter by metadata").fill("station = A|B|C\neventDate >= 2024-02")
    # The price before anything starts.
    expect(page.locator("[data-price]")).to_contain_text("questions and", timeout=SOON)
    expect(page.locator("[data-price]")).to_contain_text(f"for {CANDIDATES} images")
    require_accessible(page)
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#found")).to_be_visible(timeout=SOON)
    require_accessible(page)

    # A person looks at one picture after the other, and marks many at once where they are sure.
    alike = page.get_by_label("Near duplicates and bursts one by one")
    if alike.is_visible():
        alike.check()
    tiles = page.locator("#grid .tile .name").all_inner_texts()
    assert len(tiles) > WANTED
    assert {survey.table[name]["station"] for name in tiles} <= {"A", "B", "C"}
    assert min(survey.table[name]["eventDate"] for name in tiles) >= "2024-02"
    for name in tiles:
        if accepted(page) == WANTED - 2:
            break
        page.locator("#grid .tile").filter(has_text=name).click()
        expect(page.locator("#large h3.name")).to_have_text(name)
        kind = "Accept" if name in survey.matches else "Reject"
        page.get_by_role("button", name=kind, exact=True).click()
        mark = "accepted" if name in survey.matches else "rejected"
        expect(page.locator("#grid .tile").filter(has_text=name)).to_have_attribute("data-mark", mark)
    page.get_by_role("button", name="Re-rank by marks").click()
    expect(page.locator("#changes")).to_contain_text(f"{WANTED - 2} accepted", timeout=SOON)
    page.locator("#tools [name=mark]").select_option("none")
    left = [name for name in page.locator("#grid .tile .name").all_inner_texts() if name in survey.matches][:2]
    for name in left:
        page.locator("#grid .tile").filter(has_text=name).click(modifiers=["Control"])
    page.get_by_role("button", name="Accept", exact=True).click()
    page.locator("#tools [name=mark]").select_option("accepted")
    expect(page.locator("#grid .tile")).to_have_count(WANTED)
    visitor.shot(f"ecologist-{width}", full=True)
    require_accessible(page)
    finds = page.get_by_role("link", name="CSV of the accepted")
    with page.expect_download() as taken:
        finds.click()
    shown = set(page.locator("#grid .tile .name").all_inner_texts())
    require_finds(Path(taken.value.path()).read_text(encoding="utf-8"), survey, shown)


def test_by_keyboard_only(arrive: Arrive, survey: Survey) -> None:
    page = arrive().page
    page.goto(f"{survey.root}search.html")
    expect(page.get_by_label("Strategy").locator("option")).not_to_have_count(0)
    keys = page.keyboard
    keys.press("/")
    keys.type(QUERY)
    tab_to(page, "[name=strategy]")
    keys.type("predicates")
    expect(page.get_by_label("Strategy")).to_have_value("predicates")
    tab_to(page, "[name=top_k]")
    keys.type(str(CANDIDATES))
    expect(page.locator("[data-price]")).to_contain_text("questions and", timeout=SOON)
    keys.press("Enter")
    expect(page.locator("#found")).to_be_visible(timeout=SOON)
    tab_to(page, "#grid")
    seen = set()
    while accepted(page) < WANTED:
        name = current(page)
        assert name not in seen  # a mark goes on to the next picture
        seen.add(name)
        before = page.locator("[data-shown]").inner_text()
        keys.press("a" if name in survey.matches else "r")
        expect(page.locator("[data-shown]")).not_to_have_text(before)
    keys.press("m")
    expect(page.locator("#changes")).to_contain_text(f"{WANTED} accepted", timeout=SOON)
    tab_to(page, "[data-finds='finds.csv']", back=True)
    names = page.locator("#grid [data-mark=accepted] .name").all_inner_texts()
    require_finds(downloaded(page), survey, set(names))


def tab_to(page: Page, selector: str, back: bool = False) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(60):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"{selector} is not reached by tabbing")
