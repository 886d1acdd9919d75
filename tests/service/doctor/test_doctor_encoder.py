"""`doctor --encoder`: a healthy encoder passes, and each planted fault is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageOps

from fieldscope.core.errors import LMMConnectionError
from fieldscope.retrieval.encoder import QueryInputs, QueryPart, Vectors
from fieldscope.service.doctor.encoder.examine import examine_encoder
from fieldscope.service.doctor.finding import Finding
from tests.service.conftest import Run
from tests.service.doctor.planted import drawn, words
from tests.service.test_doctor import name_of

CHECKS = [
    *("encoder", "vectors", "one space", "edges seen", "same on repeat", "same in a batch"),
    *("instruction", "reference image"),
]
DIM = 16
Change = Callable[[Vectors], Vectors]


def same(vectors: Vectors) -> Vectors:
    return vectors


def axis(word: str) -> Vectors:
    """A direction for each word, of length 1."""
    vector = np.random.default_rng(int(1e6 * drawn(word))).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def meaning(text: str) -> Vectors:
    vector = sum((axis(word) for word in sorted(words(text))), np.zeros(DIM, dtype=np.float32))
    return vector / np.linalg.norm(vector)


@dataclass
class Fake:
    """An encoder that reads words and names shapes, but for what is given: changes of the vectors of texts and of
    images, one list of these at a time, and the parts of a query that it says it reads, and does. It may crop pictures
    to their middle square."""

    texts: Change = same
    images: Change = same
    says: frozenset[QueryPart] = frozenset({"text", "image", "instruction"})
    reads: frozenset[QueryPart] = frozenset({"text", "image", "instruction"})
    crops: bool = False
    dim: int = DIM
    fingerprint: str = "fake"

    @property
    def uses(self) -> frozenset[QueryPart]:
        return self.says

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        parts = [meaning(inputs.text)] if "text" in self.reads or inputs.image is None else []
        if inputs.image is not None and "image" in self.reads:
            parts.append(meaning(name_of(inputs.image)))
        if inputs.instruction and "instruction" in self.reads:
            parts.append(0.2 * meaning(inputs.instruction))
        vector = np.sum(parts, axis=0)
        return self.texts(vector / np.linalg.norm(vector))

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        shown = [ImageOps.fit(image, 2 * [min(image.size)]) if self.crops else image for image in images]
        return self.images(np.stack([meaning(name_of(image)) for image in shown]))


def rotated(vectors: Vectors) -> Vectors:
    """As another model's vectors, in a space of its own."""
    return np.roll(vectors, DIM // 2, axis=-1) * np.float32(1)


def jitter() -> Change:
    numbers = np.random.default_rng(1)

    def moved(vectors: Vectors) -> Vectors:
        moved = vectors + numbers.normal(scale=0.003, size=vectors.shape)
        return moved / np.linalg.norm(moved, axis=-1, keepdims=True)

    return moved


def mean_mixed(vectors: Vectors) -> Vectors:
    mixed = vectors + 0.2 * vectors.mean(axis=0)
    return mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)


def examined(fake: Fake) -> tuple[bool, dict[str, Finding]]:
    examination = examine_encoder(fake, "fake", lambda done, total: None)
    assert examination.identity == "fake"
    return examination.healthy, {finding.name: finding for finding in examination.findings}


@pytest.mark.parametrize(
    "fake", [Fake(), Fake(says=frozenset({"text"})), Fake(images=lambda vectors: vectors.astype(np.float16) * 1)]
)
def test_a_healthy_encoder_passes(fake: Fake) -> None:
    healthy, findings = examined(fake)
    assert healthy
    assert list(findings) == CHECKS
    assert {finding.state for finding in findings.values()} == {"ok"}, findings
    assert "shapes" in findings["one space"].seen


def test_an_encoder_that_is_shown_the_middle_of_pictures_is_told_of() -> None:
    healthy, findings = examined(Fake(crops=True))
    assert healthy
    assert [name for name, finding in findings.items() if finding.state != "ok"] == ["edges seen"]
    assert (
        "wide pictures with two ends are 0 and tall pictures with two ends are 0 apart" in findings["edges seen"].seen
    )
    assert "--tiles" in findings["edges seen"].change


@pytest.mark.parametrize("images", [lambda vectors: vectors * np.float32("nan"), lambda vectors: vectors * 0 + 1])
def test_vectors_that_tell_nothing_apart_do_not_say_that_edges_are_cut_off(images: Change) -> None:
    _, findings = examined(Fake(images=images))
    assert findings["edges seen"].state == "unknown"


FAULTS: dict[str, tuple[Fake, str, str]] = {
    "not normalised": (Fake(images=lambda vectors: 3 * vectors), "vectors", "lengths 1.000 to 3.000"),
    "one vector for all images": (
        Fake(images=lambda vectors: np.tile(axis("any"), (len(vectors), 1))), "vectors", "images have the same vector"
    ),
    "one vector for all texts": (Fake(texts=lambda vector: axis("any")), "vectors", "texts have the same vector"),
    "NaN": (Fake(images=lambda vectors: vectors * np.float32("nan")), "vectors", "NaN"),
    "another length": (Fake(dim=DIM + 1), "vectors", "the encoder says 17"),
    "two spaces": (Fake(images=rotated), "one space", "comparisons"),
    "jitter": (Fake(images=jitter()), "same on repeat", "apart over"),
    "order of images": (Fake(images=lambda vectors: vectors[::-1]), "same in a batch", "alone and in batches"),
    "depends on the batch": (Fake(images=mean_mixed), "same in a batch", "alone and in batches"),
    "instruction unread": (Fake(reads=frozenset({"text", "image"})), "instruction", "two instructions are 0 apart"),
    "image unread": (Fake(reads=frozenset({"text", "instruction"})), "reference image", "0 apart from the text's"),
    "text unread": (Fake(reads=frozenset({"image", "instruction"})), "reference image", "the image's"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    fake, check, seen = FAULTS[fault]
    healthy, findings = examined(fake)
    assert not healthy
    assert findings[check].state == "fail", findings
    assert seen in findings[check].seen
    assert findings[check].change


def test_an_encoder_that_does_not_answer_is_one_finding() -> None:
    def away(vectors: Vectors) -> Vectors:
        raise LMMConnectionError("http://localhost:1 is not there: start the server")

    healthy, findings = examined(Fake(images=away))
    assert not healthy
    assert list(findings) == ["encoder"]
    assert "start the server" in findings["encoder"].seen


def test_the_bundled_clip_passes_by_its_name(run: Run) -> None:
    result = run("doctor", "--encoder", "bundled", "--json")
    assert result.exit_code == 0
    examination = json.loads(result.stdout)
    assert (examination["encoder"], examination["healthy"], examination["probe"]) == ("bundled", True, "fieldnotes")
    assert [finding["name"] for finding in examination["findings"]] == CHECKS


def test_an_encoder_is_checked_alone(run: Run) -> None:
    result = run("doctor", "--encoder", "bundled", "--strategy", "agent")
    assert result.exit_code == 2
    assert "--encoder checks an encoder alone" in result.stderr


def test_an_unknown_encoder_is_an_error(run: Run) -> None:
    result = run("doctor", "--encoder", "nonsense")
    assert result.exit_code == 1
    assert "nonsense" in result.stderr
