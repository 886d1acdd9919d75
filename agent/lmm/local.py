"""An LMM in this process: any LLaVA-style checkpoint that transformers can load."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import torch
import transformers  # its names are imported when they are first used, and need torchvision prepared by then
from PIL import Image as PILImage

from fieldscope.agent.lmm.backends import LMMOptions
from fieldscope.agent.lmm.base import AnswerToken, LMMRequest, LMMResponse, TextPart, TokenLogprob, Tokens
from fieldscope.agent.lmm.batching import Batcher
from fieldscope.agent.lmm.checkpoint import load_checkpoint
from fieldscope.agent.lmm.logprobs import gathered
from fieldscope.agent.lmm.pixels import load_pixels
from fieldscope.agent.lmm.prefix import PrefixCache, States, join, split
from fieldscope.agent.lmm.thinking import Thought, split_thought
from fieldscope.agent.lmm.yes_no import answer_position, finish_words
from fieldscope.core.errors import FieldscopeError, LMMRequestError, LMMResponseError, first_line
from fieldscope.core.types import ImageSource

_SHORT_TEXT = 255  # characters; up to here padding costs less than another batch


@dataclass(frozen=True)
class _Prompt:
    """A request made ready: the rendered chat."""

    request: LMMRequest
    text: str


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
        self._tokenizer.padding_side = "left"
        self._images = images
        self._identity = identity
        self._ends = _end_tokens(model, self._tokenizer)
        model.generation_config = transformers.GenerationConfig(eos_token_id=self._ends)
        self._prefixes = PrefixCache()
        self._spelling = lru_cache(maxsize=4096)(lambda token: str(self._tokenizer.decode([token])))
        self._batcher = Batcher(self._answer_all, _shape, max_batch)

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

    async def generate(self, request: LMMRequest) -> LMMResponse:
        """Answer one request. Raises `ImageError` for an unreadable image, `LMMRequestError` for messages that the
        chat template refuses, `LMMResponseError` where the model fails."""
        return await self._batcher.submit(request)

    async def aclose(self) -> None:
        await self._batcher.aclose()
        del self._model

    def _answer_all(self, requests: Sequence[LMMRequest]) -> list[LMMResponse | Exception]:
        """A response or an error for each request, in order; one that fails leaves the others alone."""
        results: dict[int, LMMResponse | Exception] = {}
        prompts: dict[int, _Prompt] = {}
        for index, request in enumerate(requests):
            try:
                prompts[index] = self._prepare(request)
            except FieldscopeError as error:
                results[index] = error
        together = all(prompt.request.temperature == 0 for prompt in prompts.values())
        for group in [list(prompts)] if together else [[index] for index in prompts]:
            results.update(zip(group, self._answer([prompts[index] for index in group]), strict=True))
        return [results[index] for index in range(len(requests))]

    def _prepare(self, request: LMMRequest) -> _Prompt:
        """Render the chat."""
        chat = [
            {
                "role": message.role,
                "content": [
                    {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
                    for part in message.content
                ],
            }
            for message in request.messages
        ]
        renderer = self._processor if self._processor.chat_template else self._tokenizer
        options = request.extra_body.get("chat_template_kwargs", {})
        try:
            text = renderer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **options)
        except (jinja2.TemplateError, ValueError) as error:
            raise LMMRequestError(
                f"the model's chat template refuses the messages: {first_line(error, 240)}; use another prompt or "
                "checkpoint"
            ) from error
        placeholder = self._processor.image_token
        if text.count(placeholder) != len(request.images):
            raise LMMRequestError(
                f"{len(request.images)} images but {text.count(placeholder)} times {placeholder!r} in the prompt: "
                "take it out of the text, or use a model whose chat template takes that many images"
            )
        return _Prompt(request, text)

    def _answer(self, prompts: Sequence[_Prompt]) -> list[LMMResponse | Exception]:
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

    def _produce(self, prompts: Sequence[_Prompt]) -> _Tokens:
        """Run the model. All prompts have one shape; where the first is sampled it is the only one."""
        request = prompts[0].request
        if request.max_tokens == 1 and request.temperature == 0 and request.images and self._keeps_prefixes:
            return self._first_tokens(prompts)
        inputs = self._inputs(prompts)
        lengths = inputs["attention_mask"].sum(-1).tolist()
        if request.max_tokens == 1 and request.temperature == 0:
            last = self._model(**inputs, **self._positions(inputs), logits_to_keep=1, use_cache=False).logits[:, -1]
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

    def _first_tokens(self, prompts: Sequence[_Prompt]) -> _Tokens:
        """The next token only: what comes up to a prompt's last picture is read once, however many questions follow."""
        image = self._model.config.image_token_id
        ids = [self._ids(prompt.text) for prompt in prompts]
        cuts = [len(row) - row[::-1].index(image) for row in ids]
        questions = [torch.tensor(row[cut:]) for row, cut in zip(ids, cuts, strict=True)]
        hashes = [tuple(part.sha256 for part in prompt.request.images) for prompt in prompts]
        keys = [(tuple(row[:cut]), shown) for row, cut, shown in zip(ids, cuts, hashes, strict=True)]
        by_key = dict(zip(keys, prompts, strict=True))
        layers, seen = join(self._prefixes.states(keys, lambda missing: self._read([by_key[key] for key in missing])))
        lengths = torch.tensor([len(question) for question in questions])
        asked = torch.nn.utils.rnn.pad_sequence(questions, batch_first=True).to(self._model.device)
        inside = (torch.arange(asked.shape[1])[None] < lengths[:, None]).long().to(self._model.device)
        logits = self._model(
            input_ids=asked,
            attention_mask=torch.cat([seen, inside], dim=1),
            position_ids=seen.sum(1, keepdim=True) + torch.arange(asked.shape[1], device=asked.device)[None],
            past_key_values=transformers.DynamicCache(layers),
            use_cache=True,
        ).logits
        last = logits[torch.arange(len(prompts)), lengths - 1]
        return _Tokens((seen.sum(1).cpu() + lengths).tolist(), last.argmax(-1, keepdim=True).tolist(), [last])

    def _read(self, prompts: Sequence[_Prompt]) -> list[States]:
        """The states of the model after the last picture of each prompt."""
        placeholder = self._processor.image_token
        cut = [
            replace(prompt, text=prompt.text[: prompt.text.rindex(placeholder) + len(placeholder)])
            for prompt in prompts
        ]
        inputs = self._inputs(cut)
        mask = inputs["attention_mask"]
        cache = self._model(**inputs, **self._positions(inputs), logits_to_keep=1, use_cache=True).past_key_values
        padding = (mask.shape[1] - mask.sum(1)).tolist()
        return [
            tuple((keys[:, :, skip:], values[:, :, skip:]) for keys, values in split(cache, row))
            for row, skip in enumerate(padding)
        ]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=self._adds_special_tokens(text))["input_ids"]
        return ids

    def _adds_special_tokens(self, text: str) -> bool:
        """Whether the tokenizer is to open a text, which the chat template may have done already."""
        opening = self._tokenizer.bos_token
        return not (opening and text.startswith(opening))

    def _inputs(self, prompts: Sequence[_Prompt]) -> dict[str, Any]:
        """Tensors for the model, padded on the left."""
        pictures = self._pictures(prompts)
        inputs = self._processor(
            text=[prompt.text for prompt in prompts],
            images=pictures or None,
            padding=True,
            return_tensors="pt",
            add_special_tokens=self._adds_special_tokens(prompts[0].text),
        ).to(self._model.device, self._model.dtype)
        return self._share_vision(dict(inputs), pictures)

    def _pictures(self, prompts: Sequence[_Prompt]) -> list[PILImage.Image]:
        """All pictures of the prompts in order, each loaded once. Raises `ImageError`."""
        parts = [part for prompt in prompts for part in prompt.request.images]
        different = {part.sha256: part for part in parts}.values()
        loaded = {part.sha256: load_pixels(self._images, part) for part in different}
        return [loaded[part.sha256] for part in parts]

    def _share_vision(self, inputs: dict[str, Any], pictures: Sequence[PILImage.Image]) -> dict[str, Any]:
        """Put a picture that several prompts of a batch show through the vision tower once."""
        places: dict[int, int] = {}
        rows = [places.setdefault(id(picture), len(places)) for picture in pictures]
        if len(places) == len(rows) or not self._is_plain_llava:
            return inputs
        firsts = [rows.index(row) for row in range(len(places))]
        features = self._model.get_image_features(pixel_values=inputs.pop("pixel_values")[firsts]).pooler_output
        ids = inputs.pop("input_ids")
        embedded = self._model.get_input_embeddings()(ids)
        shown = torch.cat([features[row] for row in rows]).to(embedded.dtype)
        embedded = embedded.masked_scatter((ids == self._model.config.image_token_id).unsqueeze(-1), shown)
        return inputs | {"inputs_embeds": embedded}

    def _positions(self, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Positions that start behind the padding, as `generate` sets them itself; other families have their own."""
        if not self._is_plain_llava:
            return {}
        return {"position_ids": (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)}

    @property
    def _is_plain_llava(self) -> bool:
        return bool(self._model.config.model_type == "llava")

    @property
    def _keeps_prefixes(self) -> bool:
        """Whether what was read can be kept for the next question: plain positions, and no sliding windows."""
        return self._is_plain_llava and self._model.config.text_config.model_type == "llama"

    def _responses(self, prompts: Sequence[_Prompt], tokens: _Tokens, seconds: float) -> Iterator[LMMResponse]:
        for row, (prompt, length) in enumerate(zip(prompts, tokens.prompt_lengths, strict=True)):
            ids, ended = self._cut(tokens.ids[row])
            said = _without_thought(self._tokenizer.decode(ids, skip_special_tokens=True))
            yield LMMResponse(
                text=said.answer,
                thought=said.thought.strip(),
                answer_logprobs=self._alternatives(prompt.request, ids, row, tokens.logits),
                tokens=self._answer_tokens(prompt.request, ids, row, tokens.logits),
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
        self, request: LMMRequest, ids: list[int], row: int, logits: Sequence[torch.Tensor]
    ) -> tuple[TokenLogprob, ...]:
        """The most probable tokens where the answer starts; none if the model never came to it."""
        if not request.top_logprobs or request.logprobs_of == "all":
            return ()
        pieces = self._pieces(ids)
        step = answer_position(pieces, request.answer_after)
        if step is None:
            return ()
        alternatives = self._most_probable(logits[step][row].float().log_softmax(-1), request.top_logprobs)
        written = (
            (pieces[at], logits[at][row].float().log_softmax(-1)[ids[at]].item()) for at in range(step, len(ids))
        )
        return finish_words(alternatives, written)

    def _answer_tokens(
        self, request: LMMRequest, ids: list[int], row: int, logits: Sequence[torch.Tensor]
    ) -> tuple[AnswerToken, ...]:
        """All tokens of the answer behind any thinking, where their log-probabilities are asked for."""
        if not request.top_logprobs or request.logprobs_of == "first":
            return ()
        pieces = self._pieces(ids)
        step = answer_position(pieces, request.answer_after)
        found = []
        for at in range(len(ids) if step is None else step, len(ids)):
            scores = logits[at][row].float().log_softmax(-1)
            alternatives = self._most_probable(scores, request.top_logprobs)
            found.append(AnswerToken(text=pieces[at], logprob=scores[ids[at]].item(), alternatives=alternatives))
        return tuple(found)

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text."""
        texts = [""] + [str(self._tokenizer.decode(ids[: end + 1])) for end in range(len(ids))]
        return [text[len(before) :] for before, text in pairwise(texts)]

    def _most_probable(self, scores: torch.Tensor, most: int) -> tuple[TokenLogprob, ...]:
        """The best of (vocabulary,) log-probabilities."""
        best = scores.topk(min(most, scores.shape[-1]))
        return gathered(
            (self._spelling(token), min(value, 0.0), token)
            for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )


def open_checkpoint(argument: str, options: LMMOptions) -> LocalLMM:
    """The back end "local": `argument` is a checkpoint's folder. Raises `ConfigError`."""
    return LocalLMM.from_path(argument, options.images)


def _without_thought(text: str) -> Thought:
    """The answer apart from its thought; a text that ends before the answer is all answer."""
    said = split_thought(text)
    return said if said.finished else Thought("", text)


def _shape(request: LMMRequest) -> tuple[object, ...]:
    """Requests of one shape fit into one batch: as many images, as many tokens to come, texts of about one length."""
    length = max(len(request.text), _SHORT_TEXT).bit_length()
    return (len(request.images), request.max_tokens, request.temperature > 0, length)


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
