"""Metadata on the command line and in Python: joined, shown, filtered by, kept, and never in a prompt."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image as PILImage

import fieldscope
from tests.service.conftest import CRABS, FOX, Run, World

ONE_QUESTION = ("--strategy", "yes-no-fused")


@pytest.fixture
def field(world: World, tmp_path: Path) -> Path:
    """FieldNotes' pictures with a table: station, count and date of six of them, and a row about no picture."""
    folder = tmp_path / "field"
    shutil.copytree(world.pictures, folder, ignore=shutil.ignore_patterns("*.sha256"))
    rows = ["file,station,count,eventDate"]
    rows += [f"{number:06d}.png,{'AB'[number % 2]},{number},2023-0{number}-14" for number in range(1, 7)]
    (tmp_path / "table.csv").write_text("\n".join([*rows, "gone.png,C,1,2020"]), encoding="utf-8")
    return folder


@pytest.fixture
def indexed(field: Path, run: Run, tmp_path: Path) -> Path:
    result = run("index", field, "-o", tmp_path / "index", "--metadata", tmp_path / "table.csv")
    assert result.exit_code == 0, result.stderr
    assert "6 of 12 images have a row" in result.stderr and "'gone.png'" in result.stderr
    assert "Columns of metadata: file, station, count, eventDate." in result.stdout
    return tmp_path / "index"


def search(run: Run, index: Path, *line: object) -> dict[str, object]:
    result = run("search", "--index", index, "--query", CRABS, "--json", *line)
    assert result.exit_code == 0, result.stderr
    told: dict[str, object] = json.loads(result.stdout)
    return told


def names(told: dict[str, object]) -> set[str]:
    return {entry["image"] for entry in told["ranking"]}  # type: ignore[attr-defined]


def test_a_filter_chooses_before_the_search(run: Run, indexed: Path) -> None:
    assert names(search(run, indexed, "--filter", "station = A")) == {"000002.png", "000004.png", "000006.png"}
    told = search(run, indexed, "--filter", "station = A", "--filter", "date >= 2023-03", "-k", "5")
    assert names(told) == {"000004.png", "000006.png"}
    assert len(names(search(run, indexed))) == 12


def test_a_filter_leaves_priors_as_they_are(run: Run, indexed: Path) -> None:
    line = ("--rerank", *ONE_QUESTION, "-k", "12")
    everything = {entry["image"]: entry for entry in search(run, indexed, *line)["ranking"]}  # type: ignore[attr-defined]
    for entry in search(run, indexed, *line, "--filter", "station = A")["ranking"]:  # type: ignore[attr-defined]
        assert entry["prior"] == pytest.approx(everything[entry["image"]]["prior"], abs=1e-6)
        assert entry["metadata"]["station"] == "A"


def test_a_reference_may_be_outside_of_the_filter(run: Run, indexed: Path) -> None:
    told = search(run, indexed, "--filter", "station = A", "--reference", "000001.png")
    assert names(told) == {"000002.png", "000004.png", "000006.png"}


@pytest.mark.parametrize(
    ("condition", "said"),
    [("statoin = A", "did you mean 'station'"), ("station", "no condition"), ("station = Z", "none of 12 images")],
)
def test_a_filter_that_cannot_be_used_is_one_sentence(run: Run, indexed: Path, condition: str, said: str) -> None:
    result = run("search", "--index", indexed, "--query", CRABS, "--filter", condition)
    assert result.exit_code == 1 and said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_csv_has_every_column_and_no_formula(run: Run, indexed: Path, tmp_path: Path) -> None:
    table = (tmp_path / "table.csv").read_text(encoding="utf-8").replace("eventDate", "reason").replace(",B,", ",=1+1,")
    (tmp_path / "table.csv").write_text(table, encoding="utf-8")
    search(run, indexed, "--metadata", tmp_path / "table.csv", "--csv", tmp_path / "out.csv")
    rows = {row["image"]: row for row in csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text("utf-8")))}
    assert rows["000001.png"]["station"] == "'=1+1"
    assert rows["000002.png"]["metadata reason"] == "2023-02-14"
    assert rows["000012.png"]["station"] == ""


def test_indexing_again_reads_the_same_table_again(run: Run, field: Path, indexed: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(table.read_text("utf-8").replace("000001.png,B", "000001.png,NEW"), encoding="utf-8")
    assert run("index", field, "-o", indexed).exit_code == 0
    assert names(search(run, indexed, "--filter", "station = NEW")) == {"000001.png"}
    table.unlink()
    assert run("index", field, "-o", indexed).exit_code == 0
    assert names(search(run, indexed, "--filter", "station = NEW")) == {"000001.png"}


def test_time_and_place_come_from_exif(run: Run, tmp_path: Path, world: World) -> None:
    folder = tmp_path / "cameras"
    folder.mkdir()
    exif = PILImage.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2023:05:14 06:30:00"
    exif.get_ifd(0x8825).update({1: "S", 2: (17.0, 30.0, 0.0), 3: "E", 4: (179.0, 0.0, 36.0)})
    PILImage.new("RGB", (40, 30), "red").save(folder / "taken.jpg", exif=exif)
    PILImage.new("RGB", (40, 30), "blue").save(folder / "plain.jpg")
    chosen = ("rerank", "--query", FOX, "--images", folder, "--strategy", "clip", "--json")
    for condition in ("date = 2023-05-14T06:30", "box = 179,-18,-179,-17", "exif_latitude < -17"):
        told = json.loads(run(*chosen, "--filter", condition).stdout)
        assert [entry["image"] for entry in told["ranking"]] == ["taken.jpg"]
        assert told["ranking"][0]["metadata"] == {
            "exif_time": "2023-05-14T06:30:00",
            "exif_latitude": "-17.500000",
            "exif_longitude": "179.010000",
        }


def test_python_filters_as_the_command_line_does(field: Path, indexed: Path, tmp_path: Path) -> None:
    with fieldscope.Reranker("yes-no-fused") as reranker:
        found = reranker.search(indexed, CRABS, filter={"station": "A", "count": {">": 2}})
        given = reranker.rerank(CRABS, field, metadata=tmp_path / "table.csv", filter="station = A")
        again = reranker.rerank(CRABS, ["000001.png", "000002.png"], index=indexed, filter="station = A")
    assert {image.image_id for image in found} == {"000004.png", "000006.png"}
    assert {image.image_id for image in given} == {"000002.png", "000004.png", "000006.png"}
    assert [image.image_id for image in again] == ["000002.png"]
    assert again[0].metadata == {"file": "000002.png", "station": "A", "count": "2", "eventDate": "2023-02-14"}


@pytest.mark.parametrize("strategy", ["yes-no-fused", "agent", "predicates"])
def test_metadata_reaches_no_prompt(run: Run, world: World, tmp_path: Path, strategy: str) -> None:
    """The answer is planted in every column, in the picture's own EXIF, and in the filter."""
    folder = tmp_path / "field"
    shutil.copytree(world.pictures, folder, ignore=shutil.ignore_patterns("*.sha256"))
    planted = "PLANTED-7f3a"
    exif = PILImage.Exif()
    exif.update({270: planted, 315: planted, 0x9C9B: planted.encode("utf-16-le")})
    for picture in folder.glob("*.png"):
        with PILImage.open(picture) as image:
            image.save(picture, exif=exif)
    columns = ["file", "station", "scientificName", "vernacularName", "eventDate", "notes", "decimalLatitude", "class"]
    rows = [",".join(columns)]
    rows += [",".join([f"{number:06d}.png", *[planted] * (len(columns) - 1)]) for number in range(1, 13)]
    (tmp_path / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    indexed = run("index", folder, "-o", tmp_path / "index", "--metadata", tmp_path / "table.csv")
    assert indexed.exit_code == 0, indexed.stderr
    for condition in (f"station = {planted}", f"taxon = {planted}", f"notes ~ {planted}"):
        told = search(run, tmp_path / "index", "--rerank", "--strategy", strategy, "--filter", condition)
        assert planted in json.dumps(told)  # the result shows it
    assert world.asked
    for request in world.asked:
        assert planted.casefold() not in repr(request).casefold()
        assert planted.casefold() not in request.model_dump_json().casefold()
