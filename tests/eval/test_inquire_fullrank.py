from __future__ import annotations

import csv
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fieldscope.core.errors import BenchmarkError, ConfigError, ImageError, IndexMismatchError
from fieldscope.core.types import Query
from fieldscope.eval.benchmarks.embeddings import open_embeddings
from fieldscope.eval.benchmarks.inquire_fullrank import Fullrank, is_fullrank, load_inquire_fullrank
from fieldscope.eval.benchmarks.species import binomials, names_species
from fieldscope.eval.queries import Selection
from fieldscope.eval.types import QueryMeta
from fieldscope.retrieval.faiss_index import FaissIndex
from fieldscope.retrieval.manifest import write_index

MONGOOSE = "train/04686_Animalia_Chordata_Mammalia_Carnivora_Herpestidae_Mungos_mungo"
SPIDER = "train/00110_Animalia_Arthropoda_Arachnida_Araneae_Thomisidae_Misumena_vatia"
PATHS = [*(f"{MONGOOSE}/m{n}.jpg" for n in range(3)), *(f"{SPIDER}/s{n}.jpg" for n in range(3))]
IDS = [str(700 + n) for n in range(len(PATHS))]
TESTS = [
    ["0", "3", "A mongoose standing upright alert", "Behavior", "Defensive and Survival Behaviors", "Mammals"],
    ["196", "244", "adult male Misumena vatia", "Appearance", "Sex identification", "Arachnids"],
]
POSITIVE = {"3": [0, 1], "244": [4], "109": [2]}


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return path


def vectors(count: int = len(PATHS), dim: int = 8, kind: str = "float32") -> Any:
    drawn = np.random.default_rng(7).normal(size=(count, dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(kind)


def plain(folder: Path, names: Sequence[Sequence[str]], array: Any = None, file: str = "ids.csv") -> Path:
    write_csv(folder / file, names)
    np.save(folder / "embeddings.npy", vectors() if array is None else array)
    return folder


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """`data/inquire` with the published tables, spelled as they were: an index without a heading, `iconic group`."""
    folder = tmp_path / "data" / "inquire"
    heading = ["", "query_id", "query_text", "supercategory", "category", "iconic group"]
    write_csv(folder / "inquire_queries_test.csv", [heading, *TESTS])
    validation = ["83", "109", "Eurasian Black Grouse male ", "Appearance", "Sex identification", "Birds"]
    write_csv(folder / "inquire_queries_val.csv", [[*heading[:-1], "iconic_group"], validation])
    rows = [[query, IDS[n], PATHS[n]] for query, found in POSITIVE.items() for n in found]
    write_csv(folder / "inquire_annotations.csv", [["query_id", "image_id", "image_path"], *rows])
    return folder


@pytest.fixture
def by_id(tables: Path) -> Path:
    rows = [["image_id", "image_path"], *map(list, zip(IDS, PATHS, strict=True))]
    plain(tables / "embeddings", rows)
    return tables


def shards(folder: Path, columns: dict[str, list[str]], sizes: Sequence[int] = (4, 2)) -> Path:
    """INQUIRE's layout: numbered pieces of half precision, with a table beside each."""
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    array, start = vectors(kind="float16"), 0
    for number, size in enumerate(sizes):
        np.save(folder / "img_emb" / f"img_emb_{number + 9}.npy", array[start : start + size])
        part = {name: values[start : start + size] for name, values in columns.items()}
        pq.write_table(pa.table(part), folder / "metadata" / f"metadata_{number + 9}.parquet")
        start += size
    return folder


def test_the_published_tables_become_a_benchmark(by_id: Path) -> None:
    found = load_inquire_fullrank(by_id)
    bench = found.benchmark
    assert (bench.name, bench.split) == ("inquire-fullrank", "test")
    assert [(query.id, query.text) for query in bench.queries] == [(row[1], row[2]) for row in TESTS]
    assert bench.candidate_sets is None
    assert bench.qrels == {"3": {"700": 1, "701": 1}, "244": {"704": 1}}
    assert bench.meta["3"] == QueryMeta("Behavior", "Defensive and Survival Behaviors", "Mammals")
    assert bench.meta["244"] == QueryMeta("Appearance", "Sex identification", "Arachnids", scientific_name=True)
    assert list(found.ids) == IDS
    assert (found.missing, found.has_images) == (0, False)


def test_no_answer_key_is_in_a_query(by_id: Path) -> None:
    for query in load_inquire_fullrank(by_id).benchmark.queries:
        assert query.model_dump(exclude={"id", "text"}) == {"reference_image": None, "dialogue": ()}


@pytest.mark.parametrize(("asked", "expected"), [("val", "109"), ("validation", "109"), ("test", "3"), (None, "3")])
def test_splits_come_from_the_names(by_id: Path, asked: str | None, expected: str) -> None:
    bench = load_inquire_fullrank(by_id, asked).benchmark
    assert bench.queries[0].id == expected
    assert bench.meta["109"].iconic_group == "Birds" if expected == "109" else True
    with pytest.raises(BenchmarkError, match=r"no split 'train'\. Use one of test, validation"):
        load_inquire_fullrank(by_id, "train")


def test_the_folder_above_is_the_same_benchmark(by_id: Path) -> None:
    assert is_fullrank(by_id)
    assert is_fullrank(by_id.parent)
    assert not is_fullrank(by_id.parent.parent)
    below, above = load_inquire_fullrank(by_id, name="x"), load_inquire_fullrank(by_id.parent, name="x")
    assert below.benchmark.fingerprint == above.benchmark.fingerprint


def test_published_embeddings_name_images_by_path_and_no_species_is_in_an_id(tables: Path) -> None:
    shards(tables.parent / "inat24" / "embs" / "vit-b-32", {"image_path": [path[:-4] for path in PATHS]})
    found = load_inquire_fullrank(tables)
    assert list(found.ids) == ["m0", "m1", "m2", "s0", "s1", "s2"]
    assert found.benchmark.qrels == {"3": {"m0": 1, "m1": 1}, "244": {"s1": 1}}
    assert (len(found.embeddings), found.embeddings.dim) == (6, 8)
    np.testing.assert_array_equal(
        np.concatenate(list(found.embeddings.blocks())), vectors(kind="float16").astype(np.float32)
    )


Layout = Callable[[Path], Path]
LAYOUTS: dict[str, Layout] = {
    "ids in a table": lambda folder: plain(folder, [["Image ID", "more"], *([i, "x"] for i in IDS)]),
    "ids alone": lambda folder: plain(folder, [[i] for i in IDS], file="ids.txt"),
    "paths alone": lambda folder: plain(folder, [[p] for p in PATHS], file="ids.txt"),
    "ids, a CSV file without a heading": lambda folder: plain(folder, [[i] for i in IDS]),
    "half precision": lambda folder: plain(folder, [[i] for i in IDS], vectors(kind="float16")),
    "not of length 1": lambda folder: plain(folder, [[i] for i in IDS], 40 * vectors()),
    "pieces with ids": lambda folder: shards(folder, {"image_id": IDS}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_finds_the_same_images(tables: Path, layout: str) -> None:
    LAYOUTS[layout](tables / "embeddings")
    found = load_inquire_fullrank(tables)
    index = FaissIndex.of_blocks(found.ids, found.embeddings.blocks(), found.embeddings.dim)
    for row in range(len(PATHS)):
        scores, ids = index.search(vectors()[row : row + 1], 6)
        assert ids[0][0] == found.ids[row]
        np.testing.assert_allclose(scores[0], np.sort(vectors() @ vectors()[row])[::-1], atol=2e-3)
    assert found.missing == 0


def test_a_library_of_fieldscope_index_is_one_layout_and_knows_its_encoder(tables: Path) -> None:
    write_index(tables / "embeddings", PATHS, vectors(), "0" * 64, encoder_name="theirs")
    found = load_inquire_fullrank(tables)
    assert found.ids[0] == "m0"

    class Encoder:
        fingerprint, dim = "1" * 64, 8

    with pytest.raises(IndexMismatchError, match="made with the encoder 'theirs'"):
        found.embeddings.require(Encoder(), "mine")  # type: ignore[arg-type]


def test_another_length_of_vector_says_which_option_to_give(by_id: Path) -> None:
    class Encoder:
        fingerprint, dim = "1" * 64, 512

    with pytest.raises(IndexMismatchError, match=r"have length 8, and those of the encoder 'mine' 512\. Name"):
        load_inquire_fullrank(by_id).embeddings.require(Encoder(), "mine")  # type: ignore[arg-type]


def test_of_several_models_the_name_of_the_clip_decides(tables: Path) -> None:
    for model in ("vit-b-32", "vit-l-14"):
        plain(tables.parent / "inat24" / "embs" / model, [["image_id"], *([i] for i in IDS)])
    found = load_inquire_fullrank(tables, encoder="ViT-L-14:openai")
    assert found.embeddings.folder.name == "vit-l-14"
    with pytest.raises(BenchmarkError, match=r"several models \(vit-b-32, vit-l-14\)"):
        load_inquire_fullrank(tables, encoder="ViT-L-14:laion2b_s32b_b82k")


def test_relevant_images_without_an_embedding_stay_relevant(tables: Path) -> None:
    plain(tables / "embeddings", [["image_id"], *([i] for i in IDS[1:])], vectors()[1:])
    found = load_inquire_fullrank(tables)
    assert found.missing == 1
    assert found.benchmark.qrels["3"] == {"700": 1, "701": 1}


def test_images_lie_beside_the_tables_and_no_path_leaves_their_root(by_id: Path, tmp_path: Path) -> None:
    root = by_id.parent / "inat24"
    (root / MONGOOSE).mkdir(parents=True)
    Image.new("RGB", (6, 4), "red").save(root / PATHS[0])
    outside = tmp_path / "data" / "secret.jpg"
    Image.new("RGB", (5, 5), "blue").save(outside)
    rows = [["image_id", "image_path"], *map(list, zip(IDS, PATHS, strict=True))]
    rows[2][1], rows[3][1] = "../secret.jpg", str(outside)
    (root / MONGOOSE / "link.jpg").symlink_to(outside)
    rows[4][1] = f"{MONGOOSE}/link.jpg"
    plain(by_id / "embeddings", rows)
    found: Fullrank = load_inquire_fullrank(by_id)
    assert found.has_images
    assert found.benchmark.images.load("700").size == (6, 4)
    for image_id in ("701", "702", "703", "704", "none"):
        with pytest.raises(ImageError):
            found.benchmark.images.load(image_id)


class Malice:
    """What a pickle may run when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def test_a_pickle_runs_nothing(by_id: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    np.save(by_id / "embeddings" / "embeddings.npy", np.array([Malice(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(BenchmarkError, match="can't be read as an array of numbers"):
        load_inquire_fullrank(by_id)
    (by_id / "embeddings" / "embeddings.npy").write_bytes(pickle.dumps(Malice(mark)))
    with pytest.raises(BenchmarkError, match="can't be read as an array of numbers"):
        load_inquire_fullrank(by_id)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (vectors()[:5], "has 5 vectors, and names 6 images"),
        (vectors()[0], r"float32 of shape \(8,\), not a row"),
        (np.ones((6, 8), dtype=np.int64), "int64 of shape"),
    ],
)
def test_arrays_of_another_shape(by_id: Path, array: Any, message: str) -> None:
    np.save(by_id / "embeddings" / "embeddings.npy", array)
    with pytest.raises(BenchmarkError, match=message):
        load_inquire_fullrank(by_id)


def test_damaged_and_inconsistent_embeddings(by_id: Path, tables: Path, tmp_path: Path) -> None:
    path = by_id / "embeddings" / "embeddings.npy"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BenchmarkError, match="can't be read as an array"):
        load_inquire_fullrank(by_id)
    broken = vectors()
    broken[3, 3] = np.nan
    np.save(path, broken)
    with pytest.raises(BenchmarkError, match="not finite"):
        list(load_inquire_fullrank(by_id).embeddings.blocks())
    uneven = shards(tmp_path / "uneven", {"image_id": IDS})
    pq.write_table(pa.table({"image_id": IDS[:3]}), uneven / "metadata" / "metadata_9.parquet")
    with pytest.raises(BenchmarkError, match=r"img_emb_9.npy has 4 vectors, and metadata_9.parquet beside it 3 rows"):
        open_embeddings(uneven)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([["image_id"], *([f"9{i}"] for i in IDS)], "none of the 4 relevant images is among the 6"),
        ([["image_id"], *([IDS[0]] for _ in IDS)], "names two images alike"),
        ([["picture", "size"], *([i, "3"] for i in IDS)], "names none of the columns image_id"),
    ],
)
def test_names_that_do_not_fit(tables: Path, names: list[list[str]], message: str) -> None:
    plain(tables / "embeddings", names)
    with pytest.raises(BenchmarkError, match=message):
        load_inquire_fullrank(tables)


def test_embeddings_that_are_not_there(tables: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"has no embeddings\. Put them into"):
        load_inquire_fullrank(tables)


@pytest.mark.parametrize(
    ("file", "rows", "message"),
    [
        ("inquire_queries_test.csv", [["id", "text"]], "lacks query_id, query_text; its columns are id, text"),
        ("inquire_queries_test.csv", [["query_id", "query_text"], ["3", " "]], "line 2: the query has no id or no"),
        ("inquire_queries_test.csv", [["query_id", "query_text"], ["3", "a"], ["3", "b"]], "line 3: .* occurs twice"),
        ("inquire_queries_test.csv", [["query_id", "query_text"], ["3", "a", "b"]], "line 2: 3 values under 2"),
        ("inquire_queries_test.csv", [], "lacks query_id, query_text; its columns are none"),
        ("inquire_annotations.csv", [["query_id", "image_id"]], "lacks image_path"),
        ("inquire_annotations.csv", [["query_id", "image_id", "image_path"], ["3", "", "x"]], "no id or no path"),
    ],
)
def test_a_table_of_another_shape_is_named(by_id: Path, file: str, rows: list[list[str]], message: str) -> None:
    write_csv(by_id / file, rows)
    with pytest.raises(BenchmarkError, match=message):
        load_inquire_fullrank(by_id)


def test_tables_that_are_no_text(by_id: Path) -> None:
    (by_id / "inquire_queries_test.csv").write_bytes(b"query_id,query_text\n3,\xff\n")
    with pytest.raises(BenchmarkError, match="not UTF-8 text"):
        load_inquire_fullrank(by_id)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Axanthism in a green frog (Lithobates clamitans)", True),
        ("a LITHOBATES CLAMITANS, calling", True),
        ("a green frog", False),
        ("Lithobates, not clamitans", False),
        ("Lithobates species", False),
    ],
)
def test_queries_that_name_a_species(text: str, named: bool) -> None:
    assert names_species(text, binomials(["Lithobates clamitans", "Bufo", ""])) is named


QUERIES = [Query(id=str(n), text=text) for n, text in enumerate(("A fox", "two  owls", "a crab", "a fox"))]


@pytest.mark.parametrize(
    ("only", "without", "expected"),
    [
        ("2\n", None, ["2"]),
        ("Two owls\n\n  0\r\n", None, ["0", "1"]),
        ("a FOX", None, ["0", "3"]),
        (None, "a crab", ["0", "1", "3"]),
        ("0\n2", "2", ["0"]),
        (None, None, ["0", "1", "2", "3"]),
    ],
)
def test_a_list_chooses_queries(tmp_path: Path, only: str | None, without: str | None, expected: list[str]) -> None:
    files = []
    for name, text in (("only.txt", only), ("without.txt", without)):
        files.append(tmp_path / name if text is not None else None)
        (tmp_path / name).write_text(text or "", encoding="utf-8-sig")
    assert [query.id for query in Selection(*files).of(QUERIES)] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a crap", r"line 1: 'a crap' is not the id or text of a query \(did you mean 'a crab'\?\)"),
        ("\n", "names no query"),
        ("0\n1\n2\n3", "none of the 4 queries is left"),
    ],
)
def test_a_list_that_chooses_nothing(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Selection(without=path).of(QUERIES)
    with pytest.raises(ConfigError, match="can't be read"):
        Selection(only=tmp_path / "none").of(QUERIES)
