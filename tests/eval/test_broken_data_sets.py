"""Data sets that are not whole, or not what they seem, are refused or named before a figure is computed over them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as PILImage

from fieldscope.core.errors import BenchmarkError
from fieldscope.eval.benchmarks.embeddings import open_embeddings
from fieldscope.eval.benchmarks.inquire_rerank import file_names, load_inquire_rerank
from fieldscope.retrieval.opening import open_collection
from fieldscope.retrieval.parquet import ParquetCollection, missing_parts

Rows = list[dict[str, Any]]


def picture(colour: str) -> bytes:
    stream = io.BytesIO()
    PILImage.new("RGB", (16, 16), colour).save(stream, "PNG")
    return stream.getvalue()


def test_one_part_of_three_is_refused_and_the_others_are_named(rows: Rows, write_parquet: Any) -> None:
    path = write_parquet(rows, "set/test-00000-of-00003.parquet")
    for given in (path.parent, path):
        with pytest.raises(BenchmarkError, match=r"test-00001-of-00003\.parquet, test-00002-of-00003\.parquet missing"):
            load_inquire_rerank(given)
        with pytest.raises(BenchmarkError, match="missing"):
            file_names(given)
    write_parquet(rows[:2], "set/train-00000-of-00002.parquet")
    write_parquet(rows[8:16], "set/test-00001-of-00003.parquet")
    with pytest.raises(BenchmarkError, match=r"data set \(test-00002-of-00003\.parquet missing"):
        load_inquire_rerank(path.parent, "test")


def test_the_whole_is_taken_and_a_part_of_it_points_to_the_folder(rows: Rows, write_parquet: Any) -> None:
    first = write_parquet(rows[:8], "set/test-00000-of-00002-7f84a2e3c6e8f5c4.parquet")
    write_parquet(rows[8:], "set/test-00001-of-00002-7f84a2e3c6e8f5c5.parquet")
    assert len(load_inquire_rerank(first.parent).queries) == 5
    with pytest.raises(BenchmarkError, match="Give the folder"):
        load_inquire_rerank(first)


def test_parts_are_told_by_their_names() -> None:
    names = ["a-0-of-3.parquet", "b-00001-of-00002.parquet", "c.parquet", "d-00000-of-00001.parquet"]
    assert missing_parts([Path(name) for name in names]) == [
        "a-1-of-3.parquet",
        "a-2-of-3.parquet",
        "b-00000-of-00002.parquet",
    ]
    assert len(missing_parts([Path(f"a-0-of-{'9' * 50}.parquet")])) == 1000


def test_missing_parts_of_a_collection_are_listed(rows: Rows, write_parquet: Any) -> None:
    path = write_parquet(rows, "set/test-00000-of-00002.parquet")
    (path.parent / "README.md").write_text("a card")
    for given in (path.parent, path):
        skipped = open_collection([given]).skipped()
        assert "missing" in skipped["test-00001-of-00002.parquet"]
        assert ("README.md" in skipped) == (given == path.parent)
        assert path.name not in skipped


@pytest.mark.parametrize("without", [None, b""])
@pytest.mark.parametrize("which", [slice(None), slice(3, 4)])
@pytest.mark.parametrize("statistics", [True, False])
def test_rows_with_a_path_and_no_bytes_are_refused(
    rows: Rows, tmp_path: Path, without: bytes | None, which: slice, statistics: bool
) -> None:
    if without == b"" and which != slice(None) and statistics:
        pytest.skip("told when the image is opened: looking for it would take reading every image first")
    for row in rows:
        row["image"] = {"bytes": row["image"], "path": f"{row['inat24_image_id']}.jpg"}
    for row in rows[which]:
        row["image"]["bytes"] = without
    path = tmp_path / "test-00000-of-00001.parquet"
    images = pa.array([row["image"] for row in rows], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.Table.from_pylist(rows)
    table = table.set_column(table.schema.get_field_index("image"), "image", images)
    pq.write_table(table, path, write_statistics=statistics, row_group_size=8)
    with pytest.raises(BenchmarkError, match=r"images have no bytes, such as \d+.*Store the images in the Parquet"):
        load_inquire_rerank(path)


def test_one_id_for_two_pictures_is_named(rows: Rows, write_parquet: Any) -> None:
    shared = rows[0]["inat24_image_id"]
    rows[12] |= {"inat24_image_id": shared, "image": rows[0]["image"]}
    assert load_inquire_rerank(write_parquet(rows)).oddities == ()
    rows[12]["image"] = picture("black")
    (oddity,) = load_inquire_rerank(write_parquet(rows)).oddities
    assert f"image id {shared} stands for different pictures" in oddity
    skipped = open_collection([write_parquet(rows)]).skipped()
    assert list(skipped) == [str(shared)] and "only the first is used" in skipped[str(shared)]


def test_queries_that_differ_by_blanks_are_one(rows: Rows, write_parquet: Any) -> None:
    before = load_inquire_rerank(write_parquet(rows), name="mini")
    text = rows[0]["query"]
    for number, spelled in ((1, f"{text} "), (2, f" {text}"), (3, text.replace(" ", "  ")), (4, f"{text}\u00a0")):
        rows[number]["query"] = spelled
    bench = load_inquire_rerank(write_parquet(rows), name="mini")
    assert bench.fingerprint == before.fingerprint
    (oddity,) = bench.oddities
    assert "differ only by blanks" in oddity and repr(f"{text} ") in oddity


def test_a_query_keeps_its_own_blanks(rows: Rows, write_parquet: Any) -> None:
    for row in rows:
        row["query"] = f" {row['query']} "
    bench = load_inquire_rerank(write_parquet(rows))
    assert all(query.text.startswith(" ") for query in bench.queries) and bench.oddities == ()


def test_faults_cost_no_reading_where_the_statistics_say_enough(rows: Rows, write_parquet: Any) -> None:
    for number, row in enumerate(rows):
        row |= {"inat24_image_id": number, "image": row["image"] + bytes(200)}
    path = write_parquet(rows)
    assert ParquetCollection([path]).faults().without_bytes == ()


def test_embeddings_whose_files_do_not_go_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "img_emb").mkdir()
    (tmp_path / "metadata").mkdir()
    for array, table in ((0, 0), (1, 1), (3, 2)):
        np.save(tmp_path / "img_emb" / f"img_emb_{array}.npy", np.ones((2, 4), dtype=np.float32))
        ids = [str(2 * table), str(2 * table + 1)]
        pq.write_table(pa.table({"image_id": ids}), tmp_path / "metadata" / f"metadata_{table}.parquet")
    with pytest.raises(BenchmarkError, match=r"the numbers of img_emb.* differ"):
        open_embeddings(tmp_path)
