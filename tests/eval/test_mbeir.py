"""M-BEIR's files, and its acceptance cases: what is read, how it is scored, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.types import RankedCandidate, RerankResult
from fieldscope.core.documents import Modality, modality_of, normalised_text, text_of
from fieldscope.core.errors import BenchmarkError
from fieldscope.eval.datasets.dataset import Dataset
from fieldscope.eval.datasets.mbeir import load_mbeir
from fieldscope.eval.datasets.mbeir_files import read_instructions
from fieldscope.eval.datasets.mbeir_tasks import MULTI_MODAL, SINGLE_MODAL, TASKS
from fieldscope.eval.measures.scoring import score
from fieldscope.eval.reported import MODALITY_ACCURACY, TASK_HITS
from tests.eval.mbeir_files import change_line, write, write_mbeir


def loaded(root: Path, **choices: str) -> Dataset:
    return load_mbeir(root, None, choices)


def ranking(dataset: Dataset, query: str, *documents: str) -> RerankResult:
    """A ranking as the agent makes it, with what each document is."""
    images = dataset.benchmark.images
    return RerankResult(
        query_id=query,
        query_text="",
        strategy="clip",
        ranking=tuple(
            RankedCandidate(image_id=did, rank=n, score=-n, prior=-n, prior_rank=n, modality=modality_of(images, did))
            for n, did in enumerate(documents, start=1)
        ),
    )


def test_sixteen_tasks_have_the_papers_types_and_depths() -> None:
    assert len(TASKS) == 16
    assert sorted({task.type for task in TASKS.values()}) == list(range(1, 9))
    assert {name for name, task in TASKS.items() if task.cutoff == 10} == {
        "fashion200k_task0",
        "fashion200k_task3",
        "fashioniq_task7",
    }
    assert sum(task.family == SINGLE_MODAL for task in TASKS.values()) == 10


def test_queries_pools_judgments_and_instructions_are_read(tmp_path: Path) -> None:
    write_mbeir(tmp_path)
    dataset = loaded(tmp_path)
    benchmark = dataset.benchmark
    query = next(query for query in benchmark.queries if query.id == "8:11")
    assert query.text == "Query 1 of cirr_task7."
    assert query.instruction == "Find it for cirr_task7."
    assert query.wanted == "image"
    assert query.reference_image == "query:mbeir_images/cirr_task7/query1.png"
    assert benchmark.images.load(query.reference_image).size == (16, 16)
    assert dataset.galleries["cirr_task7"] == ("8:11", "8:12", "8:13", "8:14")
    assert benchmark.qrels["8:11"] == {"8:11": 1}
    assert text_of(benchmark.images, "2:21") == "Candidate 1 of webqa_task2."
    assert modality_of(benchmark.images, "2:21") == "image,text"
    assert "13 of M-BEIR's 16 tasks have no file" in benchmark.oddities[0]


def test_the_union_pool_is_one_gallery_of_mapped_vectors(tmp_path: Path) -> None:
    write_mbeir(tmp_path)
    dataset = loaded(tmp_path, pool="union", task="cirr_task7")
    assert len(dataset.galleries["union"]) == 12
    assert dataset.index_kind == "mapped"
    assert dataset.gallery_of == {"8:11": "union", "8:12": "union"}


def test_an_instruction_is_chosen_by_its_number_and_blank_ones_do_not_count(tmp_path: Path) -> None:
    write_mbeir(tmp_path)
    assert loaded(tmp_path, task="cirr_task7", instruction="3").benchmark.queries[0].instruction == "Fourth!"
    assert loaded(tmp_path, task="cirr_task7", instruction="none").benchmark.queries[0].instruction is None
    with pytest.raises(BenchmarkError, match=r"query_instructions.tsv: prompt_4: cirr_task7 .* has 3 instructions"):
        loaded(tmp_path, task="cirr_task7", instruction="4")


def test_a_modality_of_both_is_one_key_and_is_never_split_at_its_comma(tmp_path: Path) -> None:
    folder = write_mbeir(tmp_path)
    listed = read_instructions(folder / "instructions/query_instructions.tsv")
    both: Modality = "image,text"
    assert set(listed) == {("9", "text", "image"), ("8", both, "image"), ("2", "text", both)}


def test_recall_is_whether_any_positive_is_found_by_the_tasks_own_depth(tmp_path: Path) -> None:
    folder = write_mbeir(tmp_path, ("mscoco_task0", "fashioniq_task7"))
    write(folder / "qrels/test/mbeir_mscoco_task0_test_qrels.txt", ["9:1 0 9:3 1 0", "9:1 0 9:4 1 0", "9:2 0 9:1 1 0"])
    dataset = loaded(tmp_path, pool="union")
    others = [f"7:{number}" for number in (13, 14)]
    results = {
        "9:1": ranking(dataset, "9:1", "9:1", "9:2", "9:3", *others),  # two positives, one of them at rank 3
        "9:2": ranking(dataset, "9:2", "9:2", "9:3", "9:4", *others, "9:1"),  # at rank 6: too deep for MSCOCO
        "7:11": ranking(dataset, "7:11", "9:1", "9:2", "9:3", "9:4", *others, "7:11"),  # at rank 7: a fashion set
        "7:12": ranking(dataset, "7:12", "7:12"),
    }
    scores = score(dataset.benchmark, results)
    assert scores.values[TASK_HITS].tolist() == [1.0, 0.0, 1.0, 1.0]
    assert scores.values["recall@5"].tolist() == [0.5, 0.0, 0.0, 1.0]
    means, groups = scores.means(), scores.breakdowns()
    assert means[TASK_HITS] == pytest.approx((0.5 + 1.0) / 2)
    assert groups["average"][SINGLE_MODAL][TASK_HITS] == 0.5
    assert groups["average"][MULTI_MODAL][TASK_HITS] == 1.0
    assert groups["type"].keys() == {"1 text -> image", "7 image,text -> image"}


def test_a_mean_counts_each_task_alike_however_many_queries_it_has(tmp_path: Path) -> None:
    write_mbeir(tmp_path, ("mscoco_task0", "cirr_task7"))
    dataset = loaded(tmp_path)
    results = {
        "9:1": ranking(dataset, "9:1", "9:2"),
        "9:2": ranking(dataset, "9:2", "9:1"),
        "8:11": ranking(dataset, "8:11", "8:11"),
    }
    assert score(dataset.benchmark, results).means()[TASK_HITS] == 0.5


def test_modality_accuracy_looks_at_the_best_document_alone(tmp_path: Path) -> None:
    write_mbeir(tmp_path, ("mscoco_task0", "mscoco_task3"))
    dataset = loaded(tmp_path, pool="union")
    results = {
        "9:1": ranking(dataset, "9:1", "9:12", "9:1"),  # a text first, where an image is wanted
        "9:2": ranking(dataset, "9:2", "9:1", "9:12"),
        "9:11": ranking(dataset, "9:11", "9:12"),
    }
    scores = score(dataset.benchmark, results)
    assert scores.values[MODALITY_ACCURACY].tolist() == [0.0, 1.0, 1.0]
    assert scores.values[TASK_HITS][0] == 1.0


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ('"a dog"', "A dog."),
        ("is it red?", "Is it red?"),
        (None, ""),
        ("  a\r\nb ", "A\nb."),
        ("Wow!", "Wow!"),
    ],
)
def test_texts_are_normalised(text: str | None, normal: str) -> None:
    assert normalised_text(text) == normal


QUERIES = "query/test/mbeir_cirr_task7_test.jsonl"
POOL = "cand_pool/local/mbeir_cirr_task7_cand_pool.jsonl"


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        (QUERIES, {"qid": "cirr-1"}, r"test.jsonl, line 1: qid: "),
        (QUERIES, {"qid": "9:1"}, r"line 1: qid: '9:1' is not of cirr, whose ids begin with 8"),
        (QUERIES, {"query_modality": "text,image"}, r"line 1: query_modality: "),
        (QUERIES, {"query_modality": "image"}, r"line 1: query_modality: 'image', where cirr_task7 has 'image,text'"),
        (QUERIES, {"query_txt": None}, r"line 1: query_txt: it does not go with"),
        (QUERIES, {"query_img_path": None}, r"line 1: query_img_path: it does not go with"),
        (QUERIES, {"query_img_path": "../x.png"}, r"not below its folder"),
        (QUERIES, {"task_id": 0}, r"line 1: task_id: 0, where the file is of task 7"),
        (QUERIES, {"pos_cand_list": "8:11"}, r"line 1: pos_cand_list"),
        (POOL, {"did": 11}, r"pool.jsonl, line 1: did: "),
        (POOL, {"modality": "image,text"}, r"line 1: modality: it says 'image,text', and the document is 'image'"),
        (POOL, {"img_path": None}, r"line 1: txt: it has neither"),
        (POOL, {"img_path": "/etc/x.png"}, r"line 1: img_path: '/etc/x.png' is not a path below"),
        (POOL, {"did": "8:2"}, r"line 2: did: '8:2' occurs twice"),
        (POOL, {"did": "8:99"}, r"cirr_task7_test_qrels.txt: did: '8:1', a positive of 8:1, is not in mbeir_cirr"),
    ],
)
def test_a_wrong_line_is_refused_by_file_line_and_field(
    tmp_path: Path, file: str, changes: Mapping[str, Any], named: str
) -> None:
    folder = write_mbeir(tmp_path, ("cirr_task7",))
    change_line(folder / file, changes)
    with pytest.raises(BenchmarkError, match=named) as refused:
        loaded(tmp_path, task="cirr_task7")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("8:1 0 8:1 1", r"qrels.txt, line 1: task_id: 4 columns; M-BEIR's judgments have five"),
        ("8:1 0 8:1 1 0", r"line 1: task_id: 0, where the file is of task 7"),
        ("8:1 0 8:1 yes 7", r"line 1: relevance: "),
        ("8:77 0 8:1 1 7", r"line 1: qid: '8:77' is no query of cirr_task7"),
        ("8:1 0 x 1 7", r"line 1: did: "),
    ],
)
def test_judgments_have_five_columns(tmp_path: Path, line: str, named: str) -> None:
    folder = write_mbeir(tmp_path, ("cirr_task7",))
    write(folder / "qrels/test/mbeir_cirr_task7_test_qrels.txt", [line])
    with pytest.raises(BenchmarkError, match=named):
        loaded(tmp_path, task="cirr_task7")


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (
            ["query_modality\tcand_modality\tdataset_id", "text\timage\t9"],
            r"line 1: dataset_name: the column is missing",
        ),
        (None, r"line 2: cand_modality: 'picture' is none of text, image and image,text"),
    ],
)
def test_wrong_instructions_are_refused(tmp_path: Path, lines: list[str] | None, named: str) -> None:
    folder = write_mbeir(tmp_path, ("cirr_task7",))
    path = folder / "instructions/query_instructions.tsv"
    write(path, lines or [path.read_text().splitlines()[0], "text\tpicture\tCIRR\t8\tFind it."])
    with pytest.raises(BenchmarkError, match=named):
        loaded(tmp_path, task="cirr_task7")


def test_missing_files_and_pictures_are_named(tmp_path: Path) -> None:
    folder = write_mbeir(tmp_path, ("cirr_task7",))
    (folder / "mbeir_images/cirr_task7/3.png").unlink()
    assert "1 of 4 images have no file" in loaded(tmp_path, task="cirr_task7").benchmark.oddities[0]
    (folder / "mbeir_images/cirr_task7/query1.png").unlink()
    with pytest.raises(BenchmarkError, match="1 reference images have no file"):
        loaded(tmp_path, task="cirr_task7")
    (folder / "qrels/test/mbeir_cirr_task7_test_qrels.txt").unlink()
    with pytest.raises(BenchmarkError, match=r"has none of qrels/test/mbeir_cirr_task7_test_qrels\.txt"):
        loaded(tmp_path, task="cirr_task7")
