"""Weights that were trained with QuickGELU are built with it, whatever name they are asked for under."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip import factory, pretrained
from open_clip.transformer import QuickGELU
from PIL import Image as PILImage

from fieldscope.core.errors import IndexMismatchError
from fieldscope.core.types import Query
from fieldscope.retrieval.clip import ClipEncoder
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import inputs_of
from fieldscope.retrieval.library import build_index, open_library
from fieldscope.retrieval.manifest import read_manifest
from tests.retrieval.conftest import write_clip

MODEL = "tiny-clip"
QUERY = Query(id="q", text="two red crabs")
QUICK, PLAIN = f"{MODEL}:quick", f"{MODEL}:plain"


@pytest.fixture(autouse=True)
def library_of_models(clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip's own registry with a small model of two sets of weights, of which one wants QuickGELU."""
    weights = clip_folder / "open_clip_model.safetensors"
    config = json.loads((clip_folder / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"]["hf_tokenizer_name"] = str(clip_folder)
    configs = {MODEL: config, f"{MODEL}-quickgelu": config | {"quick_gelu": True}}
    tags = {"quick": {"file": str(weights), "quick_gelu": True}, "plain": {"file": str(weights)}}
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", factory._MODEL_CONFIGS | configs)
    for name in configs:
        monkeypatch.setitem(pretrained._PRETRAINED, name, tags)


def activations(encoder: ClipEncoder) -> set[type[torch.nn.Module]]:
    kinds = (torch.nn.GELU, QuickGELU)
    return {type(module) for module in encoder._model.modules() if isinstance(module, kinds)}


def misbuilt(name: str) -> ClipEncoder:
    """The encoder as it is without a look at what its weights want."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pretrained._PRETRAINED[MODEL], "quick", pretrained._PRETRAINED[MODEL]["plain"])
        return ClipEncoder.load(name)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "activation"),
    [
        (QUICK, QuickGELU),
        (f"{MODEL}-quickgelu:quick", QuickGELU),
        (PLAIN, torch.nn.GELU),
    ],
)
def test_the_activation_is_what_the_weights_want(name: str, activation: type[torch.nn.Module]) -> None:
    assert activations(ClipEncoder.load(name)) == {activation}


@pytest.mark.parametrize(
    ("model", "tags"),
    [
        ("ViT-L-14", ["openai", "dfn2b"]),
        ("ViT-B-16", ["openai", "dfn2b"]),
        ("ViT-B-32", ["openai", "metaclip_400m"]),
        ("ViT-H-14-378", ["dfn5b"]),
    ],
)
def test_the_published_weights_named_in_inquire_are_built_so(
    model: str, tags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[bool] = []

    def create(*_: object, force_quick_gelu: bool, **__: object) -> None:
        wanted.append(force_quick_gelu)
        raise RuntimeError("no weights here")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    for name in (*(f"{model}:{tag}" for tag in tags), f"{model}-quickgelu:{tags[0]}", "ViT-B-32:laion2b_s34b_b79k"):
        with pytest.raises(Exception, match="no weights here"):
            ClipEncoder.load(name)
    assert wanted == [True] * len(tags) + [False, False]


def test_a_folder_is_built_as_its_configuration_says(clip_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / "quick")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    quick, plain = ClipEncoder.load(str(folder)), ClipEncoder.load(str(clip_folder))
    assert (activations(quick), activations(plain)) == ({QuickGELU}, {torch.nn.GELU})
    assert quick.fingerprint != plain.fingerprint
    assert quick.wrong_fingerprint is None


def test_only_what_was_built_wrongly_has_a_new_fingerprint() -> None:
    right, wrong = ClipEncoder.load(QUICK), misbuilt(QUICK)
    assert right.fingerprint == ClipEncoder.load(f"{MODEL}-quickgelu:quick").fingerprint
    assert right.fingerprint != wrong.fingerprint == right.wrong_fingerprint
    assert not np.allclose(right.encode_query(inputs_of(QUERY)), wrong.encode_query(inputs_of(QUERY)), atol=1e-4)
    plain = ClipEncoder.load(PLAIN)
    assert (plain.fingerprint, plain.wrong_fingerprint) == (wrong.fingerprint, None)


def test_an_index_of_the_wrong_build_is_refused_with_the_command_that_rebuilds_it(tmp_path: Path) -> None:
    photos, index = tmp_path / "my photos", tmp_path / "index"
    photos.mkdir()
    for number in range(3):
        PILImage.new("RGB", (30, 20), (80 * number, 90, 20)).save(photos / f"{number}.png")
    build_index(FolderCollection(photos), misbuilt(QUICK), index, encoder_name=QUICK)
    encoder = ClipEncoder.load(QUICK)
    with pytest.raises(IndexMismatchError) as refused:
        open_library(index, encoder)
    assert f"`fieldscope index '{photos}' -o {index} --encoder {QUICK}`" in str(refused.value)
    assert "QuickGELU" in str(refused.value) and len(str(refused.value).splitlines()) == 1

    report = build_index(FolderCollection(photos), encoder, index, encoder_name=QUICK)
    assert (report.indexed, report.encoded) == (3, 3)
    assert read_manifest(index).encoder_fingerprint == encoder.fingerprint
    vectors = encoder.encode_images([FolderCollection(photos).load(f"{number}.png") for number in range(3)])
    np.testing.assert_allclose(open_library(index, encoder).index.vectors, vectors, atol=1e-6)


def test_other_encoders_indexes_are_refused_as_before(tmp_path: Path, photos: Path) -> None:
    other = ClipEncoder.load(str(write_clip(tmp_path / "other", seed=3)))
    build_index(FolderCollection(photos), other, tmp_path / "index", encoder_name="other")
    with pytest.raises(IndexMismatchError, match="into another folder"):
        build_index(FolderCollection(photos), ClipEncoder.load(QUICK), tmp_path / "index")
