"""CLIP, SigLIP and SigLIP 2 through transformers' own classes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
from PIL import Image as PILImage

from fieldscope.core.compat import prepare_torchvision
from fieldscope.core.errors import ConfigError, first_line
from fieldscope.retrieval.encoder import QueryInputs, QueryPart, Vectors, picture_refused
from fieldscope.retrieval.model_folder import check_safe, folder_fingerprint

prepare_torchvision()

import torch  # noqa: E402 - torchvision underneath must be prepared first
import transformers  # noqa: E402


class TransformersClip:
    """A CLIP or SigLIP of transformers as an `Encoder`: inner products are cosine similarities, between -1 and 1.

    Texts are tokenized by the checkpoint's own processor, which lower-cases those of SigLIP 2. SigLIP learned texts
    that are padded to their greatest length, and its text model attends to the padding, so they are always padded; a
    CLIP's padding is masked. The model runs in float32 on a CPU, under float16 autocast on CUDA. The fingerprint covers
    all files of the model, not the precision.
    """

    def __init__(
        self, model: Any, processor: Any, *, fingerprint: str, device: str | None = None, batch_size: int = 32
    ) -> None:
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model = model.eval().to(self._device)
        self._processor = processor
        self._fingerprint = fingerprint
        self._batch_size = batch_size
        self._tokenizing = Lock()  # a tokenizer is not safe to use from several threads
        self._dim = int(self.text_features(["a"]).shape[1])

    @classmethod
    def load(cls, folder: Path, *, device: str | None = None, batch_size: int = 32) -> Self:
        """Load the checkpoint in a folder, with its processor. Raises `ConfigError`; weights are never unpickled."""
        model, processor = load_clip(folder)
        fingerprint = folder_fingerprint(folder, "transformers-clip")
        return cls(model, processor, fingerprint=fingerprint, device=device, batch_size=batch_size)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

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
        vector: Vectors = _unit(self.text_features([inputs.text]))[0]
        return vector

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        """L2-normalised vectors, shape (len(images), dim), in the order given."""
        return _unit(self.image_features(images))

    def image_features(self, images: Sequence[PILImage.Image]) -> Vectors:
        """What the image tower makes of images, not normalised, shape (len(images), dim)."""
        vectors = [np.empty((0, self._dim), dtype=np.float32)]
        for start in range(0, len(images), self._batch_size):
            batch = list(images[start : start + self._batch_size])
            inputs = self._processor(images=batch, return_tensors="pt")
            vectors.append(self._features(self._model.get_image_features, inputs))
        return np.concatenate(vectors)

    def text_features(self, texts: Sequence[str]) -> Vectors:
        """What the text tower makes of texts, each read alone, not normalised, shape (len(texts), dim)."""
        return np.concatenate([self._features(self._model.get_text_features, self._tokens([text])) for text in texts])

    def _tokens(self, texts: list[str]) -> Any:
        with self._tokenizing:
            return text_inputs(self._processor, self._model.config, texts)

    def _features(self, method: Any, inputs: Any) -> Vectors:
        with torch.inference_mode(), self._autocast():
            features = method(**inputs.to(self._device)).pooler_output
        found: Vectors = features.float().cpu().numpy()
        return found

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda", dtype=torch.float16) if self._device.type == "cuda" else nullcontext()


def load_clip(folder: Path) -> tuple[Any, Any]:
    """The model in a folder, and its processor. Raises `ConfigError`; weights are never unpickled."""
    check_safe(folder)
    transformers.utils.logging.disable_progress_bar()  # a command shows its own
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        model, report = transformers.AutoModel.from_pretrained(
            folder, dtype="float32", local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        processor.tokenizer, processor.image_processor  # noqa: B018  a processor that lacks one is incomplete
    except Exception as error:  # transformers runs code for hundreds of families, which may raise anything
        raise ConfigError(
            f"can't load the CLIP or SigLIP in {folder}: {first_line(error, 240)}; check that weights, tokenizer "
            "and image processor are there"
        ) from error
    if report["missing_keys"]:  # transformers would leave them random
        raise ConfigError(f"{folder} lacks weights, {min(report['missing_keys'])} for one; copy or download it again")
    return model, processor


def text_inputs(processor: Any, config: Any, texts: list[str]) -> Any:
    """Texts as a model of this configuration takes them."""
    return processor(
        text=texts,
        padding=True if config.model_type == "clip" else "max_length",
        truncation=True,
        max_length=config.text_config.max_position_embeddings,
        return_tensors="pt",
    )


def _unit(features: Vectors) -> Vectors:
    unit: Vectors = torch.nn.functional.normalize(torch.from_numpy(features), dim=-1).numpy()
    return unit
