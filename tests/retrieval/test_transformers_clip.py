"""CLIP and SigLIP of transformers: the vectors of the reference calls, padding as SigLIP learned it, and refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from fieldscope.core.compat import prepare_torchvision
from fieldscope.core.errors import ConfigError
from fieldscope.retrieval.clip import ClipEncoder
from fieldscope.retrieval.encoder import QueryInputs, load_encoder
from fieldscope.retrieval.transformers_clip import TransformersClip
from tests.retrieval.tiny_models import LONGEST, change_json, make_clip, make_siglip, make_siglip2, tokenizer

prepare_torchvision()

import torch  # noqa: E402 - torchvision underneath must be prepared first
import transformers  # noqa: E402

TEXT = "two Red crabs"
MAKERS: dict[str, Callable[[Path], Path]] = {"clip": make_clip, "siglip": make_siglip, "siglip2": make_siglip2}


@pytest.fixture(scope="module", params=MAKERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_siglip(tmp_path_factory.mktemp("siglip"))


def pictures() -> list[PILImage.Image]:
    return [
        PILImage.new("RGB", size, color) for size, color in (((40, 30), "red"), ((28, 56), "blue"), ((9, 9), "teal"))
    ]


def reference(folder: Path, **inputs: Any) -> Any:
    """What transformers itself computes, of length 1."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    with torch.inference_mode():
        method = model.get_text_features if "text" in inputs else model.get_image_features
        features = method(**processor(**inputs, return_tensors="pt")).pooler_output
    return torch.nn.functional.normalize(features, dim=-1).numpy()


def test_texts_and_pictures_have_the_vectors_of_the_reference_call(folder: Path) -> None:
    encoder = load_encoder(f"path:{folder}")
    assert isinstance(encoder, TransformersClip) and encoder.uses == {"text"}
    padded = {"padding": "max_length", "max_length": LONGEST, "truncation": True}
    np.testing.assert_allclose(
        encoder.encode_query(QueryInputs(TEXT)), reference(folder, text=[TEXT], **padded)[0], atol=1e-6
    )
    vectors = encoder.encode_images(pictures())
    assert vectors.dtype == np.float32 and vectors.shape == (3, encoder.dim)
    np.testing.assert_allclose(
        vectors, np.concatenate([reference(folder, images=[one]) for one in pictures()]), atol=1e-5
    )
    assert encoder.encode_images([]).shape == (0, encoder.dim)


def test_siglip_reads_another_vector_where_the_text_is_not_padded(siglip: Path) -> None:
    ours = TransformersClip.load(siglip).encode_query(QueryInputs(TEXT))
    unpadded = reference(siglip, text=[TEXT])[0]
    assert float(ours @ unpadded) < 0.99
    np.testing.assert_allclose(
        ours, reference(siglip, text=[TEXT], padding="max_length", max_length=LONGEST)[0], atol=1e-6
    )


def test_the_checkpoints_tokenizer_decides_on_capitals(tmp_path: Path) -> None:
    lower = TransformersClip.load(make_siglip(tmp_path / "lower"))
    np.testing.assert_array_equal(
        lower.encode_query(QueryInputs("Red Crab")), lower.encode_query(QueryInputs("red crab"))
    )
    kept = make_siglip(tmp_path / "kept")
    tokenizer(lower_cases=False, model_input_names=["input_ids"]).save_pretrained(kept)
    encoder = TransformersClip.load(kept)
    assert not np.allclose(encoder.encode_query(QueryInputs("Red Crab")), encoder.encode_query(QueryInputs("red crab")))


def test_a_long_text_is_cut(folder: Path) -> None:
    encoder = TransformersClip.load(folder)
    assert np.isfinite(encoder.encode_query(QueryInputs("red crab " * 100))).all()


def test_queries_from_many_threads(siglip: Path) -> None:
    encoder = TransformersClip.load(siglip)
    queries = [QueryInputs("red crab " * (1 + number)) for number in range(16)]
    expected = [encoder.encode_query(query) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        for vector, alone in zip(pool.map(encoder.encode_query, queries), expected, strict=True):
            np.testing.assert_allclose(vector, alone, atol=1e-6)


def test_the_fingerprint_is_the_model_and_not_its_precision(siglip: Path, tmp_path: Path) -> None:
    fingerprint = TransformersClip.load(siglip).fingerprint
    copy = shutil.copytree(siglip, tmp_path / "copy")
    change_json(copy / "config.json", dtype="bfloat16", transformers_version="9.9")
    (copy / "README.md").write_text("A card changes nothing.")
    assert TransformersClip.load(copy).fingerprint == fingerprint
    for name, old, new in (
        ("processor_config.json", '"rescale_factor": 0.00392', '"rescale_factor": 0.00492'),
        ("tokenizer.json", '"crab"', '"crib"'),
        ("config.json", '"layer_norm_eps": 1e-06', '"layer_norm_eps": 1e-03'),
    ):
        changed = shutil.copytree(siglip, tmp_path / name)
        content = (changed / name).read_text()
        assert old in content
        (changed / name).write_text(content.replace(old, new))
        assert TransformersClip.load(changed).fingerprint != fingerprint, name
    assert TransformersClip.load(make_siglip(tmp_path / "seed", seed=1)).fingerprint != fingerprint


def test_a_reference_image_is_refused(siglip: Path) -> None:
    with pytest.raises(ConfigError, match="the query has a reference image"):
        TransformersClip.load(siglip).encode_query(QueryInputs("on snow", image=pictures()[0]))


def test_a_checkpoint_that_lacks_weights_is_refused(siglip: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(siglip, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["text_model.head.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks weights, text_model\.head\.weight"):
        TransformersClip.load(copy)


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json", "processor_config.json"])
def test_an_incomplete_folder_is_refused(siglip: Path, tmp_path: Path, missing: str) -> None:
    copy = shutil.copytree(siglip, tmp_path / "copy")
    (copy / missing).unlink()
    with pytest.raises(ConfigError) as caught:
        TransformersClip.load(copy)
    assert len(str(caught.value).splitlines()) == 1 and str(copy) in str(caught.value)


def test_pickled_weights_are_never_read(siglip: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(siglip, tmp_path / "copy")
    (copy / "model.safetensors").unlink()

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"weights": Payload()}, copy / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="a pickle that could run any code"):
        TransformersClip.load(copy)
    assert not (tmp_path / "owned").exists()


def test_what_lies_in_a_folder_decides(siglip: Path, clip_folder: Path, tmp_path: Path) -> None:
    assert isinstance(load_encoder(f"path:{clip_folder}"), ClipEncoder)
    assert isinstance(load_encoder(f"sentence-transformers:{siglip}"), TransformersClip)
    generating = shutil.copytree(siglip, tmp_path / "generating")
    change_json(generating / "config.json", architectures=["Qwen3VLForConditionalGeneration"])
    for folder, reason in (
        (generating, r"holds no encoder that is known here \(its config\.json names Qwen3VLForConditionalGeneration\)"),
        (tmp_path, "holds no encoder that is known here; give a folder with"),
        (tmp_path / "nowhere", "is no folder; give the folder of a model"),
        ("", "path: is no folder"),
    ):
        with pytest.raises(ConfigError, match=reason):
            load_encoder(f"path:{folder}")
    for name, reason in (("owner/model", "is neither a folder nor a model of the hub"), ("", "no model is named")):
        with pytest.raises(ConfigError, match=reason):
            load_encoder(f"sentence-transformers:{name}")
