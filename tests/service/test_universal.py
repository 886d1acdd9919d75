"""FieldNotes-Universal: eight types of tasks, and the same figures through M-BEIR's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from checks.universal import POOLS, compared
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.core.documents import modality_of
from fieldscope.core.errors import BenchmarkError, ConfigError
from fieldscope.eval.datasets.mbeir import load_mbeir
from fieldscope.eval.datasets.mbeir_tasks import TASKS
from fieldscope.eval.runs.read import read_results
from fieldscope.fieldnotes import universal
from fieldscope.fieldnotes.universal import load_universal
from fieldscope.fieldnotes.universal_records import UniversalSplit
from fieldscope.retrieval.encoder import QueryInputs, QueryPart, Vectors
from fieldscope.service.wiring import datasets
from fieldscope.service.wiring import universal as wiring
from fieldscope.service.wiring.benchmarks import open_workload
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.evaluate import EvaluationPlan, evaluate_benchmark
from fieldscope.service.workflows.evaluation_checks import document_flags
from fieldscope.service.workflows.rescore import rescore

NUMBER = 2


class Hashed:
    """An encoder of a vector for each word and each picture, which is the same wherever they stand."""

    fingerprint = "hashed"
    dim = 16
    uses: frozenset[QueryPart] = frozenset({"text"})

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        return _unit(sum((_drawn(word.encode()) for word in inputs.text.lower().split()), _drawn(b"")))

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        return np.stack([_unit(_drawn(image.tobytes())) for image in images])


def _drawn(seed: bytes) -> Vectors:
    return np.random.default_rng(list(sha256(seed).digest())).normal(size=16).astype(np.float32)


def _unit(vector: Vectors) -> Vectors:
    unit: Vectors = vector / np.linalg.norm(vector)
    return unit


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> UniversalSplit:
    """A split of two queries a task, whose scenes are squares of one colour."""
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(universal, "SIZES", {"validation": NUMBER})
    load_universal.cache_clear()
    split = load_universal("validation")
    files = {}
    for key in split.scenes:
        files[key] = tmp_path / f"{key}.png"
        PILImage.new("RGB", (4, 4), f"#{key[:6]}").save(files[key])
    monkeypatch.setattr(wiring, "_files", lambda name, data: files)
    monkeypatch.setattr(datasets, "load_encoder", lambda settings: Hashed())
    yield split  # type: ignore[misc]
    load_universal.cache_clear()


def test_every_type_has_queries_and_matches_in_a_pool_of_its_kind(small: UniversalSplit) -> None:
    assert {TASKS[query.task.name].type for query in small.queries} == set(range(1, 9))
    assert len(small.queries) == 8 * NUMBER
    dataset = wiring.universal_dataset("validation", {})
    for query in dataset.benchmark.queries:
        task = dataset.benchmark.protocol.groups[query.id][0]
        pool = dataset.galleries[dataset.gallery_of[query.id]]
        assert query.modality == TASKS[task].query
        assert {modality_of(dataset.benchmark.images, document) for document in pool} == {query.wanted}
        relevant = dataset.benchmark.qrels[query.id]
        assert relevant.keys() <= set(pool)
        assert 0 < len(relevant) < len(pool)
        assert query.instruction


@pytest.mark.parametrize("pool", POOLS)
def test_written_as_mbeir_it_gives_the_figures_of_the_native_set(
    small: UniversalSplit, tmp_path: Path, pool: str
) -> None:
    wiring.write_universal("validation", tmp_path / "M-BEIR")
    native, read = compared(tmp_path, "validation", pool, "any")
    assert native == read
    assert len(native) == 9
    assert {means["MA@1"] for means in native.values()} == {1.0} or pool == "union"


def test_the_files_hold_what_the_set_holds(small: UniversalSplit, tmp_path: Path) -> None:
    wiring.write_universal("validation", tmp_path)
    read = load_mbeir(tmp_path, "validation", {}).benchmark
    native = wiring.universal_dataset("validation", {}).benchmark
    assert {query.id: (query.text, query.instruction, query.wanted) for query in read.queries} == {
        query.id: (query.text, query.instruction, query.wanted) for query in native.queries
    }
    assert read.qrels == native.qrels
    assert read.oddities[0].startswith("8 of M-BEIR's 16 tasks have no file")


def test_a_strategy_about_pictures_is_refused_where_there_are_texts(small: UniversalSplit) -> None:
    workload = open_workload("fieldnotes-universal", "validation", Settings(encoder="any"))
    assert document_flags(workload, [load_strategy("clip"), load_strategy("true-false-fused")]) == ()
    with pytest.raises(ConfigError, match="fieldnotes-universal has texts, and yes-no asks about pictures"):
        document_flags(workload, [load_strategy("yes-no")])


def test_a_split_to_train_on_has_no_pools_of_tasks(small: UniversalSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        universal, "load_universal", lambda split: replace(small, pools={"union": tuple(small.documents)})
    )
    with pytest.raises(BenchmarkError, match="its tasks share one pool; add `--set pool=union`"):
        wiring.universal_dataset("training", {})
    assert wiring.universal_dataset("training", {"pool": "union"}).benchmark.queries


def test_pictures_with_texts_are_judged_by_the_picture_and_a_warning_says_so(small: UniversalSplit) -> None:
    choices = {"task": "edis_task2"}
    workload = open_workload("fieldnotes-universal", "validation", Settings(encoder="any"), choices=choices)
    (flag,) = document_flags(workload, [load_strategy("yes-no")])
    assert flag.startswith("yes-no: judged by their pictures")


def test_an_evaluation_of_all_types_asks_what_the_bundled_lmm_can_answer(small: UniversalSplit, tmp_path: Path) -> None:
    """And leaves the rest to the first stage: the run is finished, and ranking it again gives the same."""
    plan = EvaluationPlan("fieldnotes-universal", "validation", out=tmp_path / "runs")
    (run,) = evaluate_benchmark(plan, [load_strategy("true-false-fused", prompts="fieldnotes")], Settings()).runs
    results = read_results(run.out)
    beyond = {query.id for query in small.queries if TASKS[query.task.name].type in (2, 3, 5)}
    assert {query_id for query_id, result in results.items() if not result.asked} == beyond
    assert (run.unknown, run.ended) == (0, {})
    assert all(ranked.rank == ranked.prior_rank for query_id in beyond for ranked in results[query_id].ranking)
    counted = [flag for flag in run.flags if flag.startswith(f"on {NUMBER} of {8 * NUMBER} queries candidates that")]
    assert len(counted) == 3
    (again,) = rescore(run.out, (), None, False, tmp_path / "again")
    assert again.flags == run.flags
    for query_id, result in read_results(again.out).items():
        before = results[query_id]
        assert (result.ranking, result.verdicts, result.ended) == (before.ranking, before.verdicts, None)


def test_the_set_is_always_the_same() -> None:
    load_universal.cache_clear()
    split = load_universal("validation")
    assert {name: len(pool) for name, pool in split.pools.items()} == {
        "mscoco_task0": 49,
        "webqa_task1": 54,
        "edis_task2": 56,
        "mscoco_task3": 47,
        "nights_task4": 54,
        "infoseek_task6": 32,
        "cirr_task7": 70,
        "infoseek_task8": 33,
    }
    words = "\n".join(f"{did} {each.text}" for did, each in split.documents.items())
    assert sha256(words.encode()).hexdigest()[:16] == "698905203eb40f32"
