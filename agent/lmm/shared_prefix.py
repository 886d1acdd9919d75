"""The next token of many prompts, with what several of them begin with read once.

All questions on an image begin with that image. They are packed behind it as segments of one row: each attends to the
image and to itself, at the positions that it would have in a row of its own, so its answer is the same to float
rounding. What was read of an image is kept for later questions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import transformers  # its names are imported when they are first used, and need torchvision prepared by then
from torch import Tensor

from fieldscope.agent.lmm.chat_prompt import ChatPrompts, Prompt
from fieldscope.agent.lmm.lanes import Lanes
from fieldscope.agent.lmm.model_inputs import ModelInputs
from fieldscope.agent.lmm.prefix import PrefixCache, States, join, split

_FAMILIES = {"llava", "llava_next", "llava_onevision", "internvl", "idefics3", "smolvlm"}
_DECODERS = {"llama", "mistral", "qwen2", "qwen3"}
_ROPE = {"default", "linear", "llama3", "yarn"}  # kinds under which a token's rotation depends on its position alone
_MOST_ASKED = 512  # tokens of questions in one row at most: attention grows with the square
_FIRST_GUESS = 600  # tokens of an image, until one was read
_MOST_TOKENS = {"cpu": 1_024}  # of one pass, padding included: what a CPU's caches hold of a small model
_MOST_TOKENS_ELSEWHERE = 16_384


def reads_prefixes_once(model: Any) -> bool:
    """Whether a model is a plain causal decoder: full attention in all layers, and positions that count tokens. Others
    (Gemma's images that look ahead, Qwen's positions in two dimensions, sliding windows) have no reusable prefix."""
    config = model.config.get_text_config()
    windows = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return bool(
        model.config.model_type in _FAMILIES
        and config.model_type in _DECODERS
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and not windows
        and rope in _ROPE
        and config._attn_implementation in {"sdpa", "eager"}
    )


@dataclass(frozen=True)
class _Row:
    """Questions behind one prefix: the prefix as a prompt, its key in the cache, and for each question its place in
    the batch and its tokens."""

    key: tuple[str, tuple[str, ...]]
    prefix: Prompt
    questions: list[tuple[int, tuple[int, ...]]]

    @property
    def length(self) -> int:
        return sum(len(ids) for _, ids in self.questions)


@dataclass(frozen=True)
class _Answer:
    """What a pass came to: the number of tokens of each row's prefix, the logits behind every question, and the states
    of the prefixes that it read."""

    widths: list[int]
    logits: Tensor
    read: list[States]


class SharedPrefixes:
    """Computes the next token of prompts that show pictures, with what comes up to a prompt's last picture read once.

    A pass of the model is bounded in its tokens; a single row may be longer.
    """

    def __init__(self, model: Any, chats: ChatPrompts, inputs: ModelInputs) -> None:
        self._model = model
        self._chats = chats
        self._inputs = inputs
        self._most_tokens = _MOST_TOKENS.get(model.device.type, _MOST_TOKENS_ELSEWHERE)
        self._cache = PrefixCache()
        self._lanes = Lanes(model.device)
        self._reading = threading.Lock()  # tokenizers serve one thread at a time
        self._answering = threading.local()
        self._longest = _FIRST_GUESS

    def next_token(self, prompts: Sequence[Prompt]) -> tuple[list[int], Tensor]:
        """The number of tokens of each prompt, and the raw logits (batch, vocabulary) of the token that follows."""
        lengths = [0] * len(prompts)
        logits: list[Tensor] = [torch.empty(0)] * len(prompts)
        rows = sorted(self._rows(prompts), key=lambda row: row.length)
        unread = {row.key: row for row in rows if self._cache.get(row.key) is None}
        others = [row for row in rows if row is not unread.get(row.key)]
        for group in (list(unread.values()), others):
            passes = self._passes(group)
            with self._last_layer_only_where_asked():
                answers = self._lanes.map(self._ask, passes)
            for some, answer in zip(passes, answers, strict=True):
                for own, states in zip(some, answer.read, strict=bool(answer.read)):
                    self._cache.put(own.key, states)
                questions = [(row, place, ids) for row, (place, ids) in _numbered(some)]
                for (row, place, ids), value in zip(questions, answer.logits, strict=True):
                    lengths[place], logits[place] = answer.widths[row] + len(ids), value
        return lengths, torch.stack(logits)

    def _rows(self, prompts: Sequence[Prompt]) -> Iterator[_Row]:
        """The prompts by what they begin with, in rows of bounded length."""
        by_key: dict[tuple[str, tuple[str, ...]], tuple[Prompt, list[tuple[int, tuple[int, ...]]]]] = {}
        for place, prompt in enumerate(prompts):
            text, ids = self._chats.split(prompt)
            key = (text, tuple(part.sha256 for part in prompt.request.images))
            by_key.setdefault(key, (replace(prompt, text=text), []))[1].append((place, ids))
        for key, (prefix, questions) in by_key.items():
            row: list[tuple[int, tuple[int, ...]]] = []
            for place, ids in questions:
                if row and sum(len(other) for _, other in row) + len(ids) > _MOST_ASKED:
                    yield _Row(key, prefix, row)
                    row = []
                row.append((place, ids))
            yield _Row(key, prefix, row)

    def _passes(self, rows: Sequence[_Row]) -> list[list[_Row]]:
        """The rows in order, as many at once as a pass may hold, in passes of like size for all lanes."""
        passes = list(self._filled(rows, self._most_tokens))
        lanes = self._lanes.number
        if len(passes) % lanes == 0:
            return passes
        number = lanes * -(-len(passes) // lanes)
        share = -(-sum(self._width(row) for row in rows) // number)
        return list(self._filled(rows, min(share + self._width(rows[-1]) // 2, self._most_tokens)))

    def _filled(self, rows: Sequence[_Row], most_tokens: int) -> Iterator[list[_Row]]:
        """As many rows at once as have that many tokens, and those whose prefix was read apart from those whose prefix
        was not."""
        waiting = list(rows)
        while waiting:
            known = self._cache.get(waiting[0].key) is not None
            taken = [waiting.pop(0)]
            while waiting and (self._cache.get(waiting[0].key) is not None) == known:
                if (len(taken) + 1) * self._width(waiting[0]) > most_tokens:
                    break
                taken.append(waiting.pop(0))
            yield taken

    def _width(self, row: _Row) -> int:
        """The tokens of a row that a pass reads."""
        return row.length + (0 if self._cache.get(row.key) is not None else self._longest)

    def _ask(self, rows: Sequence[_Row]) -> _Answer:
        """One pass of the model."""
        kept = [self._cache.get(row.key) for row in rows]
        known = [states for states in kept if states is not None]
        device = self._model.device
        ids, segments, offsets, ends = _packed(rows, device)
        if len(known) == len(rows):
            layers, seen = join(known)
            before: dict[str, Any] = {"input_ids": ids}
            past = transformers.DynamicCache(layers)
        else:
            before, seen = self._behind_pictures([row.prefix for row in rows], ids)
            past = transformers.DynamicCache()
        widths = seen.sum(1, keepdim=True)
        read = 0 if len(known) == len(rows) else seen.shape[1]
        positions = torch.cat([(seen.cumsum(-1) - 1).clamp(min=0)[:, :read], widths + offsets], dim=1)
        self._answering.places = places = [row for row, _ in ends], [read + column for _, column in ends]
        hidden = self._model.model(
            **before,
            attention_mask=_mask(seen.bool(), segments, read),
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
        ).last_hidden_state
        lengths = widths.flatten().tolist()
        states = [split(past, row, read - length, read) for row, length in enumerate(lengths)] if read else []
        self._longest = read or self._longest
        return _Answer(lengths, self._model.get_output_embeddings()(hidden[places]), states)

    @contextmanager
    def _last_layer_only_where_asked(self) -> Iterator[None]:
        """Skip what follows the attention of the last layer where nothing reads it: nothing attends to its outputs."""
        layer = self._model.get_decoder().layers[-1]
        with ExitStack() as stack:
            for part in (layer.self_attn.o_proj, layer.mlp):
                stack.callback(setattr, part, "forward", part.forward)
                part.forward = partial(self._where_asked, part.forward)
            yield

    def _where_asked(self, forward: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        """What `forward` makes of (rows, length, width) at the places where this thread's pass is asked, and zeros
        elsewhere."""
        made = forward(hidden[self._answering.places])
        whole = made.new_zeros(*hidden.shape[:2], made.shape[-1])
        whole[self._answering.places] = made
        return whole

    def _behind_pictures(self, prefixes: Sequence[Prompt], ids: Tensor) -> tuple[dict[str, Any], Tensor]:
        """The model's inputs for prefixes with the tokens `ids` behind them, and the mask (rows, length) of what is no
        padding in the prefixes."""
        with self._reading:
            inputs = {name: value for name, value in self._inputs.of(prefixes).items() if "token_type" not in name}
        seen = inputs.pop("attention_mask")
        if "inputs_embeds" in inputs:
            asked = self._model.get_input_embeddings()(ids)
            return inputs | {"inputs_embeds": torch.cat([inputs["inputs_embeds"], asked], dim=1)}, seen
        return inputs | {"input_ids": torch.cat([inputs["input_ids"], ids], dim=1)}, seen


def _numbered(rows: Sequence[_Row]) -> Iterator[tuple[int, tuple[int, tuple[int, ...]]]]:
    """Every question with the number of its row."""
    for number, row in enumerate(rows):
        for question in row.questions:
            yield number, question


def _packed(rows: Sequence[_Row], device: torch.device) -> tuple[Tensor, Tensor, Tensor, list[tuple[int, int]]]:
    """Token ids, segment numbers (0 is padding), and places in their segments, each (rows, longest row); and row and
    column of every question's last token."""
    width = max(row.length for row in rows)
    ids, segments, offsets = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
    ends = []
    for number, row in enumerate(rows):
        start = 0
        for segment, (_, tokens) in enumerate(row.questions, 1):
            end = start + len(tokens)
            ids[number, start:end] = torch.tensor(tokens)
            segments[number, start:end] = segment
            offsets[number, start:end] = torch.arange(len(tokens))
            ends.append((number, end - 1))
            start = end
    return ids.to(device), segments.to(device), offsets.to(device), ends


def _mask(seen: Tensor, segments: Tensor, read: int) -> Tensor:
    """What may attend to what, (rows, 1, queries, keys). Keys are the prefix and the questions; queries the questions,
    after the prefix where its `read` tokens are in this pass. Padding attends to itself, so that it stays finite."""
    rows, asked = segments.shape
    causal = torch.ones(asked, asked, dtype=torch.bool, device=seen.device).tril()
    own = (segments[:, :, None] == segments[:, None, :]) & causal
    mask = torch.cat([seen[:, None, :].expand(rows, asked, -1), own], dim=2)
    if read:
        before = torch.ones(read, read, dtype=torch.bool, device=seen.device).tril() & seen[:, None, :]
        before = before | torch.eye(read, dtype=torch.bool, device=seen.device)
        mask = torch.cat([torch.nn.functional.pad(before, (0, asked)), mask], dim=1)
    return mask[:, None]
