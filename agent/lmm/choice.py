"""P of each of several lettered choices from the log-probabilities of an answer's first token.

Pairwise ranking prompting (Qin et al. 2023, arXiv 2306.17563) and setwise ranking (Zhuang et al. 2023, arXiv
2310.09497) both read the letters' likelihoods; here every spelling of a letter counts, as every spelling of yes does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fieldscope.agent.lmm.base import TokenLogprob
from fieldscope.agent.lmm.logprobs import distinct, logprobs_fault
from fieldscope.agent.lmm.yes_no import MAX_LOG_ODDS, MIN_MASS, absent_bound, log_sum, too_little, word

LETTERS = ("a", "b", "c", "d")
"""What the choices are called, in the order in which they are shown."""


@dataclass(frozen=True)
class Choice:
    """The reading of one answer.

    `state` is `answered`, with `probabilities` of the choices in their order, or `unknown`, with a `reason`. The
    probabilities sum to 1, each lies strictly between 0 and 1, and no two are further apart than `MAX_LOG_ODDS`. `mass`
    is the probability seen on all letters together, between 0 and 1.
    """

    state: Literal["answered", "unknown"]
    probabilities: tuple[float, ...] = ()
    mass: float = 0.0
    reason: str | None = None


def choose(logprobs: Sequence[TokenLogprob], choices: int, *, min_mass: float = MIN_MASS) -> Choice:
    """P of each of `choices` (2 to 4) letters, given the alternatives for the answer's first token.

    Case is ignored: a small "a" is an answer to a question that asks for a letter. A letter that is not among the
    alternatives is bounded as in `p_yes`; several of them share what the alternatives leave.
    """
    if not 2 <= choices <= len(LETTERS):
        raise ValueError(f"{choices} choices; there can be 2 to {len(LETTERS)}")
    if fault := logprobs_fault(logprobs):
        return Choice("unknown", reason=fault)
    letters = LETTERS[:choices]
    alternatives = [(word(lp.token), min(lp.logprob, 0.0)) for lp in distinct(logprobs)]
    seen = [log_sum(value for said, value in alternatives if said == letter) for letter in letters]
    mass = min(1.0, sum(math.exp(value) for value in seen))
    if mass < min_mass or mass == 0.0:
        return Choice("unknown", mass=mass, reason=too_little(logprobs, "/".join(letters), mass))

    missing = seen.count(-math.inf)
    absent = absent_bound([value for _, value in alternatives], missing) if missing else -math.inf
    bounded = [value if value > -math.inf else absent for value in seen]
    clamped = [max(value, max(bounded) - MAX_LOG_ODDS) for value in bounded]
    total = log_sum(clamped)
    return Choice("answered", tuple(math.exp(value - total) for value in clamped), mass)
