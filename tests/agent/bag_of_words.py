"""A gallery whose similarities can be worked out on paper, and a script that answers every prompt of
`imagescope-published`.

Pictures and texts are bags of words over six words, and a vector is the normalised count of them: "fox" and "fox snow"
have a similarity of 1/sqrt(2) = 0.7071, "fox" and "fox snow night" of 0.5774.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.scripted import Answer
from fieldscope.core.types import Query, Turn
from fieldscope.retrieval.encoder import QueryInputs, Vectors
from fieldscope.retrieval.index import ExactIndex
from fieldscope.retrieval.library import Library

WORDS = ("fox", "snow", "night", "hare", "tree", "rain")
PICTURES = {
    "fox.png": "fox",
    "snow.png": "snow",
    "night.png": "night",
    "hare.png": "hare",
    "tree.png": "tree",
}
DIALOGUE = Query(
    id="d",
    text="a fox",
    dialogue=(Turn(question="is it night?", answer="yes"), Turn(question="", answer="Is there Snow? no.")),
)


class BagOfWords:
    """An encoder whose vectors can be worked out by hand."""

    fingerprint = "bag of words"
    dim = len(WORDS)
    uses = frozenset({"text"})

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        return self.of(inputs.text)

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        raise AssertionError("the pictures are indexed")

    @staticmethod
    def of(text: str) -> Vectors:
        counts = np.array([re.findall(r"\w+", text.casefold()).count(word) for word in WORDS], dtype=np.float32)
        vector: Vectors = (counts / max(float(np.linalg.norm(counts)), 1.0)).astype(np.float32)
        return vector


class Script:
    """Answers every prompt of the strategy. `yes` are the questions that are true of each picture, `whole` the pictures
    that the final walk confirms; `said` are the descriptions by the instruction that they are asked for with."""

    def __init__(
        self,
        said: Mapping[str, Sequence[str]],
        yes: Mapping[str, Sequence[str]] | None = None,
        whole: Sequence[str] = (),
    ) -> None:
        self._said, self._yes, self._whole = said, yes or {}, whole
        self.requests: list[tuple[str, str]] = []

    def __call__(self, request: LMMRequest) -> Answer:
        text = request.messages[-1].content[-1].text  # type: ignore[union-attr]
        keys = (request.json_schema or {}).get("properties", {})
        if "thought" in keys:
            return self._note("synthesize", text, self._synthesis(text))
        if "predicates" in keys:
            return self._note("decompose", text, _questions(text))
        if text.startswith("Say in one sentence"):
            return self._note("caption", text, "a fox in a tree")
        shown = request.images[-1].image_id
        if text.endswith("Answer this question with Yes or No."):
            return self._note("verify", text, float(any(question in text for question in self._yes.get(shown, ()))))
        return self._note("walk", f"{shown}: {text}", float(shown in self._whole))

    def asked(self, stage: str) -> list[str]:
        """The requests of a stage, in order."""
        return [text for name, text in self.requests if name == stage]

    def _note(self, stage: str, text: str, answer: Answer) -> Answer:
        self.requests.append((stage, text))
        return answer

    def _synthesis(self, text: str) -> str:
        instruction = text.partition("Instruction: ")[2].partition("\n")[0].strip()
        core, detailed, comprehensive = self._said[instruction]
        facts = [{"text": word, "words": "", "type": "addition"} for word in instruction.split() if word in WORDS]
        answer = {"thought": "", "core": core, "detailed": detailed, "comprehensive": comprehensive}
        return json.dumps(answer | {"instructions": facts or [{"text": "it", "words": "", "type": "retention"}]})


def _questions(text: str) -> str:
    facts = [line.partition(": ")[2].partition(" (from")[0] for line in text.splitlines() if line[:1].isdigit()]
    predicates = [{"question": f"is there {fact}?", "expected": "yes", "words": "", "type": "other"} for fact in facts]
    return json.dumps({"predicates": predicates})


def painted_library(folder: Path) -> Library:
    """The gallery: a picture for each of five words."""
    for number, name in enumerate(PICTURES):
        PILImage.new("RGB", (4, 4), (40 * number, 0, 0)).save(folder / name)
    vectors = np.stack([BagOfWords.of(words) for words in PICTURES.values()])
    locator = {"kind": "folder", "root": str(folder)}
    return Library(ExactIndex(list(PICTURES), vectors), BagOfWords(), locator, ids=list(PICTURES))
