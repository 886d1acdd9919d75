"""What a model read before a question, kept: the keys and values of images that several questions are asked about.

A server with prefix caching (vLLM) reads an image once for all its questions; this is the same for a model in this
process. It holds for decoders whose layers attend to all that came before, under the original positions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

MOST_BYTES = 400_000_000

States = tuple[tuple[Tensor, Tensor], ...]
"""Per layer: keys and values, each (1, heads, length, width)."""


class PrefixCache:
    """Key-value states by prefix, the least recently used dropped beyond `most_bytes`."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._held = 0
        self._states: OrderedDict[Hashable, States] = OrderedDict()

    def get(self, key: Hashable) -> States | None:
        """The states of a prefix, None where they are not kept."""
        if key not in self._states:
            return None
        self._states.move_to_end(key)
        return self._states[key]

    def put(self, key: Hashable, states: States) -> None:
        """Keep the states of a prefix."""
        if key not in self._states:
            self._held += _size(states)
        self._states[key] = states
        self._states.move_to_end(key)
        while self._held > self._most and len(self._states) > 1:
            _, dropped = self._states.popitem(last=False)
            self._held -= _size(dropped)


def split(cache: Any, row: int, start: int, end: int) -> States:
    """The tokens from `start` to `end` of one row of a transformers cache, as a copy that keeps nothing else alive."""
    return tuple(
        (layer.keys[row : row + 1, :, start:end].clone(), layer.values[row : row + 1, :, start:end].clone())
        for layer in cache.layers
    )


def join(states: Sequence[States]) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """States of several prefixes as one batch, padded on the left: per layer keys and values (batch, heads, length,
    width), and the mask (batch, length) of what is no padding."""
    lengths = [rows[0][0].shape[2] for rows in states]
    width = max(lengths)
    layers = []
    for layer in zip(*states, strict=True):
        keys, values = ([_padded(row[part], width) for row in layer] for part in (0, 1))
        layers.append((torch.cat(keys), torch.cat(values)))
    places = torch.arange(width, device=layers[0][0].device)
    mask = places[None, :] >= torch.tensor([width - n for n in lengths], device=places.device)[:, None]
    return layers, mask.long()


def _padded(rows: Tensor, width: int) -> Tensor:
    missing = width - rows.shape[2]
    return torch.nn.functional.pad(rows, (0, 0, missing, 0)) if missing else rows


def _size(states: States) -> int:
    return sum(part.element_size() * part.nelement() for layer in states for part in layer)
