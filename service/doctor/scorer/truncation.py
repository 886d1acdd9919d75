"""Does the end of a long text count?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.asker import REFUSALS
from fieldscope.service.doctor.scorer.known import GOOD
from fieldscope.service.doctor.scorer.subject import ROUNDING, Subject
from fieldscope.service.doctor.scorer.texts import caption, prose

NAME = "long texts"
LENGTHS = (64, 256, 1024, 4096)
"""Words of prose before or after the words that match."""

PATIENCE = 10.0
"""Seconds. No longer texts are scored where those of one length took longer: time can grow with the square."""

_VISIBLE = 2e-3
_UNREAD = 0.1


@dataclass(frozen=True)
class _Length:
    """By how much words that match raise the score of so many words of prose, at the beginning and at the end: medians
    over the queries."""

    words: int
    first: float
    last: float

    @property
    def visible(self) -> bool:
        return max(self.first, self.last) > _VISIBLE

    @property
    def cut(self) -> str | None:
        """Which end of the text does not count."""
        for name, here, there in (("end", self.last, self.first), ("beginning", self.first, self.last)):
            if self.visible and abs(here) <= _UNREAD * there:
                return name
        return None


def check_truncation(subject: Subject) -> Finding:
    """Put words that match at the beginning, and at the end, of longer and longer prose."""
    if subject.grids["texts"].correct < GOOD:
        return Finding(NAME, "unknown", "texts are not understood", "see the check 'known texts'")
    lengths, refusal = _measure(subject)
    if subject.noise > ROUNDING:
        lengths = [each for each in lengths if max(each.first, each.last) > 10 * subject.noise]
    read = [each.words for each in lengths if each.visible and not each.cut]
    cut = [each for each in lengths if each.cut]
    seen = f"the end of a text counts after {max(read):,} words of prose" if read else "no length is read to its end"
    if cut:
        seen += (
            f"; after {cut[0].words:,} words the {cut[0].cut} changes the score by {_of(cut[0]):.2g}, as if it was not "
            f"there (at the other end by {max(cut[0].first, cut[0].last):.2g})"
        )
        meaning = f"long texts are cut without a word: what stands at their {cut[0].cut} never counts"
        change = (
            "serve with a larger context (vLLM: --max-model-len, and no truncate_prompt_tokens or max_tokens_per_doc; "
            "text-embeddings-inference: --auto-truncate false), or shorten the texts yourself"
        )
        return Finding(NAME, "fail", seen, meaning, change)
    if refusal:
        seen += f"; longer ones get no score: {refusal}"
    if read:
        return Finding(NAME, "ok", seen, "texts of this length are read to their end")
    return Finding(NAME, "unknown", seen, "words that match do not raise the score of a long text")


def _of(length: _Length) -> float:
    return length.last if length.cut == "end" else length.first


def _measure(subject: Subject) -> tuple[Sequence[_Length], str | None]:
    """The effect at each length that the scorer takes, and why it takes no longer texts."""
    lengths: list[_Length] = []
    for words in LENGTHS:
        started = time.perf_counter()
        effects = []
        for place, query in enumerate(subject.queries):
            filler, decisive = prose(words, place), caption(query)
            try:
                pairs = [
                    subject.asker.ask(query, [text])[0]
                    for text in (filler, f"{decisive} {filler}", f"{filler} {decisive}")
                ]
            except REFUSALS as error:
                return lengths, str(error)
            scores = [pair.value for pair in pairs if pair.value is not None]
            if len(scores) < len(pairs):
                errors = [pair.error for pair in pairs if pair.error]
                return lengths, errors[0] if errors else f"a text of {words:,} words gets no score"
            effects.append((scores[1] - scores[0], scores[2] - scores[0]))
        first_effect, last_effect = np.median(effects, axis=0) / max(1.0, subject.grids["texts"].spread)
        lengths.append(_Length(words, float(first_effect), float(last_effect)))
        if (seconds := time.perf_counter() - started) > PATIENCE and words < LENGTHS[-1]:
            return lengths, f"they were not tried, since those of {words:,} words took {seconds:.0f} s"
    return lengths, None
