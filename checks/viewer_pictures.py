"""The README's screenshots of the viewer, of the runs below a folder.

Of the runs of one task, B (the one named, else the one with the most calls) is compared with the run with the fewest
calls. Then the query that B hurt most is opened, and in it the image that lost the most ranks. Needs Chromium and the
packages of `make test-ui`. The screenshots go to `docs/`, with few colours, so that a clone stays small.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from fieldscope.service.viewer.runs.run_list import RunList

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 1400
LARGEST = 350_000  # bytes
COLOURS = (256, 128, 64)  # as many as fit


@dataclass(frozen=True)
class Screenshot:
    """A page from its top down to the end of an element."""

    name: str
    address: str
    until: str


def take(runs: Path, b: str | None) -> None:
    """Take the three screenshots."""
    from playwright.sync_api import sync_playwright

    from fieldscope.service.viewer.runs.run_list import RunList
    from fieldscope.service.wiring.settings import Settings
    from tests.ui.conftest import FLAGS, served

    shelf = RunList(runs, store=Settings().store_path)
    screenshots = story(shelf, b)
    with served(shelf) as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        for screenshot in screenshots:
            page.goto(place.url(screenshot.address))
            box = page.locator(screenshot.until).first.bounding_box()
            assert box is not None, screenshot.until
            page.set_viewport_size({"width": WIDTH, "height": round(box["y"] + box["height"]) + 24})
            page.wait_for_load_state("networkidle")
            path = ROOT / "docs" / f"{screenshot.name}.png"
            path.write_bytes(small(page.screenshot()))
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB, {screenshot.address}")
        browser.close()


def story(shelf: RunList, b: str | None) -> list[Screenshot]:
    """The pages that the screenshots show."""
    from fieldscope.service.viewer import addresses
    from fieldscope.service.viewer.comparison.comparable import comparable

    together = max(comparable(shelf.runs()), key=len)
    first, second = together[0], next((run for run in together if run.key == b), together[-1])
    pair = [first.key, second.key]
    common = [query for query in first.digests if query in second.digests]
    losses = {query: second.digests[query].scores["AP@50"] - first.digests[query].scores["AP@50"] for query in common}
    query = min(losses, key=lambda query: losses[query])
    before = {ranked.image_id: ranked.rank for ranked in first.result(query).ranking}
    fell = max(second.result(query).ranking, key=lambda ranked: ranked.rank - before[ranked.image_id])
    return [
        Screenshot("viewer-runs", addresses.compare_page(pair), "figure.card"),
        Screenshot("viewer-query", addresses.query_page(second.key, query), ".tile:nth-child(16)"),
        Screenshot("viewer-image", addresses.image_page(second.key, query, fell.image_id), ".waterfall"),
    ]


def small(png: bytes) -> bytes:
    """The image in as many colours as fit."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in COLOURS:
        stream = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
        if stream.tell() < LARGEST:
            break
    return stream.getvalue()


def main() -> None:
    """Take the screenshots of the runs of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="the output folder of `fieldscope eval`")
    parser.add_argument("--b", help="the key of run B, as in its address")
    options = parser.parse_args()
    take(options.runs, options.b)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
