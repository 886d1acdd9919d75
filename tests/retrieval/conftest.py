"""A real open_clip model of the bundled one's kind, only smaller and untrained, and folders of pictures to index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image as PILImage
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from fieldscope.core.compat import prepare_torchvision
from fieldscope.retrieval.clip import ClipEncoder

prepare_torchvision()

import open_clip  # noqa: E402 - torchvision underneath must be prepared first
import torch  # noqa: E402

WORDS = ("a", "the", "two", "red", "blue", "crab", "crabs", "fish", "on", "in", "beach", "rain")
CONTEXT = 16


def write_clip(folder: Path, seed: int = 0, pixel_mean: float = 0.5) -> Path:
    """A checkpoint folder as `ClipEncoder.load` takes it: configuration, float16 weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = {
        "model_cfg": {
            "embed_dim": 24,
            "vision_cfg": {"image_size": 28, "patch_size": 14, "width": 64, "layers": 1, "head_width": 32},
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": len(vocabulary),
                "hf_tokenizer_name": "local",
                "width": 32,
                "heads": 2,
                "layers": 1,
                "pad_id": 0,
                "eos_id": 2,
                "pool_type": "eos",
            },
        },
        "preprocess_cfg": {"size": 28, "mean": [pixel_mean] * 3, "std": [0.5] * 3, "resize_mode": "squash"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    model = open_clip.CLIP(**config["model_cfg"])
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def clip(clip_folder: Path) -> ClipEncoder:
    return ClipEncoder.load(str(clip_folder))


@pytest.fixture(scope="session")
def other_clip(tmp_path_factory: pytest.TempPathFactory) -> ClipEncoder:
    """The same architecture with other weights."""
    return ClipEncoder.load(str(write_clip(tmp_path_factory.mktemp("other"), seed=1)))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine sound pictures, three of them in a folder below, one broken, and a text file."""
    root = tmp_path / "photos"
    (root / "below").mkdir(parents=True)
    for number in range(9):
        folder = root / "below" if number >= 6 else root
        PILImage.new("RGB", (30 + number, 20), (number * 25, 255 - number * 25, 90)).save(folder / f"{number}.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (root / "notes.txt").write_text("not for us")
    return root
