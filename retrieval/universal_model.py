"""The universal retriever: what a frozen CLIP makes of words and a picture, and a small transformer's correction of it.

The correction reads the instruction, the words and the picture's patches together, so that it can tell what is wanted
and put a question and a picture into one vector. It begins at nothing: an untrained one leaves CLIP's sum as it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import tokenizers
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fieldscope.core.errors import ConfigError, first_line
from fieldscope.core.files import replacing
from fieldscope.retrieval.clip import ClipEncoder
from fieldscope.retrieval.model_folder import UNIVERSAL

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
CLIP = "clip"
"""The folder, below the model's, of the CLIP that it corrects."""

_PAD, _UNKNOWN = "<pad>", "<unk>"
_CLIP_FILES = ("*.json", "*.safetensors", "*.txt")


class UniversalConfig(BaseModel):
    """The shape of the correction. `context` is how many tokens an instruction and words may have together; a picture's
    patches are pooled to a grid of `grid` x `grid`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(ge=1)
    patch_width: int = Field(ge=1)
    words: int = Field(ge=2)
    width: int = Field(default=128, ge=8)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    context: int = Field(default=64, ge=4)
    grid: int = Field(default=4, ge=1)


@dataclass(frozen=True)
class Features:
    """A batch of n inputs: `words` (n, length) with `instructed` (n, length), which says what belongs to the
    instruction; 0 is padding. `summed` (n, dim) is CLIP's, `patches` (n, grid * grid, patch width), or None for inputs
    without a picture."""

    words: Tensor
    instructed: Tensor
    summed: Tensor
    patches: Tensor | None


class UniversalModel(nn.Module):
    """The correction. `forward` gives L2-normalised vectors, shape (n, dim)."""

    def __init__(self, config: UniversalConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.words = nn.Embedding(config.words, width)
        self.roles = nn.Embedding(3, width)  # words, instruction, patches
        self.places = nn.Embedding(config.context, width)
        self.patch_places = nn.Embedding(config.grid**2, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.patches = nn.Linear(config.patch_width, width)
        self.summed = nn.Linear(config.dim, width)
        for table in (self.words, self.roles, self.places, self.patch_places):
            nn.init.normal_(table.weight, std=0.1)
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.correction = nn.Linear(width, config.dim)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)

    def forward(self, features: Features) -> Tensor:
        length = features.words.shape[1]
        worded = self.words(features.words) + self.roles(features.instructed) + self.places.weight[:length]
        first = self.start + self.summed(features.summed)
        tokens = [first[:, None], worded]
        padded = [torch.zeros(len(first), 1, dtype=torch.bool), features.words == 0]
        if features.patches is not None:
            tokens.append(self.patches(features.patches) + self.roles.weight[2] + self.patch_places.weight)
            padded.append(torch.zeros(features.patches.shape[:2], dtype=torch.bool))
        read = self.layers(torch.cat(tokens, 1), src_key_padding_mask=torch.cat(padded, 1))
        return nn.functional.normalize(features.summed + self.correction(read[:, 0]), dim=-1)


@dataclass(frozen=True)
class Universal:
    """A retriever as it lies in a folder: the correction, its tokenizer, and the CLIP that it corrects."""

    model: UniversalModel
    tokenizer: tokenizers.Tokenizer
    clip: ClipEncoder
    clip_folder: Path

    @classmethod
    def start(cls, clip_folder: Path, texts: Iterable[str], seed: int) -> Self:
        """An untrained one over a CLIP in a folder, whose tokenizer knows the words of these texts. Raises
        `ConfigError`."""
        if not (clip_folder / "open_clip_config.json").is_file():
            raise ConfigError(f"{clip_folder} has no open_clip_config.json; give the folder of a CLIP for open_clip")
        clip, tokenizer = ClipEncoder.load(str(clip_folder)), fit_tokenizer(texts)
        torch.manual_seed(seed)
        width = clip.patch_width
        model = UniversalModel(UniversalConfig(dim=clip.dim, patch_width=width, words=tokenizer.get_vocab_size()))
        return cls(model, tokenizer, clip, clip_folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The one in a folder. Raises `ConfigError`; nothing is unpickled."""
        try:
            config = UniversalConfig.model_validate_json((folder / UNIVERSAL).read_bytes())
            model = UniversalModel(config)
            model.load_state_dict(load_file(folder / WEIGHTS))
            tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
        except (OSError, ValidationError, SafetensorError, RuntimeError) as error:
            raise ConfigError(
                f"can't load the retriever in {folder} ({first_line(error)}); copy or train it again"
            ) from error
        except Exception as error:
            raise ConfigError(f"can't read {folder / TOKENIZER} ({first_line(error)}); copy the file again") from error
        return cls(model, tokenizer, ClipEncoder.load(str(folder / CLIP)), folder / CLIP)

    def write(self, folder: Path) -> None:
        """Write the folder that `load` reads, the file that `load` looks for last."""
        (folder / CLIP).mkdir(parents=True, exist_ok=True)
        for pattern in _CLIP_FILES:
            for path in sorted(self.clip_folder.glob(pattern)):
                if not (folder / CLIP / path.name).exists():
                    with replacing(folder / CLIP / path.name) as partial:
                        shutil.copyfile(path, partial)
        with replacing(folder / TOKENIZER) as partial:
            self.tokenizer.save(str(partial))
        with replacing(folder / WEIGHTS) as partial:
            save_file({name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}, partial)
        with replacing(folder / UNIVERSAL) as partial:
            partial.write_text(json.dumps(self.model.config.model_dump(), indent=2) + "\n", encoding="utf-8")

    def tokens(self, instructions: Sequence[str], texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """`Features.words` and `Features.instructed` of inputs: the instruction first, then the words."""
        context = self.model.config.context
        rows = [
            (instruction.ids[: context // 2], text.ids)
            for instruction, text in zip(
                self.tokenizer.encode_batch(list(instructions)), self.tokenizer.encode_batch(list(texts)), strict=True
            )
        ]
        length = max(1, min(context, max(len(first) + len(then) for first, then in rows)))
        words, instructed = torch.zeros(2, len(rows), length, dtype=torch.long)
        for row, (first, then) in enumerate(rows):
            ids = [*first, *then][:length]
            words[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
            instructed[row, : len(first)] = 1
        return words, instructed

    def pooled(self, patches: Tensor) -> Tensor:
        """Patches (n, patches, width) of a square picture, pooled to (n, grid * grid, width)."""
        n, number, width = patches.shape
        side, grid = round(number**0.5), self.model.config.grid
        square = patches.transpose(1, 2).reshape(n, width, side, side)
        return nn.functional.adaptive_avg_pool2d(square, grid).reshape(n, width, grid**2).transpose(1, 2)


def fit_tokenizer(texts: Iterable[str], most: int = 30_000) -> tokenizers.Tokenizer:
    """A tokenizer with a token for each word of these texts, or for the most frequent ones: lower case, marks apart."""
    from tokenizers import models, normalizers, pre_tokenizers

    tokenizer = tokenizers.Tokenizer(models.WordLevel({_PAD: 0, _UNKNOWN: 1}, unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    counts: dict[str, int] = {}
    for text in texts:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            counts[word] = counts.get(word, 0) + 1
    ordered = sorted(counts, key=lambda word: (-counts[word], word))[: most - 2]
    vocabulary = {word: number for number, word in enumerate([_PAD, _UNKNOWN, *ordered])}
    tokenizer.model = models.WordLevel(vocabulary, unk_token=_UNKNOWN)
    return tokenizer
