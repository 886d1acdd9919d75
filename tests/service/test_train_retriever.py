"""`fieldscope train-retriever` and `fieldscope distill` over a few coloured squares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image as PILImage

from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import RankedCandidate, RerankResult
from fieldscope.core.errors import BenchmarkError
from fieldscope.core.types import Query
from fieldscope.eval.datasets.mbeir_training import TRAINING_POOL, load_mbeir_training
from fieldscope.eval.runs.inputs import NAME as INPUTS
from fieldscope.eval.runs.inputs import input_lines
from fieldscope.eval.runs.read import COLLECTION
from fieldscope.eval.runs.runfolder import RunFolder
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.clip_sf import open_clip_sf
from fieldscope.retrieval.document_lines import Document
from fieldscope.retrieval.documents import DocumentsCollection
from fieldscope.retrieval.encoder import DocumentInputs, QueryInputs, encode_documents, load_encoder
from fieldscope.retrieval.training.mining import read_mined
from fieldscope.service.cli.main import cli
from tests.retrieval.conftest import write_clip
from tests.retrieval.tiny_models import make_clip
from tests.training_files import write_training_files

NAMES = ("a red crab", "a blue fish", "the rain")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_training_files(tmp_path / "data")


def run(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(cli, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_all_stages_leave_models_that_an_encoder_loads(data: Path, tmp_path: Path) -> None:
    out, clip = tmp_path / "out", write_clip(tmp_path / "clip")
    plan = ("--steps", 6, "--text-steps", 2, "--batch", 8)
    found = run("train-retriever", data, "-o", out, "--clip", clip, "--texts", data, *plan)
    assert [stage["name"] for stage in found["stages"]] == ["start", "random", "mined", "texts"]
    assert all(0 <= stage["figures"]["recall"] <= 1 for stage in found["stages"])
    mined = read_mined(out / "negatives-random-training.jsonl")
    counted = found["stages"][2]["mined"]
    assert counted["wrong_modality"] == sum(len(each.wrong_modality) for each in mined.values())
    assert counted["queries"] == len(mined) == 24
    square = PILImage.new("RGB", (24, 24), "red")
    document = [DocumentInputs("A red crab.", square)]
    start, mixed = (load_encoder(f"path:{out / stage}") for stage in ("start", "texts"))
    assert start.fingerprint != mixed.fingerprint and "instruction" in mixed.uses
    asked = QueryInputs("A red crab.", square, "Find a text of it.")
    assert np.isclose(np.linalg.norm(mixed.encode_query(asked)), 1, atol=1e-5)
    assert not np.allclose(mixed.encode_query(asked), mixed.encode_query(QueryInputs("A red crab.", square)))
    untouched = open_clip_sf(str(clip)).encode_images([square])
    np.testing.assert_allclose(start.encode_images([square]), untouched, atol=1e-5)
    assert start.encode_documents(document).shape == (1, start.dim)  # type: ignore[attr-defined]
    again = run("train-retriever", data, "-o", out, "--clip", clip, "--texts", data, *plan)
    assert again == found
    refused = CliRunner().invoke(cli, ["train-retriever", str(data), "-o", str(out), "--steps", "7"])
    assert refused.exit_code == 1 and "other settings" in refused.stderr


@pytest.mark.parametrize("lora", [(), ("--lora", 2)])
def test_a_clip_of_transformers_learns_as_clip_sf(data: Path, tmp_path: Path, lora: tuple[object, ...]) -> None:
    if lora:
        pytest.importorskip("peft")
    clip = make_clip(tmp_path / "clip")
    found = run("train-retriever", data, "-o", tmp_path / "out", "--from", clip, "--steps", 2, "--batch", 4, *lora)
    square, name = PILImage.new("RGB", (24, 24), "red"), found["stages"][-1]["folder"]
    before, after = (open_clip_sf(str(folder)).encode_images([square]) for folder in (clip, name))
    assert before.shape == after.shape and not np.allclose(before, after)


def test_wrong_lines_are_refused_by_file_line_and_field(data: Path) -> None:
    path = data / "query/train/mbeir_mscoco_train.jsonl"
    lines = path.read_text().splitlines()
    for change, complaint in (
        ({"pos_cand_list": []}, "line 1: pos_cand_list: 9:1 has no positive"),
        ({"pos_cand_list": ["9:99"]}, f"line 1: pos_cand_list: '9:99' is not in {TRAINING_POOL}"),
        ({"pos_cand_list": ["9:1", "2:1"]}, "line 1: pos_cand_list: '2:1' is not 'image', as '9:1' is"),
        ({"query_txt": None}, "line 1: query_txt: it does not go with the modality 'text'"),
        ({"qid": "9:2"}, "line 2: qid: '9:2' occurs twice"),
    ):
        path.write_text("\n".join([json.dumps(json.loads(lines[0]) | change), *lines[1:]]))
        with pytest.raises(BenchmarkError, match=r"mbeir_mscoco_train\.jsonl") as refused:
            load_mbeir_training(data, "training")
        assert complaint in str(refused.value)


@pytest.mark.parametrize("replayed", [False, True])
def test_a_retriever_learns_what_a_run_says(data: Path, tmp_path: Path, replayed: bool) -> None:
    """P(match) puts the last candidate first; after training the model does so, too, also beside other queries."""
    out, clip = tmp_path / "out", write_clip(tmp_path / "clip")
    run("train-retriever", data, "-o", out, "--clip", clip, "--steps", 1, "--batch", 4)
    pool = {f"c{n}": Document(id=f"c{n}", text=name) for n, name in enumerate(NAMES)}
    images = DocumentsCollection(pool, tmp_path)
    query = Query(id="q", text="two crabs", wanted="text")
    benchmark = Benchmark(name="notes", split="validation", queries=(query,), qrels={"q": {"c2": 1}}, images=images)
    described = {"name": "notes", "split": "validation", "fingerprint": "f"}
    folder = RunFolder(tmp_path / "judged", {"benchmark": described, "strategy": {"name": "s"}, "lmm": None})
    ranking = tuple(
        RankedCandidate(image_id=each, rank=rank, score=-rank, prior=0.5, prior_rank=rank, p_match=p)
        for rank, (each, p) in enumerate({"c2": 0.99, "c1": 0.02, "c0": 0.01}.items(), start=1)
    )
    folder.commit(RerankResult(query_id="q", query_text=query.text, strategy="s", ranking=ranking), {})
    folder.write(INPUTS, input_lines(benchmark, load_strategy("true-false-fused"), None))
    folder.write(COLLECTION, [json.dumps(images.locator())])
    folder.close()
    taught, replay = tmp_path / "distilled", ("--replay", data) if replayed else ()
    found = run("distill", folder.path, "--from", out / "start", "-o", taught, "--steps", 30, "--rate", 0.003, *replay)
    mined = taught / "negatives-start-replay.jsonl"
    assert mined.is_file() == replayed
    assert not replayed or len(read_mined(mined)) == 24
    encoder = load_encoder(f"path:{found['stages'][-1]['folder']}")
    documents = encode_documents(encoder, [DocumentInputs(pool[each].text or "") for each in pool])
    assert np.argmax(documents @ encoder.encode_query(QueryInputs(query.text))) == 2
    empty = CliRunner().invoke(cli, ["distill", str(data), "--from", str(out / "start"), "-o", str(tmp_path / "x")])
    assert empty.exit_code == 1 and "holds no run" in empty.stderr
