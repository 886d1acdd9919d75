"""Parquet files of both shapes are collections, read a row group at a time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError, ConfigError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.retrieval.opening import open_collection, reopen_collection
from fieldscope.retrieval.parquet import ParquetCollection


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    PILImage.new("RGB", (10 + number, 10), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, images: list[Any], ids: Any, id_column: str = "inat24_image_id") -> Path:
    pq.write_table(pa.table({"image": images, id_column: ids}), path, row_group_size=2)
    return path


@pytest.mark.parametrize("shape", ["bytes", "struct"])
def test_both_shapes_of_image_column(tmp_path: Path, shape: str) -> None:
    images = [png(n) if shape == "bytes" else {"bytes": png(n), "path": f"/etc/{n}.png"} for n in range(5)]
    collection = ParquetCollection([write(tmp_path / "a.parquet", images, [70, 71, 72, 73, 74])])
    assert list(collection.ids()) == ["70", "71", "72", "73", "74"]
    assert [collection.load(image_id).size for image_id in collection.ids()] == [(10 + n, 10) for n in range(5)]
    assert collection.pixel_hash("73") == fingerprint_pixels(PILImage.new("RGB", (13, 10), (3, 0, 0)))


def test_ids_are_text_and_the_first_of_equal_ones_counts(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.parquet", [png(0), png(1), png(2)], ["x", "y", "x"]),
        write(tmp_path / "b.parquet", [png(3), png(4)], pa.array(["y", "z"]).dictionary_encode()),
    ]
    collection = ParquetCollection(files)
    assert list(collection.ids()) == ["x", "y", "z"] and len(collection) == 3
    assert [collection.load(image_id).width for image_id in "xyz"] == [10, 11, 14]
    with pytest.raises(BrokenImageError, match="none of the 3 images"):
        collection.load("w")


def test_a_row_group_is_read_once_for_the_images_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = ParquetCollection([write(tmp_path / "a.parquet", [png(n) for n in range(6)], list(range(6)))])
    groups: list[int] = []
    real = pq.ParquetFile.read_row_group

    def counting(self: pq.ParquetFile, group: int, **options: Any) -> pa.Table:
        groups.append(group)
        return real(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    for image_id in ("2", "3", "2"):
        collection.load(image_id)
    assert groups == [1]


def test_broken_images_are_errors_of_their_own(tmp_path: Path) -> None:
    images = [{"bytes": png(0), "path": None}, {"bytes": None, "path": "/etc/x.png"}, {"bytes": b"junk", "path": None}]
    collection = ParquetCollection([write(tmp_path / "a.parquet", images, [1, 2, 3])])
    assert collection.load("1").width == 10
    with pytest.raises(BrokenImageError, match="'2' has no bytes"):
        collection.load("2")
    with pytest.raises(BrokenImageError, match="'3' can't be read as an image"):
        collection.load("3")
    collection.paths[0].unlink()
    with pytest.raises(BrokenImageError):
        collection.stamp("1")


def test_files_of_another_shape_say_why(tmp_path: Path) -> None:
    sound = write(tmp_path / "a.parquet", [png(0)], [1])
    junk = tmp_path / "junk.parquet"
    junk.write_bytes(b"PAR1 no more")
    numberless = write(tmp_path / "n.parquet", [png(0)] * 2, [1, None])
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (sound, {"image_column": "picture"}, "no column 'picture', only image, inat24_image_id"),
        (sound, {"image_column": "inat24_image_id"}, "holds int64, not images as bytes"),
        (sound, {"id_column": "image"}, "holds binary, not whole numbers or text"),
        (junk, {}, "can't be read as Parquet"),
        (numberless, {}, "rows without"),
    ]
    for path, columns, reason in cases:
        with pytest.raises(ConfigError, match=reason):
            ParquetCollection([path], **columns)


def test_a_folder_of_parquet_files_is_opened_and_reopened(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(2):
        write(tmp_path / "data" / f"{number}.parquet", [png(number)], [number])
    collection = open_collection([tmp_path])
    assert list(collection.ids()) == ["0", "1"]
    reopened = reopen_collection(collection.locator())
    assert reopened.load("1").width == 11
    assert reopened.stamp("1") == collection.stamp("1") != collection.stamp("0")
    assert list(open_collection([tmp_path / "data" / "1.parquet"]).ids()) == ["1"]
    (tmp_path / "x.png").write_bytes(png(0))
    with pytest.raises(ConfigError, match="mixed"):
        open_collection([tmp_path / "data" / "1.parquet", tmp_path / "x.png"])
