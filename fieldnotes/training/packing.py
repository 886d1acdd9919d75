"""Packs many questions behind one image prefix: block-diagonal attention, positions restarting at the prefix's end.

One packed row gives each question exactly what it would get in a request of its own, at a fraction of the cost.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fieldscope.fieldnotes.grammar import NUMBERS
from fieldscope.fieldnotes.lessons import Row
from fieldscope.fieldnotes.tasks import Segment
from fieldscope.fieldnotes.vocabulary import PIECE, query_words

PATCHES = 64
ANSWERS = ("yes", "no", "true", "false", "a", "b", "c", "d")


class Codec:
    """Text to token ids, the way the LMM's tokenizer does it, without its overhead."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.ids = {token: i for i, token in enumerate(vocabulary)}
        self.unknown = self.ids["<unk>"]
        self.decisive = {self.ids[word] for word in ANSWERS}
        content = {*query_words(), *ANSWERS, *NUMBERS, "reference", "change", "q"}
        self.filler = {i for token, i in self.ids.items() if token.strip().isalpha() and token.strip() not in content}

    def encode(self, text: str) -> list[int]:
        return [self.ids.get(piece, self.unknown) for piece in re.findall(PIECE, text)]

    def special(self, name: str) -> int:
        return self.ids[name]


@dataclass
class Packed:
    """One row: token ids, positions and segment numbers (0 is the prefix); targets and their weights per position."""

    pictures: tuple[int, ...]
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    targets: list[tuple[int, int, float, int]] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)


def prefix(codec: Codec, row: Row) -> Packed:
    """`<user>` and the pictures, each behind its label."""
    packed = Packed(row.pictures)
    ids = [codec.special("<user>")]
    for label in row.labels:
        ids += codec.encode(label) + [codec.special("<image>")] * PATCHES
    packed.ids, packed.positions, packed.segments = ids, list(range(len(ids))), [0] * len(ids)
    return packed


def add(packed: Packed, codec: Codec, segment: Segment, length: int, blur: random.Random) -> bool:
    """Append one question and its answer if it fits. Now and then a word that carries no content is blurred
    to `<unk>`, so that a stranger's wording does not upset the model."""
    prompt = codec.encode(segment.prompt)
    filler = [k for k, token in enumerate(prompt) if token in codec.filler]
    if filler and blur.random() < 0.08:
        prompt[blur.choice(filler)] = codec.unknown
    answer = [*codec.encode(segment.options[0]), codec.special("<eos>")]
    tokens = [*prompt, codec.special("<assistant>"), *answer]
    start, number = len(packed.ids), len(packed.tasks) + 1
    if start + len(tokens) > length:
        return False
    after = packed.segments.count(0)
    packed.ids += tokens
    packed.positions += range(after, after + len(tokens))
    packed.segments += [number] * len(tokens)
    open_ends = [codec.encode(option)[0] for option in segment.options]
    for k, token in enumerate(answer):
        at = start + len(prompt) + k
        if k == 0 and len(open_ends) > 1:
            packed.targets += [(at, end, 1.0 / len(open_ends), number - 1) for end in open_ends]
        else:
            heavy = token in codec.decisive and (k == 0 or segment.task == "joint")
            weight = 1.0 if heavy or segment.task.startswith("open") else 0.3
            packed.targets.append((at, token, 0.03 if token == answer[-1] else weight, number - 1))
    packed.tasks.append(segment.task)
    return True


def fill(codec: Codec, row: Row, length: int, blur: random.Random) -> Packed:
    """A row with as many segments as fit into `length` tokens."""
    packed = prefix(codec, row)
    misses = 0
    segments: Iterator[Segment] = row.segments
    while misses < 3 and len(packed.ids) < length - 12:
        misses += not add(packed, codec, next(segments), length, blur)
    return packed


@dataclass(frozen=True)
class Batch:
    """Packed rows as tensors. `rows`, `at`, `target`, `weight` list the supervised positions; `task` names them
    and `first` marks those that open an answer with only one right option."""

    pictures: Tensor
    ids: Tensor
    positions: Tensor
    segments: Tensor
    rows: Tensor
    at: Tensor
    target: Tensor
    weight: Tensor
    first: Tensor
    task: list[str]


def collate(packed: Sequence[Packed], pad: int) -> Batch:
    """Pad rows to the longest; padding is a segment of its own (-1)."""
    width = max(len(row.ids) for row in packed)

    def table(name: str, filler: int) -> Tensor:
        return torch.tensor([getattr(row, name) + [filler] * (width - len(row.ids)) for row in packed])

    flat = [(i, *target) for i, row in enumerate(packed) for target in row.targets]
    seen: set[tuple[int, int]] = set()
    first = []
    for i, _, _, weight, number in flat:
        first.append((i, number) not in seen and weight in (1.0, 0.3))
        seen.add((i, number))
    return Batch(
        torch.tensor([picture for row in packed for picture in row.pictures], dtype=torch.long),
        table("ids", pad),
        table("positions", 0),
        table("segments", -1),
        torch.tensor([f[0] for f in flat]),
        torch.tensor([f[1] for f in flat]),
        torch.tensor([f[2] for f in flat]),
        torch.tensor([f[3] for f in flat]),
        torch.tensor(first),
        [packed[i].tasks[number] for i, _, _, _, number in flat],
    )


def attention(segments: Tensor) -> Tensor:
    """Boolean mask (n, 1, length, length): causal, own segment or prefix; padding sees itself only."""
    width = segments.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    same = segments[:, :, None] == segments[:, None, :]
    to_prefix = (segments[:, None, :] == 0) & (segments[:, :, None] >= 0)
    return ((same | to_prefix) & causal)[:, None]
