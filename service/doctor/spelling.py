"""How does the model spell yes and no, and how much of the probability do they get?"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from fieldscope.agent.lmm.yes_no import YES_NO
from fieldscope.service.doctor.asker import Reading
from fieldscope.service.doctor.finding import Finding

NAME = "yes/no spellings"
_ENOUGH = 0.5
_SHOWN = 6
_WORTH_NAMING = 0.005


def judge_spellings(readings: Sequence[Reading]) -> Finding:
    """Judge the alternatives of many answers."""
    answered = [reading for reading in readings if reading.error is None]
    given = [reading for reading in answered if reading.alternatives]
    if not given:
        texts = ", ".join(sorted({repr(reading.text[:20]) for reading in answered})[:_SHOWN]) or "nothing"
        return Finding(
            NAME,
            "unknown",
            f"the server returned no log-probabilities; the texts are {texts}",
            "see the check 'log-probabilities'",
        )
    spelled: defaultdict[str, float] = defaultdict(float)
    said: defaultdict[str, float] = defaultdict(float)
    for reading in given:
        for alternative in reading.alternatives:
            share = math.exp(alternative.logprob) / len(given)
            said[alternative.token] += share
            if YES_NO.side(alternative.token) != "neither":
                spelled[alternative.token] += share
    mass = sum(spelled.values())
    unreadable = sum(reading.p is None for reading in given)
    seen = f"{_list(spelled) or 'none'}; {min(mass, 1.0):.0%} of the probability in total"
    if unreadable == 0 and mass >= _ENOUGH:
        return Finding(NAME, "ok", seen, "all of these count as yes or no, whatever their case and leading spaces")
    seen += f"; other tokens: {_list({token: share for token, share in said.items() if token not in spelled})}"
    reasons = Counter(reading.reason for reading in given if reading.p is None)
    why = f": {reasons.most_common(1)[0][0]}" if reasons else ""
    meaning = f"{unreadable} of {len(given)} answers can't be read as yes or no and would be unknown{why}"
    change = (
        "turn thinking off (extra_body with chat_template_kwargs in the strategy), or say where the answer starts "
        "(answer_after, with a larger max_tokens), or reword the prompt so that the answer begins with yes or no"
    )
    return Finding(NAME, "fail" if unreadable > len(given) / 2 else "warn", seen, meaning, change)


def _list(shares: dict[str, float]) -> str:
    named = [each for each in shares.items() if each[1] >= _WORTH_NAMING]
    best = sorted(named, key=lambda each: -each[1])[:_SHOWN]
    return ", ".join(f"{token!r} {share:.0%}" for token, share in best)
