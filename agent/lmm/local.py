"""An LMM in this process: any image-text-to-text checkpoint that transformers can load."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers  # its names are imported when they are first used, and need torchvision prepared by then
from numpy.typing import NDArray

from fieldscope.agent.lmm.backends import LMMOptions
from fieldscope.agent.lmm.base import AnswerToken, LMMRequest, LMMResponse, TokenLogprob, Tokens
from fieldscope.agent.lmm.batching import Batcher
from fieldscope.agent.lmm.chat_prompt import ChatPrompts, Prompt
from fieldscope.agent.lmm.checkpoint import checkpoint_folder, hub_folder, load_checkpoint
from fieldscope.agent.lmm.logprobs import gathered
from fieldscope.agent.lmm.model_inputs import ModelInputs
from fieldscope.agent.lmm.shared_prefix import SharedPrefixes, reads_prefixes_once
from fieldscope.agent.lmm.thinking import Thought, opening_of, split_thought
from fieldscope.agent.lmm.yes_no import answer_position, finish_words
from fieldscope.core.errors import FieldscopeError, LMMResponseError, first_line
from fieldscope.core.types import ImageSource

_SHORT_TEXT = 255  # characters; up to here padding costs less than another batch
_MOST_TOKENS = {"cpu": 4_096}  # of the prompts of one pass
_MOST_TOKENS_ELSEWHERE = 32_768
_FIRST_GUESS = 600  # tokens of a prompt, until one was read
_MOST_LOGITS = 250_000_000  # numbers that a generated batch keeps of its steps: 1 GB in float32


@dataclass(frozen=True)
class _Tokens:
    """What the model produced for a batch: ids (batch, steps) and raw logits, one (batch, vocabulary) a step."""

    prompt_lengths: list[int]
    ids: list[list[int]]
    logits: Sequence[torch.Tensor]


class LocalLMM:
    """A model that transformers runs in this process.

    Requests that arrive together and have one shape are answered as one batch of up to `max_batch`, in one worker
    thread; a request gets the same answer alone and in company (to float rounding). Log-probabilities are those of the
    model's raw logits, before temperature, as vLLM gives them. Temperature 0 is greedy; above, sampling starts from the
    request's `draw`, and nothing else of the checkpoint's own generation settings is used but its end tokens.

    `json_schema` is not enforced: whoever asks validates. Of `extra_body` only `chat_template_kwargs` means anything.
    """

    def __init__(self, model: Any, processor: Any, images: ImageSource, *, identity: str, max_batch: int = 32) -> None:
        self._model = model.eval()
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._identity = identity
        self._ends = _end_tokens(model, self._tokenizer)
        model.generation_config = transformers.GenerationConfig(eos_token_id=self._ends)
        self._most_tokens = _MOST_TOKENS.get(model.device.type, _MOST_TOKENS_ELSEWHERE)
        self._longest = _FIRST_GUESS
        self._chats = ChatPrompts(processor)
        self._inputs = ModelInputs(model, processor, self._chats, images)
        self._prefixes = SharedPrefixes(model, self._chats, self._inputs) if reads_prefixes_once(model) else None
        self._spelling = lru_cache(maxsize=4096)(lambda token: str(self._tokenizer.decode([token])))
        self._batcher = Batcher(self._answer_all, self._shape, max_batch, group=self._group)

    @classmethod
    def from_path(
        cls,
        path: Path | str,
        images: ImageSource,
        device: str | None = None,
        dtype: str | None = None,
        max_batch: int = 32,
    ) -> LocalLMM:
        """Load a checkpoint, as `load_checkpoint` does."""
        model, processor, identity = load_checkpoint(path, device, dtype)
        return cls(model, processor, images, identity=identity, max_batch=max_batch)

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def reads_images_once(self) -> bool:
        """Whether an image is read once for all questions about it, and not once for each."""
        return self._prefixes is not None

    async def generate(self, request: LMMRequest) -> LMMResponse:
        """Answer one request. Raises `ImageError` for an unreadable image, `LMMRequestError` for messages that the
        chat template refuses, `LMMResponseError` where the model fails."""
        return await self._batcher.submit(request)

    def last_states(self, requests: Sequence[LMMRequest]) -> NDArray[np.float32]:
        """The last layer's state of each prompt's last token, from which the answer would follow, shape
        (len(requests), width). It runs in the caller's thread, one request after the other. Raises `ImageError` and
        `LMMRequestError`."""
        states = []
        for request in requests:
            inputs = self._inputs.of([self._chats.render(request)])
            with torch.inference_mode():
                output = self._model(
                    **inputs,
                    **self._inputs.positions(inputs["attention_mask"]),
                    logits_to_keep=1,
                    use_cache=False,
                    output_hidden_states=True,
                )
            states.append(output.hidden_states[-1][0, -1].float().cpu().numpy())
        return np.stack(states)

    async def aclose(self) -> None:
        await self._batcher.aclose()
        del self._model

    def _answer_all(self, requests: Sequence[LMMRequest]) -> list[LMMResponse | Exception]:
        """A response or an error for each request, in order; one that fails leaves the others alone."""
        results: dict[int, LMMResponse | Exception] = {}
        prompts: dict[int, Prompt] = {}
        for index, request in enumerate(requests):
            try:
                prompts[index] = self._chats.render(request)
            except FieldscopeError as error:
                results[index] = error
        waiting = list(prompts)
        while waiting:
            taken = waiting[: self._room(prompts[waiting[0]].request)]
            waiting = waiting[len(taken) :]
            results.update(zip(taken, self._answer([prompts[index] for index in taken]), strict=True))
        return [results[index] for index in range(len(requests))]

    def _room(self, request: LMMRequest) -> int | None:
        """How many requests of this shape fit into one pass; None where the pass sees to that itself."""
        if self._shares(request):
            return None
        if request.temperature > 0:
            return 1  # the random numbers of each are its own
        kept = request.max_tokens * self._model.config.get_text_config().vocab_size if request.top_logprobs else 1
        return max(1, min(self._most_tokens // self._longest, _MOST_LOGITS // kept))

    def _shares(self, request: LMMRequest) -> bool:
        """Whether a request's images are read once for all questions on them."""
        plain = request.max_tokens == 1 and request.temperature == 0
        return self._prefixes is not None and plain and bool(request.images)

    def _shape(self, request: LMMRequest) -> Hashable:
        """Requests of one shape fit into one batch: as many images, as many tokens to come, and, where each is a row of
        its own, texts of about one length."""
        length = 0 if self._shares(request) else max(len(request.text), _SHORT_TEXT).bit_length()
        return (len(request.images), request.max_tokens, request.temperature > 0, length)

    def _group(self, request: LMMRequest) -> Hashable:
        """Requests of one group cost little more than one of them."""
        return tuple(part.sha256 for part in request.images) if self._shares(request) else object()

    def _answer(self, prompts: Sequence[Prompt]) -> list[LMMResponse | Exception]:
        """Answer a batch. One that fails is tried again in halves: for want of memory, and to find the culprit."""
        if not prompts:
            return []
        started = time.perf_counter()
        try:
            with torch.inference_mode():
                tokens = self._produce(prompts)
                return list(self._responses(prompts, tokens, time.perf_counter() - started))
        except Exception as error:  # noqa: BLE001  whatever the model's code raises, it concerns this batch alone
            if len(prompts) > 1:
                middle = len(prompts) // 2
                return self._answer(prompts[:middle]) + self._answer(prompts[middle:])
            known = isinstance(error, FieldscopeError)
            fault = f"the model gave no answer: {first_line(error, 240)}; check the checkpoint and the free memory"
            return [error if known else LMMResponseError(fault)]

    def _produce(self, prompts: Sequence[Prompt]) -> _Tokens:
        """Run the model. All prompts have one shape; where the first is sampled it is the only one."""
        request = prompts[0].request
        if self._prefixes is not None and self._shares(request):
            lengths, logits = self._prefixes.next_token(prompts)
            return _Tokens(lengths, logits.argmax(-1, keepdim=True).tolist(), [logits])
        inputs = self._inputs.of(prompts)
        lengths = inputs["attention_mask"].sum(-1).tolist()
        self._longest = max(lengths)
        if request.max_tokens == 1 and request.temperature == 0:
            last = self._model(
                **inputs, **self._inputs.positions(inputs["attention_mask"]), logits_to_keep=1, use_cache=False
            ).logits[:, -1]
            return _Tokens(lengths, last.argmax(-1, keepdim=True).tolist(), [last])
        decoding = transformers.GenerationConfig(
            max_new_tokens=request.max_tokens,
            eos_token_id=self._ends,
            pad_token_id=self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self._ends[0],
            return_dict_in_generate=True,
            output_logits=any(prompt.request.top_logprobs for prompt in prompts),
            do_sample=request.temperature > 0,
            **({"temperature": request.temperature, "top_k": 0} if request.temperature > 0 else {}),
        )
        with _random_state(request.draw if request.temperature > 0 else None, self._model.device):
            output = self._model.generate(**inputs, generation_config=decoding)
        steps = output.sequences.shape[1] - (inputs["input_ids"].shape[1] if "input_ids" in inputs else 0)
        return _Tokens(lengths, output.sequences[:, -steps:].tolist(), output.logits or ())

    def _responses(self, prompts: Sequence[Prompt], tokens: _Tokens, seconds: float) -> Iterator[LMMResponse]:
        for row, (prompt, length) in enumerate(zip(prompts, tokens.prompt_lengths, strict=True)):
            ids, ended = self._cut(tokens.ids[row])
            opening = opening_of(prompt.text)
            said = _without_thought(opening + self._tokenizer.decode(ids, skip_special_tokens=True))
            yield LMMResponse(
                text=said.answer,
                thought=said.thought.strip(),
                answer_logprobs=self._alternatives(prompt, ids, row, tokens.logits),
                tokens=self._answer_tokens(prompt, ids, row, tokens.logits),
                usage=Tokens(prompt_tokens=length, completion_tokens=len(ids)),
                finish_reason="stop" if ended else "length",
                latency=seconds,
            )

    def _cut(self, ids: list[int]) -> tuple[list[int], bool]:
        """A row up to and with its end token, and whether it has one; behind it is only padding."""
        for index, token in enumerate(ids):
            if token in self._ends:
                return ids[: index + 1], True
        return ids, False

    def _alternatives(
        self, prompt: Prompt, ids: list[int], row: int, logits: Sequence[torch.Tensor]
    ) -> tuple[TokenLogprob, ...]:
        """The most probable tokens where the answer starts; none if the model never came to it."""
        request = prompt.request
        if not request.top_logprobs or request.logprobs_of == "all":
            return ()
        pieces = self._pieces(prompt, ids)
        step = answer_position(pieces, request.answer_after)
        if step is None:
            return ()
        alternatives = self._most_probable(logits[step][row].float().log_softmax(-1), request.top_logprobs)
        written = (
            (pieces[at], logits[at][row].float().log_softmax(-1)[ids[at]].item()) for at in range(step, len(ids))
        )
        return finish_words(alternatives, written)

    def _answer_tokens(
        self, prompt: Prompt, ids: list[int], row: int, logits: Sequence[torch.Tensor]
    ) -> tuple[AnswerToken, ...]:
        """All tokens of the answer behind any thinking, where their log-probabilities are asked for."""
        request = prompt.request
        if not request.top_logprobs or request.logprobs_of == "first":
            return ()
        pieces = self._pieces(prompt, ids)
        step = answer_position(pieces, request.answer_after)
        found = []
        for at in range(len(ids) if step is None else step, len(ids)):
            scores = logits[at][row].float().log_softmax(-1)
            alternatives = self._most_probable(scores, request.top_logprobs)
            found.append(AnswerToken(text=pieces[at], logprob=scores[ids[at]].item(), alternatives=alternatives))
        return tuple(found)

    def _pieces(self, prompt: Prompt, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text. A mark before the thinking, which the prompt ends with, belongs to the
        first."""
        texts = [""] + [str(self._tokenizer.decode(ids[: end + 1])) for end in range(len(ids))]
        pieces = [text[len(before) :] for before, text in pairwise(texts)]
        pieces[0] = opening_of(prompt.text) + pieces[0]
        return pieces

    def _most_probable(self, scores: torch.Tensor, most: int) -> tuple[TokenLogprob, ...]:
        """The best of (vocabulary,) log-probabilities."""
        best = scores.topk(min(most, scores.shape[-1]))
        return gathered(
            (self._spelling(token), min(value, 0.0), token)
            for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )


def open_folder(argument: str, options: LMMOptions) -> LocalLMM:
    """The back end "path": `argument` is a checkpoint's folder. Raises `ConfigError`."""
    return LocalLMM.from_path(checkpoint_folder(argument), options.images)


def open_hub_model(argument: str, options: LMMOptions) -> LocalLMM:
    """The back end "hf": `argument` is a model's name on the Hugging Face hub, downloaded where it is not yet on this
    machine, and the options' revision a branch, tag or commit of it. Raises `ConfigError`."""
    return LocalLMM.from_path(hub_folder(argument, options.revision), options.images)


def open_checkpoint(argument: str, options: LMMOptions) -> LocalLMM:
    """The back end "local": `argument` is a checkpoint's folder or a model's name on the hub. Raises `ConfigError`."""
    return LocalLMM.from_path(argument, options.images)


def _without_thought(text: str) -> Thought:
    """The answer apart from its thought; a text that ends before the answer is all answer."""
    said = split_thought(text)
    return said if said.finished else Thought("", text)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end an answer: the checkpoint's and the tokenizer's."""
    stated = model.generation_config.eos_token_id
    stated = stated if isinstance(stated, list) else [stated]
    return sorted({token for token in (*stated, tokenizer.eos_token_id) if token is not None})


@contextmanager
def _random_state(draw: int | None, device: torch.device) -> Iterator[None]:
    """Sample from `draw` inside, and leave the process's random numbers as they were."""
    if draw is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(draw)
        yield
