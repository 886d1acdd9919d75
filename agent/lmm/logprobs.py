"""Whether what came as log-probabilities can be log-probabilities of one token, and what the same ones count.

Some servers give numbers of another kind under that name: probabilities, base-10 logarithms, or what is left after a
temperature of 0. Read as natural logarithms they would rank images wrongly and look right, so they are never read.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from fieldscope.agent.lmm.base import TokenLogprob
from fieldscope.agent.lmm.thinking import SWITCH_OFF

MOST = 1.01
"""The most that probabilities of one token may sum to: 1, and what 16-bit rounding of logarithms adds to it."""

Alternative = tuple[str, float, Hashable]
"""A token's spelling, its log-probability, and whatever tells it from others of that spelling; None where unknown."""

_ZERO = 1e-3  # a logarithm above this is no rounding of 0
_SURE, _UNLIKELY, _MANY = -1e-4, -5.0, 5  # so many alternatives as improbable as each other were not computed
_FAR = -80.0  # nats; no model's best alternative stands so far above its next ones
_MASKED = -1000.0  # nats; what is below was put there and not computed
_ADVICE = "use a server that returns the model's own, as natural logarithms, such as vLLM"


def gathered(alternatives: Iterable[Alternative]) -> tuple[TokenLogprob, ...]:
    """The alternatives that are numbers, the most probable first. What came twice counts once; tokens that are known to
    be different ones, with one spelling and one value, are one alternative with the probability of all of them."""
    tokens: defaultdict[tuple[str, float], set[Hashable]] = defaultdict(set)
    for spelling, logprob, token in alternatives:
        if math.isfinite(logprob):
            tokens[spelling, logprob] |= {token} - {None}
    together = [
        TokenLogprob(token=spelling, logprob=logprob + math.log(max(len(different), 1)))
        for (spelling, logprob), different in tokens.items()
    ]
    return tuple(sorted(together, key=lambda each: -each.logprob))


def distinct(alternatives: Sequence[TokenLogprob]) -> list[TokenLogprob]:
    """The alternatives that are numbers, each once: one spelling with one value is one alternative, however often it is
    there. Several tokens may be spelled alike (a word with and without its space), but their values differ."""
    # Pairs are hashed far faster than records, and every remembered answer comes through here.
    return list({(each.token, each.logprob): each for each in alternatives if math.isfinite(each.logprob)}.values())


def logprobs_fault(alternatives: Sequence[TokenLogprob], asked: int = 1) -> str | None:
    """Why these can't be natural log-probabilities of one token, of the `asked` number of its alternatives, and what to
    change; None where they can."""
    return fault_of_distinct(distinct(alternatives), asked)


def fault_of_distinct(known: Sequence[TokenLogprob], asked: int = 1) -> str | None:
    """`logprobs_fault` of alternatives that are `distinct` already."""
    if not known:
        return f"no log-probability of an answer's token came back; if the model thinks first, {SWITCH_OFF}"
    values = sorted((each.logprob for each in known), reverse=True)
    best = max(known, key=lambda each: each.logprob)
    if best.logprob > _ZERO:
        likely = values[-1] >= 0.0 and values[0] <= 1.0 + _ZERO
        kind = "probabilities in place of log-probabilities" if likely else "log-probabilities greater than 0"
        return f"the server returns {kind} ({best.token!r} has {best.logprob:.4g}): {_ADVICE}"
    if _after_temperature(values, asked):
        return (
            f"the server returns log-probabilities after temperature 0 ({best.token!r} has all of the probability): "
            "start vLLM with --logprobs-mode raw_logprobs, or use a server that returns the model's own"
        )
    total = sum(map(math.exp, values))
    if total > MOST:
        base_10 = ", as base-10 logarithms do" if sum(10.0**value for value in values) <= MOST else ""
        return f"the server's log-probabilities of one token sum to {total:.2f} in place of 1{base_10}: {_ADVICE}"
    return None


def _after_temperature(values: Sequence[float], asked: int) -> bool:
    """Whether falling values are what a softmax gives at temperature 0, or just above, and never at 1. A single 0 is
    one of them where more were asked for: the others were left out as impossible."""
    best, *others = values
    one_hot = best >= 0.0 and all(value <= _FAR for value in others) and (bool(others) or asked > 1)
    filled = best >= _SURE and len(others) >= _MANY and others[0] == others[-1] < _UNLIKELY
    return one_hot or filled or len({value for value in others if value <= _MASKED}) > 1
