"""CLIP through open_clip: any `model:pretrained` that it knows, or a checkpoint in a local folder."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from PIL import Image as PILImage

from fieldscope.core.compat import prepare_torchvision
from fieldscope.core.errors import ConfigError, first_line
from fieldscope.core.fingerprint import fingerprint, fingerprint_files
from fieldscope.core.validation import unknown_name
from fieldscope.retrieval.encoder import QueryInputs, QueryPart, Vectors, picture_refused
from fieldscope.retrieval.progress import Report

prepare_torchvision()

import open_clip  # noqa: E402 - torchvision underneath must be prepared first
import torch  # noqa: E402

T = TypeVar("T")

_LOCAL = "local-dir:"
_HUB = "hf-hub:"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
)


class ClipEncoder:
    """An open_clip model as an `Encoder`: inner products are cosine similarities, between -1 and 1.

    The model runs in float32 on a CPU, under float16 autocast on CUDA. The fingerprint covers weights, configuration
    with the activation, tokenizer and preprocessing, not the precision, so that an index made on a GPU is searched on a
    laptop.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        preprocess: Callable[[PILImage.Image], torch.Tensor],
        tokenize: Callable[[list[str]], torch.Tensor],
        *,
        dim: int,
        fingerprint: str,
        wrong_fingerprint: str | None = None,
        device: str | None = None,
        batch_size: int = 32,
    ) -> None:
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model: Any = model.eval().to(self._device)
        self._preprocess = preprocess
        self._tokenize = tokenize
        self._dim = dim
        self._fingerprint = fingerprint
        self._wrong_fingerprint = wrong_fingerprint
        self._batch_size = batch_size

    @classmethod
    def load(cls, name: str, *, device: str | None = None, batch_size: int = 32) -> Self:
        """Load `model:pretrained` (such as `ViT-B-32:laion2b_s34b_b79k`; after the colon a checkpoint file will do),
        `hf-hub:owner/model`, or a folder with `open_clip_config.json`, weights and, where the configuration names a
        tokenizer, the tokenizer's files. Weights that were trained with QuickGELU are built with it, whether or not the
        model's name says so. Raises `ConfigError`; weights are never unpickled.
        """
        model_name, pretrained = _parse_name(name)
        try:
            config = open_clip.get_model_config(model_name)
            lacks_quick_gelu = _lacks_quick_gelu(model_name, pretrained, config)
            model, _, preprocess = open_clip.create_model_and_transforms(
                model_name,
                pretrained,
                force_quick_gelu=lacks_quick_gelu,
                require_pretrained=True,
                weights_only=True,
            )
            tokenize = open_clip.get_tokenizer(model_name)
        except Exception as error:  # open_clip, transformers and the hub client raise all kinds of things
            raise ConfigError(
                f"can't load CLIP {name!r} ({first_line(error)}); give MODEL:PRETRAINED as open_clip lists them, or a"
                " folder with open_clip_config.json, weights and tokenizer"
            ) from error
        identity = {
            "weights": _weights_sha256(model),
            "config": config | {"quick_gelu": True} if lacks_quick_gelu else config,
            "preprocess": model.visual.preprocess_cfg,
            "tokenizer": _tokenizer_sha256(Path(model_name.removeprefix(_LOCAL))),
        }
        return cls(
            model,
            preprocess,
            tokenize,
            dim=config["embed_dim"],
            fingerprint=fingerprint(identity),
            wrong_fingerprint=fingerprint(identity | {"config": config}) if lacks_quick_gelu else None,
            device=device,
            batch_size=batch_size,
        )

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def wrong_fingerprint(self) -> str | None:
        """The fingerprint of these weights built with GELU where they were trained with QuickGELU, else None."""
        return self._wrong_fingerprint

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def uses(self) -> frozenset[QueryPart]:
        return frozenset({"text"})

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        """One L2-normalised vector, shape (dim,), of the words. Raises `ConfigError` for a reference image, which text
        alone would misread."""
        if inputs.image is not None:
            raise picture_refused("CLIP")
        vector: Vectors = _normalised(self._text_features([inputs.text]))[0]
        return vector

    def encode_images(self, images: Sequence[PILImage.Image], progress: Report | None = None) -> Vectors:
        """L2-normalised vectors, shape (len(images), dim), in the order given."""
        batches = [np.empty((0, self._dim), dtype=np.float32)]
        for start in range(0, len(images), self._batch_size):
            batch = images[start : start + self._batch_size]
            batches.append(_normalised(self._image_features(batch)))
            if progress is not None:
                progress(start + len(batch), len(images))
        return np.concatenate(batches)

    def text_features(self, texts: Sequence[str]) -> Vectors:
        """What the text tower makes of texts, not normalised, shape (len(texts), dim)."""
        return _stacked([self._text_features(each) for each in self._batches(texts)])

    def image_features(self, images: Sequence[PILImage.Image]) -> Vectors:
        """What the image tower makes of images, not normalised, shape (len(images), dim)."""
        return _stacked([self._image_features(each) for each in self._batches(images)])

    @property
    def patch_width(self) -> int:
        """Width of a patch's features (`patch_features`)."""
        return int(self.patch_features([PILImage.new("RGB", (16, 16))])[1].shape[2])

    def patch_features(self, images: Sequence[PILImage.Image]) -> tuple[Vectors, Vectors]:
        """What the image tower makes of images: of each as a whole, not normalised, shape (len(images), dim), and of
        its patches, shape (len(images), patches, width). Raises `ConfigError` where the tower has no patches."""
        wholes, patches = [], []
        for batch in self._batches(images):
            pixels = torch.stack([self._preprocess(image) for image in batch])
            with torch.inference_mode(), self._autocast():
                found = self._model.visual.forward_intermediates(
                    pixels.to(self._device), indices=1, normalize_intermediates=True, output_fmt="NLC"
                )
            [parts] = found["image_intermediates"]
            if parts.ndim != 3:
                raise ConfigError("this CLIP's image tower has no patches; give one with a vision transformer")
            wholes.append(found["image_features"])
            patches.append(parts)
        return _stacked(wholes), _stacked(patches)

    def _batches(self, inputs: Sequence[T]) -> Iterator[Sequence[T]]:
        return (inputs[start : start + self._batch_size] for start in range(0, len(inputs), self._batch_size))

    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        tokens = self._tokenize(list(texts))
        with torch.inference_mode(), self._autocast():
            features: torch.Tensor = self._model.encode_text(tokens.to(self._device))
        return features

    def _image_features(self, images: Sequence[PILImage.Image]) -> torch.Tensor:
        pixels = torch.stack([self._preprocess(image) for image in images])
        with torch.inference_mode(), self._autocast():
            features: torch.Tensor = self._model.encode_image(pixels.to(self._device))
        return features

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda", dtype=torch.float16) if self._device.type == "cuda" else nullcontext()


def _parse_name(name: str) -> tuple[str, str | None]:
    """open_clip's own two arguments. A folder wins over a model name."""
    folder = Path(name.removeprefix(_LOCAL)).expanduser()
    if folder.is_dir():
        return f"{_LOCAL}{folder}", None
    if name.startswith(_HUB):
        return name, None
    model_name, _, pretrained = name.partition(":")
    model_name = model_name.replace("/", "-")
    if not pretrained or name.startswith(_LOCAL):
        raise ConfigError(
            f"{name!r} is neither a folder nor MODEL:PRETRAINED; give one, such as ViT-B-32:laion2b_s34b_b79k"
        )
    if model_name not in open_clip.list_models():
        near = difflib.get_close_matches(model_name, open_clip.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "take one that open_clip.list_models() names"
        raise ConfigError(f"unknown CLIP model {model_name!r}; {hint}")
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if pretrained not in tags and not Path(pretrained).is_file():
        raise ConfigError(f"{unknown_name(f'{model_name} weights', pretrained, tags)}; or give a checkpoint file")
    return model_name, pretrained


def _lacks_quick_gelu(model_name: str, pretrained: str | None, config: Mapping[str, Any]) -> bool:
    """Whether open_clip would build these weights with GELU though its own table says that they take QuickGELU."""
    trained = open_clip.get_pretrained_cfg(model_name, pretrained) if pretrained else {}
    return bool(trained.get("quick_gelu")) and not config.get("quick_gelu")


def _stacked(batches: Sequence[torch.Tensor]) -> Vectors:
    stacked: Vectors = torch.cat([features.float() for features in batches]).cpu().numpy()
    return stacked


def _normalised(features: torch.Tensor) -> Vectors:
    unit: Vectors = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
    return unit


def _weights_sha256(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _tokenizer_sha256(folder: Path) -> str | None:
    """SHA-256 of a local folder's tokenizer; None for a model whose configuration names its tokenizer."""
    files = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    return fingerprint_files(files) if files else None
