"""Checkpoints of real families in process: tiny and random, each with its own processor, tokens and chat format."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, Message, TextPart
from fieldscope.agent.lmm.local import LocalLMM
from fieldscope.agent.lmm.shared_prefix import reads_prefixes_once
from fieldscope.agent.lmm.yes_no import p_yes
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.types import Candidate, Query
from tests.vllm.tiny_checkpoints import MAKERS, make

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SIZES = ((300, 280), (640, 300), (280, 700), (64, 48))  # pixels, wide by high
QUESTIONS = ("Is there a crab?", "Is it raining on the two red crabs that lie on the beach? Answer yes or no.", "Snow?")
ONCE = {"internvl3", "llava-onevision", "llava-next", "idefics3"}


class Pictures:
    """Noise in several sizes."""

    def __init__(self) -> None:
        noise = np.random.default_rng(3)
        self.pictures = {
            f"p{n}": Image.fromarray(noise.integers(0, 256, (high, wide, 3), dtype=np.uint8))
            for n, (wide, high) in enumerate(SIZES)
        }

    def load(self, image_id: str) -> Image.Image:
        return self.pictures[image_id]

    def pixel_hash(self, image_id: str) -> str:
        return fingerprint_pixels(self.pictures[image_id])


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return Pictures()


@pytest.fixture(scope="module", params=sorted(MAKERS))
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(family, tmp_path_factory.mktemp("families"))


def ask(pictures: Pictures, text: str, *names: str, system: str = "", **settings: object) -> LMMRequest:
    shown = tuple(ImagePart(image_id=name, sha256=pictures.pixel_hash(name)) for name in names)
    messages = [Message(content=(*shown, TextPart(text=text)))]
    if system:
        messages.insert(0, Message(role="system", content=(TextPart(text=system),)))
    return LMMRequest(messages=tuple(messages), **{"top_logprobs": 20, **settings})


def by_hand(lmm: LocalLMM, pictures: Pictures, request: LMMRequest) -> torch.Tensor:
    """The probabilities of the next token, as transformers' own processor and model give them for one prompt."""
    processor, model = lmm._inputs._processor, lmm._model
    text = lmm._chats.render(request).text
    shown = [pictures.load(part.image_id) for part in request.images]
    special = {"add_special_tokens": False} if text.startswith(str(processor.tokenizer.bos_token)) else {}
    inputs = processor(text=[text], images=[shown], return_tensors="pt", **special)
    inputs.pop("labels", None)
    with torch.no_grad():
        return model(**inputs).logits[0, -1].softmax(-1)


async def test_scores_are_transformers_own_alone_and_in_a_batch(family, checkpoint, pictures) -> None:
    """One and two pictures of every size, each with several questions."""
    assert sum(file.stat().st_size for file in checkpoint.iterdir()) < 5e6
    shown = [(f"p{n}",) for n in range(len(SIZES))] + [("p0", "p1"), ("p1", "p2"), ("p3", "p0")]
    requests = [ask(pictures, text, *names, system="You look at photographs.") for names in shown for text in QUESTIONS]
    lmm = LocalLMM.from_path(checkpoint, pictures, device="cpu", dtype="float32")
    assert reads_prefixes_once(lmm._model) == (family in ONCE)
    together = await asyncio.gather(*(lmm.generate(request) for request in requests))
    expected = [by_hand(lmm, pictures, request) for request in requests]
    await lmm.aclose()
    again = LocalLMM.from_path(checkpoint, pictures, device="cpu", dtype="float32")
    alone = [await again.generate(request) for request in requests]
    await again.aclose()
    for one, other, probabilities in zip(alone, together, expected, strict=True):
        best = probabilities.topk(3).values.log().tolist()
        assert one.usage == other.usage
        for response in (one, other):
            assert [each.logprob for each in response.answer_logprobs[:3]] == pytest.approx(best, abs=0.01)
    readings = [p_yes(response.answer_logprobs).p_yes for response in together]
    assert None not in readings
    assert len({round(response.answer_logprobs[0].logprob, 3) for response in together}) > 2, "the input matters"


async def test_a_longer_answer_is_the_same_alone_and_in_a_batch(checkpoint, pictures) -> None:
    requests = [ask(pictures, "Describe it.", f"p{n}", max_tokens=5, top_logprobs=5) for n in range(len(SIZES))]
    lmm = LocalLMM.from_path(checkpoint, pictures, device="cpu", dtype="float32")
    together = await asyncio.gather(*(lmm.generate(request) for request in requests))
    alone = [await lmm.generate(request) for request in requests]
    await lmm.aclose()
    assert [response.text for response in together] == [response.text for response in alone]


async def test_it_reranks(checkpoint, pictures) -> None:
    lmm = LocalLMM.from_path(checkpoint, pictures, device="cpu", dtype="float32")
    agent = Agent(Resources(images=pictures, lmm=lmm), load_strategy("yes-no"))
    result = await agent.rerank(
        Query(id="q", text="two red crabs on a beach"), [Candidate(image_id, 0.5) for image_id in pictures.pictures]
    )
    await lmm.aclose()
    assert {candidate.image_id for candidate in result.ranking} == set(pictures.pictures)
    assert {verdict.state for verdict in result.verdicts} == {"answered"}
