"""Filters by metadata: which images satisfy them, and which filters are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldscope.core.errors import ConfigError
from fieldscope.service.metadata.filter import read_filter
from fieldscope.service.metadata.join import join
from fieldscope.service.metadata.records import Records
from fieldscope.service.metadata.table import Table, read_table

RECORDS = Records(
    ("station", "count", "eventDate", "scientificName", "decimalLatitude", "decimalLongitude"),
    {
        "fox.jpg": {
            "station": "A1",
            "count": "3",
            "eventDate": "2023-05-14",
            "scientificName": "Vulpes vulpes (Linnaeus, 1758)",
            "decimalLatitude": "46.5",
            "decimalLongitude": "7.5",
        },
        "two.jpg": {
            "station": "B2",
            "count": "1",
            "eventDate": "2023-06-01T12:00:00Z",
            "scientificName": "Meles meles | Canis lupus",
            "decimalLatitude": "-17.0",
            "decimalLongitude": "179.5",
        },
        "blank.jpg": {"count": "NA", "station": "a|b"},
    },
)
IDS = ["fox.jpg", "two.jpg", "blank.jpg", "none.jpg"]


@pytest.mark.parametrize(
    ("given", "satisfying"),
    [
        ("station = a1", ["fox.jpg"]),
        ("STATION=A1|B2", ["fox.jpg", "two.jpg"]),
        ("station != A1", ["two.jpg", "blank.jpg"]),
        ("station ~ a", ["fox.jpg", "blank.jpg"]),
        ("count >= 2", ["fox.jpg"]),
        ("count < 2", ["two.jpg"]),
        ("count = 1.0", ["two.jpg"]),
        ("count != 1", ["fox.jpg", "blank.jpg"]),
        ("date = 2023", ["fox.jpg", "two.jpg"]),
        ("date = 2023-05", ["fox.jpg"]),
        ("date > 2023-05", ["two.jpg"]),
        ("date <= 2023-06-01", ["fox.jpg", "two.jpg"]),
        ("date < 2023-06-01T12:00", ["fox.jpg"]),
        ("eventDate != 2023-05", ["two.jpg"]),
        ("taxon = Vulpes", ["fox.jpg"]),
        ("taxon = canis lupus", ["two.jpg"]),
        ("taxon != Meles", ["fox.jpg"]),
        ("box = 7,46,8,47", ["fox.jpg"]),
        ("box = 170,-20,-170,0", ["two.jpg"]),
        (["count >= 1", "taxon = Vulpes|Meles", "date >= 2023-06"], ["two.jpg"]),
        ({"station": ["A1", "x"], "count": {">=": 2, "<": 4}, "box": [7, 46, 8, 47]}, ["fox.jpg"]),
        ({"station": "A1", "date": {">=": "2024"}}, []),
    ],
)
def test_the_images_that_satisfy_a_filter(given: object, satisfying: list[str]) -> None:
    assert read_filter(given).select(RECORDS, IDS) == satisfying


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("fox", "is no condition"),
        ("", "is no condition"),
        ([], "has no condition"),
        ({}, "has no condition"),
        (5, "this is no filter"),
        ([5], "this is no filter"),
        ("station =", "no value"),
        ("count >= 1|2", "several values"),
        ({"count": None}, "needs texts or numbers"),
        ({"count": []}, "no value"),
        ({"count": {}}, "is empty"),
        ({"count": {"gt": 1}}, "'gt'"),
        ({"": 1}, "no name of a column"),
        ("statoin = A1", "did you mean 'station'"),
        ("count = many", "has numbers"),
        ("station >= B", "use = or ~"),
        ("date >= soon", "write dates like"),
        ("taxon > Vulpes", "use =, != or ~"),
        ("box = 1,2", "no box of coordinates"),
        ("box = 7,47,8,46", "no box of coordinates"),
        ("box > 7,46,8,47", "no box of coordinates"),
        ({"box": ["a", 1, 2, 3]}, "no box of coordinates"),
    ],
)
def test_a_filter_that_is_refused_says_why_in_one_sentence(given: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refusal:
        read_filter(given).select(RECORDS, IDS)
    assert "\n" not in str(refusal.value)


def test_images_without_metadata_are_named_as_the_reason() -> None:
    with pytest.raises(ConfigError, match="have no metadata"):
        read_filter("station = A1").select(Records(), IDS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("commas.csv", 'file,note\na.jpg,"x, y"\nb.jpg,\n'),
        ("semicolons.csv", "\ufefffile;note\r\na.jpg;x, y\r\nb.jpg;\r\n"),
        ("occurrence.txt", "file\tnote\na.jpg\tx, y\nb.jpg\t\n"),
        ("lines.jsonl", '{"file": "a.jpg", "note": "x, y"}\n\n{"file": "b.jpg", "note": null}\n'),
        ("list.json", '[{"file": "a.jpg", "note": "x, y"}, {"file": "b.jpg"}]'),
    ],
)
def test_tables_in_every_form_read_alike(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode())
    table = read_table(tmp_path / name)
    assert table.columns == ("file", "note")
    assert table.rows == ({"file": "a.jpg", "note": "x, y"}, {"file": "b.jpg"})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.csv", b"", "no rows"),
        ("header.csv", b"file,note\n", "no rows"),
        ("long.csv", b"file,note\na.jpg,x,y\n", "line 2: 3 cells"),
        ("twice.csv", b"file,file\na,b\n", "two columns called 'file'"),
        ("latin.csv", "file,note\na.jpg,Füchse\n".encode("latin-1"), "not UTF-8"),
        ("binary.csv", b"\0\1\2", "no text"),
        ("dwca.zip", b"PK", "unpack it"),
        ("lines.jsonl", b'{"file": "a.jpg"}\n[1]\n', "line 2: not a JSON object"),
        ("broken.jsonl", b'{"file": \n', "line 1: not valid JSON"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read_table(tmp_path / name)


def table(*rows: dict[str, str]) -> Table:
    return Table(Path("table.csv"), tuple(dict.fromkeys(column for row in rows for column in row)), rows)


@pytest.mark.parametrize(
    "written",
    [
        "north/IMG_1.JPG",
        "img_1",
        "img_1.jpg",
        r"D:\card\north\IMG_1.JPG",
        "./north/img_1.jpg",
        "https://example.org/media/north/IMG_1.JPG?w=1",
    ],
)
def test_file_names_are_joined_however_they_are_written(written: str) -> None:
    joined = join(table({"station": "A1", "media": written}), ["north/IMG_1.JPG", "north/IMG_2.JPG"])
    assert joined.column == "media"
    assert joined.images["north/IMG_1.JPG"]["station"] == "A1"


def test_folders_tell_files_of_one_name_apart() -> None:
    rows = [{"File": "1.jpg", "RelativePath": folder, "station": folder} for folder in ("north", "south", "west")]
    joined = join(table(*rows), ["north/1.jpg", "south/1.jpg"])
    assert {image_id: cells["station"] for image_id, cells in joined.images.items()} == {
        "north/1.jpg": "north",
        "south/1.jpg": "south",
    }
    below = join(table(*rows), ["1.jpg"], root="/data/south")
    assert below.images["1.jpg"]["station"] == "south"
    unsure = join(table(*rows), ["1.jpg"], root="/data/photos")
    assert not unsure.images and sorted(unsure.ambiguous) == ["north/1.jpg", "south/1.jpg", "west/1.jpg"]


def test_a_name_that_is_an_image_s_id_means_that_image() -> None:
    assert join(table({"file": "1.jpg", "station": "A1"}), ["1.jpg", "below/1.jpg"]).images.keys() == {"1.jpg"}


def test_several_rows_of_an_image_are_one_with_all_values() -> None:
    rows = [{"file": "1.jpg", "name": name, "station": "A1"} for name in ("Meles meles", "Canis lupus")]
    assert join(table(*rows), ["1.jpg"]).images["1.jpg"] == {
        "file": "1.jpg",
        "name": "Meles meles | Canis lupus",
        "station": "A1",
    }


def test_a_table_about_other_images_is_refused() -> None:
    with pytest.raises(ConfigError, match="no column with the file names"):
        join(table({"file": "9.jpg", "station": "A1"}), ["1.jpg"])


def test_dates_in_several_columns_and_decimal_commas_are_read() -> None:
    records = Records(
        ("Date", "Time", "lat", "lon"),
        {"1.jpg": {"Date": "14.05.2023", "Time": "06:30:00", "lat": "46,5", "lon": "7,5"}},
        decimal_comma=True,
    )
    assert read_filter("date = 2023-05-14T06:30").select(records, ["1.jpg"])
    assert not read_filter("date = 2023-05-14T06:31").select(records, ["1.jpg"])
    assert read_filter("box = 7,46,8,47").select(records, ["1.jpg"])
    parts = Records(("year", "month", "day"), {"1.jpg": {"year": "2023", "month": "5", "day": "4"}})
    assert read_filter("date = 2023-05-04").select(parts, ["1.jpg"])


def test_a_date_of_the_table_counts_more_than_the_cameras() -> None:
    records = Records(
        ("year", "month", "exif_time"),
        {
            "table.jpg": {"year": "2021", "month": "7", "exif_time": "2023-05-14T06:30:00"},
            "camera.jpg": {"exif_time": "2023-05-14T06:30:00"},
        },
    )
    assert read_filter("date = 2021-07").select(records, ["table.jpg", "camera.jpg"]) == ["table.jpg"]
    assert read_filter("date = 2023").select(records, ["table.jpg", "camera.jpg"]) == ["camera.jpg"]


def test_dates_that_cannot_be_told_apart_are_texts() -> None:
    records = Records(("date",), {"1.jpg": {"date": "5/6/2023"}})
    assert read_filter("date = 5/6/2023").select(records, ["1.jpg"]) == ["1.jpg"]
    with pytest.raises(ConfigError, match="use = or ~"):
        read_filter("date >= 2023-05").select(records, ["1.jpg"])
