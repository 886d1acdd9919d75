from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.types import Candidate
from fieldscope.eval.benchmarks.inquire_rerank import COLUMNS, load_inquire_rerank
from fieldscope.eval.types import QueryMeta

Rows = list[dict[str, Any]]


def test_a_folder_becomes_a_benchmark(rows: Rows, write_parquet: Any) -> None:
    folder = write_parquet(rows).parent
    bench = load_inquire_rerank(folder, name="mini")
    assert (bench.name, bench.split) == ("mini", "test")
    assert [query.id for query in bench.queries] == ["q000", "q001", "q002", "q003", "q004"]
    assert [query.text for query in bench.queries] == list(dict.fromkeys(row["query"] for row in rows))
    first = [row for row in rows if row["query"] == bench.queries[0].text]
    assert bench.candidates("q000") == tuple(Candidate(str(r["inat24_image_id"]), r["clip_score"]) for r in first)
    assert bench.qrels["q000"] == {str(r["inat24_image_id"]): r["relevant"] for r in first}
    assert bench.meta["q001"] == QueryMeta("Behavior", "a category", "Birds")
    assert bench.images.load("103").size == (16, 16)


def test_no_answer_key_is_in_a_query(rows: Rows, write_parquet: Any) -> None:
    for query in load_inquire_rerank(write_parquet(rows)).queries:
        assert query.model_dump(exclude={"id", "text"}) == {"reference_image": None, "dialogue": ()}
        assert query.id.startswith("q0")


def test_hugging_faces_image_struct_and_other_types_of_the_same_values(rows: Rows, write_parquet: Any) -> None:
    plain = load_inquire_rerank(write_parquet(rows, "plain/test-0.parquet"), name="mini")
    dressed: Rows = [{**row, "image": {"bytes": row["image"], "path": "elsewhere.jpg"}} for row in rows]
    path = write_parquet(
        dressed,
        "dressed/test-0.parquet",
        relevant=pa.bool_(),
        inat24_image_id=pa.string(),
        query=pa.large_string(),
        supercategory=pa.dictionary(pa.int32(), pa.string()),
    )
    other = load_inquire_rerank(path, name="mini")
    assert other.fingerprint == plain.fingerprint
    assert other.images.pixel_hash("2") == plain.images.pixel_hash("2")


def test_splits_come_from_the_names(rows: Rows, write_parquet: Any) -> None:
    halves = {"validation": rows[:16], "test": rows[16:]}
    folder = write_parquet(rows[:8], "set/data/validation-00000-of-00002.parquet").parent.parent
    write_parquet(rows[8:16], "set/data/validation-00001-of-00002.parquet")
    write_parquet(rows[16:], "set/data/test-00000-of-00001.parquet")
    for asked, expected in (("validation", "validation"), ("val", "validation"), ("test", "test"), (None, "test")):
        bench = load_inquire_rerank(folder, asked)
        assert bench.split == expected
        assert {query.text for query in bench.queries} == {row["query"] for row in halves[expected]}
    with pytest.raises(BenchmarkError, match=r"no split 'train'\. Use one of test, validation"):
        load_inquire_rerank(folder, "train")


def test_splits_come_from_folders_too_and_may_be_missing(rows: Rows, write_parquet: Any) -> None:
    write_parquet(rows[:8], "set/validation/part-0.parquet")
    assert load_inquire_rerank(write_parquet(rows[8:], "set/test/part-0.parquet").parent.parent).split == "test"
    unnamed = write_parquet(rows, "other/testimony.parquet")
    assert load_inquire_rerank(unnamed).split == "all"
    assert load_inquire_rerank(unnamed, "validation").split == "validation"


def test_one_query_may_span_files(rows: Rows, write_parquet: Any) -> None:
    folder = write_parquet(rows[:4], "set/test-00000-of-00002.parquet").parent
    write_parquet(rows[4:8], "set/test-00001-of-00002.parquet")
    bench = load_inquire_rerank(folder)
    assert len(bench.queries) == 1
    assert len(bench.candidates("q000") or ()) == 8


def test_the_fingerprint_changes_with_labels_priors_and_queries(rows: Rows, write_parquet: Any) -> None:
    seen = {load_inquire_rerank(write_parquet(rows, "a/mini.parquet")).fingerprint}
    changes: Rows = [{"relevant": 0}, {"clip_score": 0.5}, {"query": "else"}, {"category": "c"}]
    for number, change in enumerate(changes):
        rows[0] |= {"relevant": 1} | change
        seen.add(load_inquire_rerank(write_parquet(rows, f"{number}/mini.parquet")).fingerprint)
    assert len(seen) == 5


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(rows: Rows, write_parquet: Any, column: str) -> None:
    path = write_parquet([{key: value for key, value in row.items() if key != column} for row in rows])
    with pytest.raises(BenchmarkError, match=rf"lacks {column}\."):
        load_inquire_rerank(path)


def test_all_missing_columns_are_named(rows: Rows, write_parquet: Any) -> None:
    path = write_parquet([{"query": row["query"]} for row in rows])
    with pytest.raises(BenchmarkError, match="lacks image, relevant, clip_score"):
        load_inquire_rerank(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_score": math.nan}, "row 3: clip_score is nan"),
        ({"clip_score": math.inf}, "row 3: clip_score is inf"),
        ({"clip_score": None}, "row 3: clip_score is None"),
        ({"relevant": 2}, "row 3: relevant is 2"),
        ({"relevant": None}, "row 3: relevant is None"),
        ({"query": "  "}, "row 3: the query is empty"),
        ({"query": None}, "row 3: the query is empty"),
        ({"inat24_image_id": None}, "row 3: inat24_image_id is empty"),
        ({"inat24_image_id": 2}, "row 3: image 2 occurs twice in the query"),
    ],
)
def test_a_bad_value_is_named_with_its_row(
    rows: Rows, write_parquet: Any, change: dict[str, Any], message: str
) -> None:
    rows[3] |= change
    with pytest.raises(BenchmarkError, match=message):
        load_inquire_rerank(write_parquet(rows))


@pytest.mark.parametrize(
    ("column", "value"),
    [("query", 3), ("relevant", "yes"), ("clip_score", "high"), ("inat24_image_id", 1.5), ("image", "a.jpg")],
)
def test_a_wrong_type_is_named(rows: Rows, write_parquet: Any, column: str, value: object) -> None:
    path = write_parquet([{**row, column: value} for row in rows])
    with pytest.raises(BenchmarkError, match=f"column {column} holds"):
        load_inquire_rerank(path)


def test_an_image_may_be_a_candidate_of_several_queries(rows: Rows, write_parquet: Any) -> None:
    rows[8] |= {"inat24_image_id": rows[0]["inat24_image_id"]}
    bench = load_inquire_rerank(write_parquet(rows))
    assert "0" in bench.qrels["q000"]
    assert "0" in bench.qrels["q001"]


def test_files_that_are_none(tmp_path: Path, rows: Rows, write_parquet: Any) -> None:
    with pytest.raises(BenchmarkError, match="does not exist"):
        load_inquire_rerank(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchmarkError, match="no Parquet files"):
        load_inquire_rerank(tmp_path / "empty")
    whole = write_parquet(rows)
    cut = tmp_path / "cut.parquet"
    for size in (0, 10, whole.stat().st_size // 2):
        cut.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(BenchmarkError, match="can't be read as Parquet"):
            load_inquire_rerank(cut)
    none = tmp_path / "none.parquet"
    pq.write_table(pq.read_table(whole).slice(0, 0), none)
    with pytest.raises(BenchmarkError, match="holds no rows"):
        load_inquire_rerank(none)
