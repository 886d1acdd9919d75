"""How much faster `LocalLMM` answers questions on images than a plain loop of transformers does, on this machine.

    python -m checks.local_speed                          # the bundled LMM
    python -m checks.local_speed --checkpoint FOLDER --device cuda --side 1024

Both ways answer the same questions with the same weights and threads: a loop that calls the processor and the model for
one request at a time, as transformers' documentation does, and `LocalLMM`, which is given all requests at once. One
question an image and six are measured in turns, each time on images that were not shown before. The ratios are medians
over the rounds. The last line says by how much the scores of the two ways differ. Exits with 1 if that is 0.01 or more.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it, before torch is imported

import torch
from PIL import Image as PILImage

from fieldscope.agent.lmm.base import ImagePart, LMMRequest, Message, TextPart
from fieldscope.agent.lmm.checkpoint import load_checkpoint
from fieldscope.agent.lmm.local import LocalLMM
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.fieldnotes.render import render
from fieldscope.fieldnotes.sampling import random_scene
from fieldscope.fieldnotes.vocabulary import MODELS
from fieldscope.service.wiring.bundled import BUNDLED_DTYPE

QUESTIONS = (
    "is there a crab? answer yes or no.",
    "is it raining? answer yes or no.",
    "are there two rabbits? answer yes or no.",
    "is the fox asleep? answer yes or no.",
    "is the scene in a meadow? answer yes or no.",
    "is there a yellow duck? answer yes or no.",
)
BUNDLED = MODELS / "lmm"
SIX = len(QUESTIONS)
MOST_DIFFERENCE = 0.01


class Scenes:
    """An image source of FieldNotes scenes in memory, which grows."""

    def __init__(self, side: int | None) -> None:
        self._side = side
        self._rng = random.Random("local speed")
        self._images: list[PILImage.Image] = []
        self._hashes: list[str] = []

    def draw(self, count: int) -> list[str]:
        """The ids of new scenes."""
        for _ in range(count):
            image = render(random_scene(self._rng))
            self._images.append(image.resize((self._side, self._side)) if self._side else image)
            self._hashes.append(fingerprint_pixels(self._images[-1]))
        return [str(number) for number in range(len(self._images) - count, len(self._images))]

    def load(self, image_id: str) -> PILImage.Image:
        return self._images[int(image_id)]

    def pixel_hash(self, image_id: str) -> str:
        return self._hashes[int(image_id)]


class PlainLoop:
    """One request at a time, with what transformers offers for it: the log-probability of the most probable token."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._processor = processor

    def best(self, image: PILImage.Image, question: str) -> float:
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        text = self._processor.apply_chat_template(chat, add_generation_prompt=True)
        inputs = self._processor(images=[image], text=[text], return_tensors="pt")
        with torch.no_grad():
            logits = self._model(**inputs.to(self._model.device, self._model.dtype)).logits[0, -1]
        return float(logits.float().log_softmax(-1).max().exp())


async def best_of(lmm: LocalLMM, scenes: Scenes, ids: Sequence[str], questions: Sequence[str]) -> list[float]:
    """The probability of the most probable token of every question on every image, all requests at once."""
    requests = []
    for image_id in ids:
        image = ImagePart(image_id=image_id, sha256=scenes.pixel_hash(image_id))
        for question in questions:
            message = Message(content=(image, TextPart(text=question)))
            requests.append(LMMRequest(messages=(message,), top_logprobs=20))
    responses = await asyncio.gather(*(lmm.generate(request) for request in requests))
    return [math.exp(response.answer_logprobs[0].logprob) for response in responses]


async def measure(loop: PlainLoop, lmm: LocalLMM, scenes: Scenes, images: int, rounds: int) -> float:
    """Print times and ratios; the largest difference between two scores."""
    times: defaultdict[tuple[str, int], list[float]] = defaultdict(list)  # milliseconds an image
    difference = 0.0
    for number in range(rounds + 1):
        for count in (1, SIX):
            ids, questions = scenes.draw(images), QUESTIONS[:count]
            began = time.perf_counter()
            plain = [loop.best(scenes.load(image_id), question) for image_id in ids for question in questions]
            middle = time.perf_counter()
            ours = await best_of(lmm, scenes, ids, questions)
            ended = time.perf_counter()
            difference = max(difference, *(abs(one - other) for one, other in zip(plain, ours, strict=True)))
            if number:  # the first round warms both up
                times["loop", count].append(1000 * (middle - began) / images)
                times["LocalLMM", count].append(1000 * (ended - middle) / images)
    for (way, count), values in times.items():
        print(f"{way:>8}, questions an image: {count}   {statistics.median(values):9.2f} ms an image")
    print(f"LocalLMM, six questions to one: {_ratio(times['LocalLMM', SIX], times['LocalLMM', 1]):.2f} times the time")
    for count in (1, SIX):
        gain = _ratio(times["loop", count], times["LocalLMM", count])
        print(f"LocalLMM to the loop, questions an image: {count}   {gain:.2f} times as fast")
    print(f"{1000 * SIX / statistics.median(times['LocalLMM', SIX]):.1f} requests a second with six questions an image")
    print(f"scores differ by {difference:.6f} at most")
    return difference


def _ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """The median of the ratios of times that were measured one after the other."""
    return statistics.median(one / other for one, other in zip(these, those, strict=True))


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=BUNDLED)
    parser.add_argument("--device", help="torch's name of a device; an accelerator by default, where there is one")
    parser.add_argument("--dtype", help="of the weights, such as bfloat16; of the bundled LMM float32 by default")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", type=int, help="pixels of a picture's side; 112 by default")
    options = parser.parse_args()
    scenes = Scenes(options.side)
    dtype = options.dtype or (BUNDLED_DTYPE if options.checkpoint == BUNDLED else None)
    model, processor, identity = load_checkpoint(options.checkpoint, options.device, dtype)
    lmm = LocalLMM(model, processor, scenes, identity=identity)
    print(f"{options.rounds} rounds of {options.images} images, {torch.get_num_threads()} threads, {model.device}")
    difference = await measure(PlainLoop(model, processor), lmm, scenes, options.images, options.rounds)
    await lmm.aclose()
    return int(difference >= MOST_DIFFERENCE)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
