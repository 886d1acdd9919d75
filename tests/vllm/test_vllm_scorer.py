"""A tiny random Qwen3-VL-Reranker under a real vLLM, as users serve one: scores, rankings, and the doctor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image as PILImage

from fieldscope.fieldnotes.vocabulary import MODELS
from fieldscope.retrieval.cross_encoder import CrossEncoderScorer
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.scorer import Document, ExplainingScorer, Scorer
from fieldscope.service.cli.main import cli
from fieldscope.service.wiring.models import load_scorer
from fieldscope.service.wiring.settings import Settings
from tests.vllm.server import AS_A_RERANKER, Server, serving
from tests.vllm.tiny_checkpoints import make

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

RED, BLUE = (PILImage.new("RGB", (64, 64), color) for color in ("red", "blue"))
QUERIES = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen3-vl-reranker", tmp_path_factory.mktemp("reranker"))


@pytest.fixture(scope="module")
def reranker(folder: Path) -> Iterator[Server]:
    template = ("--chat-template", str(folder / "chat_template.jinja"))
    with serving(folder, folder.parent / "server.log", *AS_A_RERANKER, *template) as server:
        yield server


@pytest.fixture(scope="module")
def served(reranker: Server) -> Scorer:
    return load_scorer(f"{reranker.url}#{reranker.model}", Settings())


def invoke(*arguments: str) -> Any:
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_its_scores_are_those_of_the_same_model_in_process(served: Scorer, folder: Path) -> None:
    local = CrossEncoderScorer.load(folder)
    documents: list[Document] = [RED, BLUE, "a crab on the beach", PILImage.new("RGB", (96, 64), "teal")]
    queries = [
        QueryInputs("a red crab"),
        QueryInputs("a red crab", instruction="Find what lies on snow."),
        QueryInputs("on snow", RED),
        QueryInputs("on snow", BLUE),
        QueryInputs("", BLUE),
    ]
    scores = [served.score(query, documents) for query in queries]
    for query, of_query in zip(queries, scores, strict=True):
        assert of_query == pytest.approx(local.score(query, documents), abs=1e-3)
    assert len({tuple(of_query) for of_query in scores}) == len(queries)  # each part of a query matters


def test_one_document_that_it_refuses_leaves_the_others(served: Scorer) -> None:
    assert isinstance(served, ExplainingScorer)
    good, long, other = served.ask(QueryInputs("a red crab"), [RED, "crab " * 5000, BLUE])
    assert good.value is not None and other.value is not None
    assert long.value is None and "4096" in (long.error or "")


def test_it_ranks_as_a_strategy_of_its_own_and_before_the_agent(reranker: Server, tmp_path: Path) -> None:
    shown = invoke(
        *("eval", "fieldnotes-rerank", "--split", "validation", "--limit", str(QUERIES)),
        *("--strategy", "cross-encoder", "cascade", "--max-calls", "20"),
        *("--scorer", f"{reranker.url}#{reranker.model}", "--out", str(tmp_path / "runs")),
        "--json",
    )
    summaries = {summary["strategy"]: summary for summary in shown["runs"]}
    assert summaries.keys() == {"cross-encoder", "cascade"}
    assert not summaries["cross-encoder"]["cost"]["calls"]
    for name in summaries:
        lines = (tmp_path / "runs" / name / "results.jsonl").read_text().splitlines()
        results = [json.loads(line) for line in lines]
        assert len(results) == QUERIES
        assert all(len(result["ranking"]) == len(result["scores"]) == 100 for result in results)
        assert all(0 < score["value"] < 1 for result in results for score in result["scores"])


def test_the_doctor_examines_it(reranker: Server) -> None:
    """A random model knows no answers. Whatever does not depend on them is in order."""
    result = CliRunner().invoke(cli, ["doctor", "--scorer", f"{reranker.url}#{reranker.model}", "--json"])
    states = {finding["name"]: finding["state"] for finding in json.loads(result.stdout)["findings"]}
    well = ("server", "every document", "same on repeat", "instruction")
    assert {name: states[name] for name in well} == dict.fromkeys(well, "ok"), result.output
    assert {states[name] for name in ("same in a batch", "order of documents")} <= {"ok", "warn"}  # a warning: rounding


def test_the_bundled_model_is_no_reranker() -> None:
    result = CliRunner().invoke(cli, ["doctor", "--scorer", f"path:{MODELS / 'lmm'}"])
    assert result.exit_code == 1 and "is no reranker of sentence-transformers" in result.stderr
