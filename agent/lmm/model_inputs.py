"""The tensors that a model of transformers reads, made of rendered prompts by the model's own processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image as PILImage

from fieldscope.agent.lmm.base import ImagePart
from fieldscope.agent.lmm.chat_prompt import ChatPrompts, Prompt
from fieldscope.agent.lmm.pixels import load_pixels
from fieldscope.core.types import ImageSource
from fieldscope.retrieval.picture_parts import within

_FIXED_SIZE_PIXELS = 2_000_000


class ModelInputs:
    """Makes a batch of prompts into tensors on the model's device, padded on the left."""

    def __init__(self, model: Any, processor: Any, chats: ChatPrompts, images: ImageSource) -> None:
        self._model = model
        self._processor = processor
        self._processor.tokenizer.padding_side = "left"
        self._chats = chats
        self._images = images

    def of(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """The tensors. All prompts show as many pictures; one that several show goes through the vision tower once,
        where the family allows it. Raises `ImageError`."""
        parts = [part for prompt in prompts for part in prompt.request.images]
        different = {part.sha256: part for part in parts}.values()
        loaded = {part.sha256: self._load(part) for part in different}
        shown = [[loaded[part.sha256] for part in prompt.request.images] for prompt in prompts]
        inputs = self._processor(
            text=[prompt.text for prompt in prompts],
            images=shown if parts else None,
            padding=True,
            return_tensors="pt",
            **({"add_special_tokens": not self._opens_itself(prompts[0].text)} if self._chats.has_template else {}),
        ).to(self._model.device, self._model.dtype)
        tensors = {name: value for name, value in inputs.items() if name != "labels"}  # PaliGemma's are for training
        return self._share_vision(tensors, [picture for pictures in shown for picture in pictures])

    def _load(self, part: ImagePart) -> PILImage.Image:
        """The picture of a request; of a large photograph a smaller copy, where the model's family reads a fixed, small
        size anyway: a batch of them would take gigabytes."""
        picture = load_pixels(self._images, part)
        return within(picture, _FIXED_SIZE_PIXELS) if self._is_llava else picture

    def positions(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Positions (batch, length) that start behind the padding, as `generate` sets them itself; families other than
        LLaVA have their own."""
        return {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if self._is_llava else {}

    @property
    def _is_llava(self) -> bool:
        return bool(self._model.config.model_type == "llava")

    def _opens_itself(self, text: str) -> bool:
        """Whether the chat template has written the token that the tokenizer would open a text with."""
        opening = self._processor.tokenizer.bos_token
        return bool(opening and text.startswith(opening))

    def _share_vision(self, inputs: dict[str, Any], pictures: Sequence[PILImage.Image]) -> dict[str, Any]:
        """Put a picture that several prompts of a batch show through the vision tower once."""
        places: dict[int, int] = {}
        rows = [places.setdefault(id(picture), len(places)) for picture in pictures]
        if len(places) == len(rows) or not self._is_llava:
            return inputs
        firsts = [rows.index(row) for row in range(len(places))]
        features = self._model.get_image_features(pixel_values=inputs.pop("pixel_values")[firsts]).pooler_output
        ids = inputs.pop("input_ids")
        embedded = self._model.get_input_embeddings()(ids)
        shown = torch.cat([features[row] for row in rows]).to(embedded.dtype)
        embedded = embedded.masked_scatter((ids == self._model.config.image_token_id).unsqueeze(-1), shown)
        return inputs | {"inputs_embeds": embedded}
