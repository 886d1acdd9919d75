"""An evaluation by MTEB: the first stage retrieves, Fieldscope reranks, and the order is the command line's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

import fieldscope
from tests.adaptors.conftest import QUERY, Expected
from tests.clients.served import Served

mteb = pytest.importorskip("mteb", reason="the adaptors' environment is another one: make test-adaptors")

from datasets import Dataset  # noqa: E402
from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.models import EncoderProtocol, SearchProtocol  # noqa: E402

from fieldscope.service.adaptors.mteb import FieldscopeEncoder, FieldscopeReranker  # noqa: E402
from fieldscope.service.adaptors.served import Service  # noqa: E402

pytestmark = [pytest.mark.adaptors, pytest.mark.timeout(600)]


class Pictures(AbsTaskRetrieval):
    """One query over the pictures of `paths`."""

    paths: tuple[Path, ...] = ()
    matches: tuple[str, ...] = ()
    metadata = TaskMetadata(
        name="FieldscopePictures", description="Eight drawn pictures.", reference=None,
        dataset={"path": "none", "revision": "1"}, type="Any2AnyRetrieval", category="t2i",
        modalities=["text", "image"], eval_splits=["test"], eval_langs=["eng-Latn"], main_score="ndcg_at_10",
        date=None, domains=None, task_subtypes=None, license=None, annotations_creators=None, dialect=None,
        sample_creation=None, bibtex_citation="",
    )  # fmt: skip

    def load_data(self, num_proc: int | None = None, **options: Any) -> None:
        corpus = {
            "id": [path.name for path in self.paths],
            "image": [PILImage.open(path).convert("RGB") for path in self.paths],
        }
        self.dataset = {
            "default": {
                "test": RetrievalSplitData(
                    corpus=Dataset.from_dict(corpus),
                    queries=Dataset.from_dict({"id": ["q"], "text": [QUERY]}),
                    relevant_docs={"q": dict.fromkeys(self.matches, 1)},
                    top_ranked=None,
                )
            }
        }
        self.data_loaded = True


@pytest.fixture
def task(expected: Expected) -> Pictures:
    made = Pictures()
    made.paths, made.matches = tuple(expected.paths), tuple(expected.order[:2])
    return made


def predicted(folder: Path, task: Pictures) -> list[str]:
    """Document ids, best first."""
    (file,) = folder.rglob(f"*{task.metadata.name}*")
    scores = json.loads(file.read_text())["default"]["test"]["q"]
    return sorted(scores, key=lambda name: -scores[name])


def evaluate(model: Any, task: Pictures, folder: Path) -> float:
    result = mteb.evaluate(model, task, prediction_folder=folder, cache=None, overwrite_strategy="always")
    (scored,) = result.task_results
    main: float = scored.get_score()
    return main


@pytest.mark.parametrize("how", ["in this process", "by a service"])
def test_the_first_stage_retrieves_and_fieldscope_reranks(
    reranker: fieldscope.Reranker, served: Served, expected: Expected, task: Pictures, tmp_path: Path, how: str
) -> None:
    encoder = FieldscopeEncoder()
    assert isinstance(encoder, EncoderProtocol)
    first = evaluate(encoder, task, tmp_path / "first")
    by_prior = sorted(expected.reranked, key=lambda entry: entry["prior_rank"])
    assert predicted(tmp_path / "first", task) == [entry["image"] for entry in by_prior]
    ranker = reranker if how == "in this process" else Service(served.url, explain=len(expected.reasons))
    model = FieldscopeReranker(ranker, name="agent")
    assert isinstance(model, SearchProtocol)
    second = evaluate(model, task.convert_to_reranking(tmp_path / "first", top_k=20), tmp_path / "second")
    assert predicted(tmp_path / "second", task) == expected.order
    assert {name: model.reasons["q"][name] for name in expected.reasons} == expected.reasons
    assert second == 1.0 >= first


def test_a_task_without_candidates_is_refused(reranker: fieldscope.Reranker, task: Pictures, tmp_path: Path) -> None:
    with pytest.raises(fieldscope.ConfigError, match="convert_to_reranking"):
        evaluate(FieldscopeReranker(reranker), task, tmp_path)
