"""Training: what is mined, what a step sees, and that interrupted training goes on to the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fieldscope.core.compat import prepare_torchvision
from fieldscope.core.documents import Modality
from fieldscope.core.errors import ConfigError
from fieldscope.retrieval.document_lines import Document
from fieldscope.retrieval.documents import DocumentsCollection
from fieldscope.retrieval.training.batches import Source, draw_batch
from fieldscope.retrieval.training.mining import Mined, Negative, mine, read_mined, write_mined
from fieldscope.retrieval.training.queries import TrainingQuery, TrainingSet

prepare_torchvision()

import torch  # noqa: E402 - torchvision underneath must be prepared first

from fieldscope.retrieval.training.loop import Schedule, run_steps  # noqa: E402

KINDS: tuple[Modality, ...] = ("text", "image", "image,text")


def query(number: int, positives: Sequence[str], wanted: Modality = "text") -> TrainingQuery:
    return TrainingQuery(f"q{number}", "task", f"query {number}", None, wanted, tuple(positives), ("a", "b"))


@pytest.fixture
def training(tmp_path: Path) -> TrainingSet:
    """Ten queries over twenty texts; the first two share a positive."""
    documents = {f"d{n}": Document(id=f"d{n}", text=f"text {n}") for n in range(20)}
    queries = tuple(query(n, [f"d{n}"] if n > 1 else ["d0", "d1"]) for n in range(10))
    return TrainingSet("texts", queries, tuple(documents), DocumentsCollection(documents, tmp_path))


def test_negatives_are_of_the_wrong_modality_above_the_positive_or_of_the_right_one_below_rank_45() -> None:
    ranked = [f"d{rank}" for rank in range(1, 61)]
    modality: dict[str, Modality] = {each: KINDS[rank % 3] for rank, each in enumerate(ranked, start=1)}
    mined = mine(query(1, ["d7", "d48"], "text"), ranked, modality)
    assert mined.positive_rank == 7
    assert [each.rank for each in mined.wrong_modality] == [1, 2, 4, 5]
    assert {each.modality for each in mined.wrong_modality} == {"image", "image,text"}
    assert mined.right_modality == ()  # ranks 48 and 51 are texts: a positive, and too far down
    absent = mine(query(1, ["d60"], "image"), ranked, modality)
    assert absent.positive_rank is None
    assert len(absent.wrong_modality) == 33  # all of the 50 that are no pictures
    assert [each.rank for each in absent.right_modality] == [46, 49]


def test_negatives_are_read_as_they_were_written_and_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "negatives.jsonl"
    negative = Negative(document="d1", rank=1, modality="image")
    mined = Mined(query="q", task="t", positive_rank=None, wrong_modality=(negative,))
    write_mined(path, [mined])
    assert read_mined(path) == {"q": mined}
    path.write_text('{"query": 1}\n')
    with pytest.raises(ConfigError, match="remove it, and rerun"):
        read_mined(path)


def test_a_batch_follows_from_seed_and_step_and_each_round_has_every_query_once(training: TrainingSet) -> None:
    batches = [draw_batch([Source(training)], 5, (0, 1), step) for step in range(2)]
    assert batches[0] == batches[0] and repr(batches[0]) == repr(draw_batch([Source(training)], 5, (0, 1), 0))
    asked = [reading.text for batch in batches for reading in batch.queries]
    assert sorted(asked) == sorted(each.text for each in training.queries)
    assert repr(draw_batch([Source(training)], 5, (1, 1), 0)) != repr(batches[0])


def test_other_positives_of_a_query_are_no_negatives_and_mined_ones_come_into_the_batch(training: TrainingSet) -> None:
    batch = draw_batch([Source(training)], 10, (0, 1), 0)
    for row, reading in enumerate(batch.queries):
        own = next(each for each in training.queries if each.text == reading.text)
        ignored = {batch.documents[at].text for at in np.flatnonzero(batch.ignored[row])}
        positive = batch.documents[batch.positives[row]].text
        assert positive in {training.document(each).text for each in own.positives}
        assert ignored == {d.text for d in batch.documents} & {
            training.document(each).text for each in own.positives
        } - {positive}
    negative = Negative(document="d19", rank=46, modality="text")
    mined = {
        each.id: Mined(query=each.id, task="t", positive_rank=1, right_modality=(negative,))
        for each in training.queries
    }
    assert "text 19" in {each.text for each in draw_batch([Source(training, mined)], 10, (0, 1), 0).documents}


class StopHereError(Exception):
    """Where a test interrupts training."""


def test_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    def trained(folder: Path, stop: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        module = torch.nn.ModuleDict({"used": torch.nn.Linear(4, 3), "idle": torch.nn.Linear(2, 2)})

        def loss_of(step: int) -> torch.Tensor:
            if step == stop:
                raise StopHereError
            inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            found: torch.Tensor = module["used"](inputs).square().mean()
            return found

        run_steps(module, loss_of, Schedule(20, 0.1, 3), folder / "checkpoint.safetensors", "s", lambda *_: None)
        return module.state_dict()

    whole = trained(tmp_path / "whole", None)
    for stop in (2, 7, 13):
        with pytest.raises(StopHereError):
            trained(tmp_path / "stopped", stop)
    resumed = trained(tmp_path / "stopped", None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    other = torch.nn.Linear(1, 1)
    with pytest.raises(ConfigError, match="other settings"):
        run_steps(
            other, lambda _: other.weight.sum(), Schedule(1, 0.1), tmp_path / "whole/checkpoint.safetensors", "t", print
        )
