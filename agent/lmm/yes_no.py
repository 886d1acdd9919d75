"""P(yes) from the log-probabilities of an answer's first token.

The probability is the mass on every spelling of yes against the mass on every spelling of no, as the share of their
sum (INQUIRE's scorer, arXiv 2411.02537, and MM-Embed's true/false reranker, arXiv 2411.02571, do it over one spelling
each). Reading the text instead would throw the probability away and mistake "nothing" for a "no".
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from fieldscope.agent.lmm.base import TokenLogprob
from fieldscope.agent.lmm.logprobs import distinct, fault_of_distinct
from fieldscope.agent.lmm.thinking import ends_thinking, marked_line, split_thought

MAX_LOG_ODDS = 12.0
"""Log-odds are clamped to this on both sides, so P lies within 6e-6 of 0 and 1 and never on them."""

MIN_MASS = 0.05
"""Below this probability of saying either word, the model was about to say something else and the ratio is noise."""

MAX_DOUBT = 0.1
"""How far P may depend on half-words, tokens that only begin a yes or a no, before the answer can't be read."""

_SURE_ENDING = math.log(0.9)  # how probable the end of a word must be, to stand for all that begins like it
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

    def begun(self, token: str) -> Literal["positive", "negative", "either", "neither"]:
        """Which side's word a token begins without finishing it, as `Y` begins `Yes`."""
        return _begun(self, token)

    def swapped(self) -> BinaryAnswer:
        """The same question with its sides exchanged."""
        return BinaryAnswer(self.negative, self.positive)


@lru_cache(maxsize=1 << 16)  # models say the same few words
def _side(answer: BinaryAnswer, token: str) -> Literal["positive", "negative", "neither"]:
    said = word(token)
    if said in map(str.casefold, answer.positive):
        return "positive"
    return "negative" if said in map(str.casefold, answer.negative) else "neither"


@lru_cache(maxsize=1 << 16)
def _begun(answer: BinaryAnswer, token: str) -> Literal["positive", "negative", "either", "neither"]:
    said = word(token)
    positive, negative = (
        any(whole.casefold().startswith(said) and whole.casefold() != said for whole in words)
        for words in (answer.positive, answer.negative)
    )
    if not said or answer.side(token) != "neither" or not (positive or negative):
        return "neither"
    return "either" if positive and negative else "positive" if positive else "negative"


_Meaning = tuple[Literal["positive", "negative", "neither"], Literal["positive", "negative", "either", "neither"]]


@cache
def _meanings(answer: BinaryAnswer) -> Callable[[str], _Meaning]:
    """Of a token, which side it speaks for and which one it begins; found without hashing the answer's words again."""

    @lru_cache(maxsize=1 << 16)
    def meaning(token: str) -> _Meaning:
        return answer.side(token), answer.begun(token)

    return meaning


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
    Numbers that can't be log-probabilities are no answer, and neither are those that hang on half-words.
    """
    known = distinct(logprobs)
    if fault := fault_of_distinct(known):
        return YesNo("unknown", reason=fault)
    meaning = _meanings(answer)
    alternatives = [(lp.token, min(lp.logprob, 0.0), meaning(lp.token)) for lp in known]
    positive = log_sum(value for _, value, (side, _) in alternatives if side == "positive")
    negative = log_sum(value for _, value, (side, _) in alternatives if side == "negative")
    mass = min(1.0, math.exp(positive) + math.exp(negative))
    words = f"{answer.positive[0]}/{answer.negative[0]}"
    if half := _deciding_half_word(alternatives, math.exp(positive), math.exp(negative), min_mass):
        return YesNo("unknown", mass=mass, reason=_in_pieces(half, words))
    if mass < min_mass or mass == 0.0:
        return YesNo("unknown", mass=mass, reason=too_little(logprobs, words, mass))

    if -math.inf in (positive, negative):
        absent = absent_bound([value for _, value, _ in alternatives])
        positive, negative = max(positive, absent), max(negative, absent)
    log_odds = positive - negative
    log_odds = max(-MAX_LOG_ODDS, min(MAX_LOG_ODDS, log_odds))
    return YesNo("answered", p_yes=1.0 / (1.0 + math.exp(-log_odds)), log_odds=log_odds, mass=mass)


def _deciding_half_word(
    alternatives: Sequence[tuple[str, float, _Meaning]], positive: float, negative: float, min_mass: float
) -> tuple[str, float] | None:
    """The likeliest half-word, where P of the positive side depends by more than `MAX_DOUBT` on whether half-words
    become the words that they begin, or other ones."""
    begun = [(token, value, side) for token, value, (_, side) in alternatives if side != "neither"]
    if not begun:
        return None
    to_positive = sum(math.exp(value) for _, value, side in begun if side != "negative")
    to_negative = sum(math.exp(value) for _, value, side in begun if side != "positive")
    if positive + negative + max(to_positive, to_negative) < min_mass:
        return None
    most = (positive + to_positive) / (positive + to_positive + negative) if positive + to_positive + negative else 1.0
    least = positive / (positive + negative + to_negative) if positive else 0.0
    return max(((token, value) for token, value, _ in begun), key=lambda b: b[1]) if most - least > MAX_DOUBT else None


def _in_pieces(half_word: tuple[str, float], words: str) -> str:
    """Why an answer whose probability is on a half-word can't be read."""
    token, value = half_word
    return (
        f"the model writes {words} in pieces: {token!r} has {math.exp(value):.1%}, and what follows decides; "
        "set max_tokens to 4 or more in the strategy's verify, so that the word is finished"
    )


def answer_position(tokens: Sequence[str], answer_after: str | None = None) -> int | None:
    """Index of the token that the answer starts with, in the tokens of a generated text.

    That is the first token with more than white space in it, of what follows any thinking. With `answer_after` it is
    that of what follows this text: in the last line that begins with it, or else at its first place. A model that
    thought may leave it out. None where there is no such token.
    """
    text = "".join(tokens)
    start = _answer_start(text, answer_after)
    if start is None:
        return None
    end = 0
    for index, token in enumerate(tokens):
        end += len(token)
        if end > start and token[-(end - start) :].strip(_WORD_MARKS + string.whitespace):
            return index
    return None


def _answer_start(text: str, answer_after: str | None) -> int | None:
    """Index of the character with which the answer starts."""
    if answer_after is not None and ends_thinking(answer_after):
        found = text.find(answer_after)
        return found + len(answer_after) if found >= 0 else None
    said = split_thought(text)
    if not said.finished:
        return None
    start = len(text) - len(said.answer)
    if answer_after is None:
        return start
    if line := marked_line(said.answer, answer_after):
        return start + line[1]
    found = said.answer.find(answer_after)
    if found >= 0:
        return start + found + len(answer_after)
    return start if said.thought else None


def finish_words(
    alternatives: Sequence[TokenLogprob], written: Iterator[tuple[str, float]]
) -> tuple[TokenLogprob, ...]:
    """The alternatives for an answer's first token, with half-words finished, where the tokens that were `written` from
    there on (one at least, each with its log-probability) show that the model writes yes and no in pieces.

    The half-word that was written becomes the word, as probable as all of its pieces together. Others become the word
    that they begin, where there is one only.
    """
    first, _ = next(written)
    if YES_NO.begun(first) == "neither":
        return tuple(alternatives)
    pieces, following = [first], 0.0
    for token, logprob in written:
        if not token[:1].isalpha() or token[0] in _WORD_MARKS:
            break
        pieces.append(token)
        following += logprob
    if len(pieces) == 1 or not following >= _SURE_ENDING:
        return tuple(alternatives)
    whole = "".join(pieces)
    in_pieces = YES_NO.side(whole) != "neither"
    finished = [
        TokenLogprob(token=whole, logprob=each.logprob + following)
        if each.token == first
        else each.model_copy(update={"token": _only_word(each.token)})
        if in_pieces
        else each
        for each in alternatives
    ]
    return tuple(sorted(finished, key=lambda each: -each.logprob))


def _only_word(token: str) -> str:
    """The one word of an answer that a half-word begins; the token itself where there is none, or several."""
    words = [whole for whole in YES_NO.positive + YES_NO.negative if whole.startswith(word(token))]
    return words[0] if len(words) == 1 and YES_NO.begun(token) != "neither" else token


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
