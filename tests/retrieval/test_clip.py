"""ClipEncoder against open_clip itself, on a small real model."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Query, Turn
from fieldscope.retrieval.clip import ClipEncoder
from fieldscope.retrieval.encoder import QueryInputs, inputs_of


def pictures(count: int) -> list[PILImage.Image]:
    noise = np.random.default_rng(0).integers(0, 255, (count, 40, 50, 3), dtype=np.uint8)
    return [PILImage.fromarray(pixels) for pixels in noise]


def text(words: str) -> QueryInputs:
    return QueryInputs(words)


def test_vectors_are_what_open_clip_computes(clip_folder: Path) -> None:
    encoder = ClipEncoder.load(str(clip_folder), batch_size=2)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{clip_folder}")
    images = pictures(5)
    with torch.inference_mode():
        expected_images = model.eval().encode_image(torch.stack([preprocess(i) for i in images]), normalize=True)
        expected_text = model.encode_text(tokenize(["two red crabs"]), normalize=True)[0]
    np.testing.assert_allclose(encoder.encode_images(images), expected_images.numpy(), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_query(text("Two RED crabs")), expected_text.numpy(), atol=1e-6)


def test_vectors_have_length_one_and_the_declared_shape(clip: ClipEncoder) -> None:
    vectors = clip.encode_images(pictures(3))
    assert vectors.shape == (3, clip.dim) == (3, 24) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    query = clip.encode_query(QueryInputs("a fish in the rain", instruction="ignored"))
    assert query.shape == (24,) and query.dtype == np.float32
    assert np.linalg.norm(query) == pytest.approx(1, abs=1e-6)
    assert clip.encode_images([]).shape == (0, 24)


def test_texts_are_told_apart_and_long_ones_cut(clip: ClipEncoder) -> None:
    assert not np.allclose(clip.encode_query(text("red crab")), clip.encode_query(text("blue crab")))
    long = clip.encode_query(text("red crab " * 100))
    assert np.isfinite(long).all() and np.allclose(long, clip.encode_query(text("red crab " * 200)))


def test_progress_counts_images(clip_folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    ClipEncoder.load(str(clip_folder), batch_size=2).encode_images(pictures(5), lambda *report: seen.append(report))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_queries_from_many_threads(clip: ClipEncoder) -> None:
    texts = [text(f"{word} crab" * (1 + n)) for n in range(8) for word in ("red", "blue")]
    expected = [clip.encode_query(query) for query in texts]
    with ThreadPoolExecutor(8) as pool:
        for vector, wanted in zip(pool.map(clip.encode_query, texts), expected, strict=True):
            np.testing.assert_allclose(vector, wanted, atol=1e-6)


def test_the_fingerprint_is_the_whole_encoder(clip_folder: Path, clip: ClipEncoder, tmp_path: Path) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    assert ClipEncoder.load(f"local-dir:{copy}").fingerprint == clip.fingerprint
    (copy / "README.md").write_text("A card changes nothing.")
    assert ClipEncoder.load(str(copy)).fingerprint == clip.fingerprint
    for name, old, new in (
        ("open_clip_config.json", '"mean": [0.5', '"mean": [0.25'),
        ("tokenizer.json", '"crab"', '"crib"'),
    ):
        changed = shutil.copytree(clip_folder, tmp_path / name)
        content = (changed / name).read_text()
        assert old in content
        (changed / name).write_text(content.replace(old, new))
        assert ClipEncoder.load(str(changed)).fingerprint != clip.fingerprint


def test_other_weights_have_another_fingerprint(clip: ClipEncoder, other_clip: ClipEncoder) -> None:
    assert clip.fingerprint != other_clip.fingerprint


def test_a_reference_image_is_refused(clip: ClipEncoder) -> None:
    with pytest.raises(ConfigError, match="the query has a reference image"):
        clip.encode_query(QueryInputs("on snow", image=pictures(1)[0]))


def test_a_dialogue_is_its_text_and_its_answers(clip: ClipEncoder) -> None:
    turns = (Turn(question="which colour?", answer="red"), Turn(question="where is it?", answer="on the beach"))
    spoken = clip.encode_query(inputs_of(Query(id="d", text="a crab", dialogue=turns)))
    np.testing.assert_array_equal(spoken, clip.encode_query(text("a crab, red, on the beach")))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nonsense", "neither a folder nor MODEL:PRETRAINED"),
        ("local-dir:/nowhere", "neither a folder nor MODEL:PRETRAINED"),
        ("ViT-B-23:openai", "unknown CLIP model 'ViT-B-23'; did you mean ViT-B-32"),
        ("ViT-B/32:opnai", "unknown ViT-B-32 weights 'opnai' .did you mean 'openai'"),
    ],
)
def test_names_that_mean_nothing_say_so(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ClipEncoder.load(name)


@pytest.mark.parametrize("missing", ["open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"])
def test_an_incomplete_folder_is_refused(clip_folder: Path, tmp_path: Path, missing: str) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    (copy / missing).unlink()
    with pytest.raises(ConfigError, match="can't load CLIP") as caught:
        ClipEncoder.load(str(copy))
    assert len(str(caught.value).splitlines()) == 1


def test_damaged_weights_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    weights = copy / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="can't load CLIP"):
        ClipEncoder.load(str(copy))


def test_weights_are_never_unpickled(clip_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    (copy / "open_clip_model.safetensors").unlink()

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"state_dict": Payload()}, copy / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="can't load CLIP"):
        ClipEncoder.load(str(copy))
    assert not (tmp_path / "owned").exists()
