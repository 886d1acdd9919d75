"""P(yes) from the log-probabilities of an answer's first token.

The probability is the mass on every spelling of yes against the mass on every spelling of no, as the share of their
sum (INQUIRE's scorer, arXiv 2411.02537, and MM-Embed's true/false reranker, arXiv 2411.02571, do it over one spelling
each). Reading the text instead would throw the probability away and mistake "nothing" for a "no".
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from agent.lmm.base import TokenLogprob

MAX_LOG_ODDS = 12.0
"""Log-odds are clamped to this on both sides, so P lies within 6e-6 of 0 and 1 and never on them."""

MIN_MASS = 0.05
"""Below this probability of saying either word, the model was about to say something else and the ratio is noise."""

_WORD_MARKS = "▁Ġ"  # how sentencepiece and byte-level tokenizers write the space before a word
_TRIMMED = _WORD_MARKS + string.punctuation + string.whitespace


@dataclass(frozen=True)
class BinaryAnswer:
    """The words that say one thing and the words that say the other, whatever their case."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]

    def side(self, token: str) -> Literal["positive", "negative", "neither"]:
        """Which side a token speaks for, whatever spaces and punctuation surround its word."""
        return _side(self, token)

    def swapped(self) -> BinaryAnswer:
        """The same question with its sides exchanged."""
        return BinaryAnswer(self.negative, self.positive)


@lru_cache(maxsize=1 << 16)  # models say the same few words
def _side(answer: BinaryAnswer, token: str) -> Literal["positive", "negative", "neither"]:
    said = word(token)
    if said in map(str.casefold, answer.positive):
        return "positive"
    return "negative" if said in map(str.casefold, answer.negative) else "neither"


YES_NO = BinaryAnswer(("yes", "true"), ("no", "false"))
TRUE_FALSE = BinaryAnswer(("true", "yes"), ("false", "no"))


@dataclass(frozen=True)
class YesNo:
    """The reading of one answer.

    `state` is `answered`, with `p_yes` strictly between 0 and 1 and its `log_odds`, or `unknown`, with a `reason`.
    `mass` is the probability seen on both sides together, between 0 and 1.
    """

    state: Literal["answered", "unknown"]
    p_yes: float | None = None
    log_odds: float | None = None
    mass: float = 0.0
    reason: str | None = None


def p_yes(logprobs: Sequence[TokenLogprob], answer: BinaryAnswer = YES_NO, *, min_mass: float = MIN_MASS) -> YesNo:
    """P of the positive side, given the alternatives for the answer's first token (natural log-probabilities).

    A side that is not among the alternatives is bounded from above: it can have no more than the least probable of
    them, and no more than what they leave of the whole. That bound is taken as its mass, which keeps P cautious.
    """
    if not logprobs:
        return YesNo("unknown", reason="no log-probabilities of an answer token came back")
    alternatives = [(answer.side(lp.token), min(lp.logprob, 0.0)) for lp in logprobs if math.isfinite(lp.logprob)]
    positive = log_sum(value for side, value in alternatives if side == "positive")
    negative = log_sum(value for side, value in alternatives if side == "negative")
    mass = min(1.0, math.exp(positive) + math.exp(negative))
    if mass < min_mass or mass == 0.0:
        words = f"{answer.positive[0]}/{answer.negative[0]}"
        return YesNo("unknown", mass=mass, reason=too_little(logprobs, words, mass))

    absent = absent_bound([value for _, value in alternatives])
    log_odds = (positive if positive > -math.inf else absent) - (negative if negative > -math.inf else absent)
    log_odds = max(-MAX_LOG_ODDS, min(MAX_LOG_ODDS, log_odds))
    return YesNo("answered", p_yes=1.0 / (1.0 + math.exp(-log_odds)), log_odds=log_odds, mass=mass)


def answer_position(tokens: Sequence[str], answer_after: str | None = None) -> int | None:
    """Index of the token that the answer starts with, in the tokens of a generated text.

    That is the first token with more than white space in it, of the whole text or of what follows the first
    `answer_after`. None where there is no such token.
    """
    start = 0
    if answer_after is not None:
        found = "".join(tokens).find(answer_after)
        if found < 0:
            return None
        start = found + len(answer_after)
    end = 0
    for index, token in enumerate(tokens):
        end += len(token)
        if end > start and token[-(end - start) :].strip(_WORD_MARKS + string.whitespace):
            return index
    return None


def word(token: str) -> str:
    """The word that a token says, without case and whatever spaces and punctuation surround it."""
    return token.strip(_TRIMMED).casefold()


def log_sum(values: Iterable[float]) -> float:
    """log(sum(exp(v))), -inf for nothing."""
    kept = list(values)
    if not kept:
        return -math.inf
    top = max(kept)
    return top + math.log(sum(math.exp(v - top) for v in kept))


def absent_bound(values: Sequence[float], absent: int = 1) -> float:
    """Log of the most that each of `absent` tokens outside the returned alternatives can have, if they share alike."""
    rest = max(1.0 - sum(math.exp(v) for v in values), math.exp(-2 * MAX_LOG_ODDS))
    return min(*values, math.log(rest / absent))


def too_little(logprobs: Sequence[TokenLogprob], words: str, mass: float) -> str:
    """Why an answer with too little `mass` on its `words` can't be read."""
    said = max(logprobs, key=lambda lp: lp.logprob).token
    return f"only {mass:.1%} of the probability is on {words}; the model was about to say {said!r}"
