"""A folder of one's own: what its lines may say, and what is refused, by line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.types import Turn
from fieldscope.eval.datasets.folder import load_folder
from tests.eval.dataset_files import paint


def make(root: Path, **files: str) -> Path:
    """Three pictures, two queries and their judgments; `files` by name, with `_` for the dot, replace what is there."""
    paint(root / "images", ("a.png", "b.jpg", "c.png"))
    own = {
        "queries_tsv": 'id\ttext\treference\n1\ta "quoted" fox\t\n2\tbut on snow\ta\n',
        "qrels_tsv": "query-id\tcorpus-id\tscore\n1\ta\t2\n1\tb\t1\n2\tc\t1\n1\tz\t0\n",
        **files,
    }
    for name, text in own.items():
        if text:
            (root / name.replace("_", ".")).write_text(text)
    return root


def test_a_table_is_read_as_it_is(tmp_path: Path) -> None:
    read = load_folder(make(tmp_path), None, {})
    bench = read.benchmark
    assert (bench.name, bench.split) == (tmp_path.name, "all")
    assert [(q.id, q.text, q.reference_image) for q in bench.queries] == [
        ("1", 'a "quoted" fox', None),
        ("2", "but on snow", "a"),
    ]
    assert bench.qrels["1"] == {"a": 2, "b": 1, "z": 0}
    assert bench.judgments("1") == {"a": 1, "b": 1, "z": 0}
    assert read.galleries == {"": ("a", "b", "c")}


def test_a_dialogue_may_be_written_in_json_lines(tmp_path: Path) -> None:
    line = '{"id": 7, "text": "a fox", "dialogue": [{"question": "where?", "answer": "on snow"}], "note": "SECRET"}\n'
    bench = load_folder(
        make(tmp_path, queries_tsv="", queries_jsonl=line, qrels_tsv="query\timage\n7\ta\n"), None, {}
    ).benchmark
    (query,) = bench.queries
    assert (query.id, query.dialogue) == ("7", (Turn(question="where?", answer="on snow"),))
    assert "SECRET" not in repr(bench)
    assert bench.qrels == {"7": {"a": 1}}


def test_queries_without_judgments_are_left_out(tmp_path: Path) -> None:
    bench = load_folder(make(tmp_path, qrels_tsv="query\timage\tscore\n2\tc\t1\n"), None, {}).benchmark
    assert [query.id for query in bench.queries] == ["2"]


def test_the_reference_may_lie_outside_of_the_gallery(tmp_path: Path) -> None:
    read = load_folder(make(tmp_path, gallery_tsv="id\nb\nc\n", qrels_tsv="query\timage\n2\tc\n"), None, {})
    assert read.galleries == {"": ("b", "c")}
    assert set(read.images.ids()) == {"a", "b", "c"}


def test_judgments_by_split(tmp_path: Path) -> None:
    root = make(tmp_path, qrels_tsv="")
    (root / "qrels").mkdir()
    for split, line in (("test", "1\ta"), ("dev", "2\tc")):
        (root / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\n{line}\n")
    assert [query.id for query in load_folder(root, None, {}).benchmark.queries] == ["1"]
    assert load_folder(root, "dev", {}).benchmark.split == "dev"
    with pytest.raises(BenchmarkError, match="has no split 'train'"):
        load_folder(root, "train", {})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"queries_tsv": "id\ttext\n1\tfox\n1\tcrab\n"}, r"queries.tsv, line 3: id: '1' occurs twice"),
        ({"queries_tsv": "id\n1\n"}, r"queries.tsv, line 2: missing key 'text'"),
        ({"queries_tsv": "id\ttext\n1\tfox\tmore\n"}, r"queries.tsv, line 2: 3 values under 2 headings"),
        ({"queries_tsv": "id\ttext\treference\n1\tfox\t../x\n2\tcrab\n"}, r"'../x', which is not below"),
        ({"queries_tsv": "id\ttext\treference\n1\tfox\tnone\n2\tcrab\n"}, r"1 reference images have no file .*: none "),
        ({"queries_tsv": "", "queries_jsonl": '{"id": 1,\n'}, r"queries.jsonl, line 1: it is no JSON"),
        ({"queries_tsv": "", "queries_jsonl": '{"id": 1, "text": ["fox"]}\n'}, r"queries.jsonl, line 1: text: "),
        ({"qrels_tsv": "query-id\tcorpus-id\tscore\n3\ta\t1\n"}, r"qrels.tsv, line 2: query-id: '3' is not in queries"),
        ({"qrels_tsv": "query-id\tcorpus-id\tscore\n1\tz\t1\n"}, r"qrels.tsv, line 2: corpus-id: 'z' is not in the ga"),
        ({"qrels_tsv": "query-id\tcorpus-id\tscore\n1\ta\tyes\n"}, r"qrels.tsv, line 2: score: "),
        ({"qrels_tsv": ""}, r"has none of qrels.tsv, qrels.jsonl"),
        ({"gallery_tsv": "id\tfile\na\t/etc/passwd\n"}, r"'/etc/passwd', which is not below"),
        ({"gallery_tsv": "id\na\na\n"}, r"gallery.tsv, line 3: id: 'a' occurs twice"),
    ],
)
def test_a_wrong_line_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message) as refused:
        load_folder(make(tmp_path, **files), None, {})
    assert "\n" not in str(refused.value)
