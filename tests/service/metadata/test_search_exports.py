"""What was found, in other programs' formats: CSV, links, Darwin Core, COCO Camera Traps, and a light page."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from fieldscope.agent.types import RankedCandidate, RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.service.exports.coco import coco_camera_traps
from fieldscope.service.exports.darwin_core import TERMS, darwin_core
from fieldscope.service.exports.finds import finds_of
from fieldscope.service.exports.page import PICTURE_BYTES, write_page
from fieldscope.service.metadata.records import Records
from fieldscope.service.workflows.ranking import Ranking
from tests.service.conftest import FOX, Run, World

QUERY = "<b>a fox</b> & =cub"


def ranking(folder: Path, images: int = 4, noise: bool = False) -> Ranking:
    """So many pictures of one's own, ranked in the order of their names."""
    folder.mkdir(parents=True)
    for number in range(1, images + 1):
        size = (480, 640, 3) if noise else (30, 40, 3)
        pixels = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)
        PILImage.fromarray(pixels).save(folder / f"{number:03d}.jpg", quality=60)
    collection = FolderCollection(folder)
    ranked = tuple(
        RankedCandidate(image_id=name, rank=rank, score=1 / rank, prior=1 / rank, prior_rank=rank, p_match=1 / rank)
        for rank, name in enumerate(collection.ids(), start=1)
    )
    cells = {
        name: {
            "file": name,
            "station": "=A1",
            "eventDate": "2023-05-14T06:30:00",
            "decimalLatitude": "46.5",
            "decimalLongitude": "7.5",
            "scientificName": "Vulpes vulpes",
            "individualCount": "2",
        }
        for name in collection.ids()
    }
    columns = tuple(next(iter(cells.values())))
    records = Records(columns, cells, groups=(("001.jpg", "002.jpg"),))
    result = RerankResult(query_id="q", query_text=QUERY, strategy="agent", ranking=ranked)
    return Ranking(result, collection, records=records)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_accepted_are_exported_and_everything_where_nothing_is_marked(tmp_path: Path) -> None:
    found = ranking(tmp_path / "photos")
    everything = rows_of(finds_of(found).csv())
    assert [row["image"] for row in everything] == ["001.jpg", "002.jpg", "003.jpg", "004.jpg"]
    marks = {"003.jpg": "accepted", "001.jpg": "rejected", "002.jpg": "unsure"}
    (row,) = rows_of(finds_of(found, marks).csv())
    assert (row["image"], row["mark"], row["station"], row["individualCount"]) == ("003.jpg", "accepted", "'=A1", "2")
    assert row["why"] and row["query"] == QUERY


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ({"001.jpg": "liked"}, "is no mark"),
        ({"other.jpg": "accepted"}, "not in the ranking"),
        ({"001.jpg": "rejected"}, "none of 1 marked images is accepted"),
    ],
)
def test_marks_that_cannot_be_exported_are_refused(tmp_path: Path, marks: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        finds_of(ranking(tmp_path / "photos"), marks)


def test_darwin_core_has_its_terms_and_no_invented_taxon(tmp_path: Path) -> None:
    found = ranking(tmp_path / "photos")
    (row,) = rows_of(darwin_core(finds_of(found, {"001.jpg": "accepted"})))
    assert {*TERMS, "individualCount"} == row.keys()
    assert (row["eventDate"], row["decimalLatitude"], row["scientificName"]) == (
        "2023-05-14T06:30:00",
        "46.5",
        "Vulpes vulpes",
    )
    assert row["identificationVerificationStatus"] == "verified by human"
    assert json.loads(row["dynamicProperties"])["query"] == QUERY
    bare = Ranking(found.result, found.images)
    rows = rows_of(darwin_core(finds_of(bare)))
    assert all(row["scientificName"] == row["eventDate"] == row["decimalLatitude"] == "" for row in rows)
    assert len({row["occurrenceID"] for row in rows}) == 4


def test_coco_camera_traps_has_sizes_times_and_bursts(tmp_path: Path) -> None:
    told = json.loads(json.dumps(coco_camera_traps(finds_of(ranking(tmp_path / "photos")))))
    first, second, third, _ = told["images"]
    assert (first["width"], first["height"], first["location"]) == (40, 30, "=A1")
    assert datetime.strptime(first["datetime"], "%Y-%m-%d %H:%M:%S") == datetime(2023, 5, 14, 6, 30)
    assert first["seq_id"] == second["seq_id"] and (first["frame_num"], second["frame_num"]) == (0, 1)
    assert "seq_id" not in third
    images, categories = {each["id"] for each in told["images"]}, {each["id"] for each in told["categories"]}
    assert all(each["image_id"] in images and each["category_id"] in categories for each in told["annotations"])
    assert len({each["id"] for each in told["annotations"]}) == 4


class Page(HTMLParser):
    """What a page shows, and what it requests."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.tags: set[str] = set()
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.pictures += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_a_page_of_100_pictures_is_under_2_mb(tmp_path: Path) -> None:
    """Of noise, which compresses worse than any photograph."""
    found = ranking(tmp_path / "photos", 100, noise=True)
    path = write_page(finds_of(found, dict.fromkeys(found.records.images, "accepted")), tmp_path / "page")
    files = [each for each in (tmp_path / "page").rglob("*") if each.is_file()]
    assert len(files) == 101
    assert sum(each.stat().st_size for each in files) < 2_000_000
    assert max(each.stat().st_size for each in files if each != path) <= PICTURE_BYTES
    page = Page()
    page.feed(path.read_text("utf-8"))
    assert len(page.pictures) == 100 and all((path.parent / address).is_file() for address in page.pictures)
    assert QUERY in page.words and "script" not in page.tags
    assert "Vulpes vulpes" in page.words
    with PILImage.open(path.parent / page.pictures[0]) as shown:
        assert max(shown.size) >= 64


def test_a_page_overwrites_nothing_of_others(tmp_path: Path) -> None:
    found = ranking(tmp_path / "photos")
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="has other files"):
        write_page(finds_of(found), tmp_path / "page")
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["thesis.txt"]


def test_the_command_line_writes_all_of_them(run: Run, world: World, tmp_path: Path) -> None:
    assert run("index", world.pictures, "-o", tmp_path / "index").exit_code == 0
    out = tmp_path / "out"
    written = run(
        *("search", "--index", tmp_path / "index", "--query", FOX, "-k", "3", "--csv", out / "finds.csv"),
        *("--darwin-core", out / "dwc.csv", "--coco", out / "coco.json", "--link-to", out / "links"),
        *("--page", out / "page"),
    )
    assert written.exit_code == 0, written.stderr
    names = [row["image"] for row in rows_of((out / "finds.csv").read_text("utf-8"))]
    assert len(names) == 3
    assert [row["associatedMedia"] for row in rows_of((out / "dwc.csv").read_text("utf-8"))] == names
    assert [each["file_name"] for each in json.loads((out / "coco.json").read_bytes())["images"]] == names
    links = sorted((out / "links").iterdir())
    assert [link.name for link in links] == sorted(names) and all(link.is_symlink() for link in links)
    assert (out / "page" / "index.html").is_file()


def test_finds_of_a_kept_search_are_the_accepted(run: Run, world: World, tmp_path: Path) -> None:
    assert run("index", world.pictures, "-o", tmp_path / "index").exit_code == 0
    kept = tmp_path / "search"
    told = json.loads(run("search", "--index", tmp_path / "index", "--query", FOX, "--json", "--out", kept).stdout)
    best, other = (entry["image"] for entry in told["ranking"][:2])
    assert len(rows_of(run("finds", kept).stdout)) == len(told["ranking"])
    assert run("marks", kept, "--accept", best, "--reject", other).exit_code == 0
    written = run("finds", kept, "--csv", tmp_path / "finds.csv", "--copy-to", tmp_path / "copies")
    assert written.exit_code == 0, written.stderr
    assert [row["image"] for row in rows_of((tmp_path / "finds.csv").read_text("utf-8"))] == [best]
    assert [path.name for path in (tmp_path / "copies").iterdir()] == [best]
