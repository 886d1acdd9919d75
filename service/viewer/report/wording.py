"""How numbers and findings of a comparison of runs are spelled, wherever they are shown."""

from __future__ import annotations

import shlex

from fieldscope.eval.measures.paired import Paired
from fieldscope.eval.measures.run_comparison import Effect, ScoredComparison, ScoredPair, per_query
from fieldscope.eval.runs.scored import ScoredRun
from fieldscope.service.wiring.feedback import program, spelled

KINDS = {"iconic_group": "iconic group", "scientific_name": "scientific name"}


def percent(value: float) -> str:
    """A metric, in percent."""
    return f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A difference, in points of a percent, with its sign; `-` where nothing can be said."""
    if value is None:
        return "-"
    shown = f"{100 * value:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown


def interval(test: Paired) -> str:
    """Where the difference lies with a confidence of 95 %."""
    return f"{points(test.low)}..{points(test.high)}"


def p_value(p: float) -> str:
    """As one quotes it."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def p_holm(effect: Effect) -> str:
    """The adjusted p value, with a star where it is a finding."""
    return p_value(effect.p_holm) + ("*" if effect.significant else "")


def score(test: Paired) -> str:
    """Queries won, tied and lost."""
    return f"{test.wins}/{test.ties}/{test.losses}"


def detectable(effect: Effect) -> str:
    """The smallest difference that would have been found, in points; `-` where nothing can be said."""
    return "-" if effect.detectable is None else f"{100 * effect.detectable:.1f}"


def amount(money: float) -> str:
    """Money, with more digits where it is little."""
    return f"{money:,.2f}" if money >= 1 or money == 0 else f"{money:.3g}"


def kind_name(kind: str) -> str:
    """A kind of group in words."""
    return KINDS.get(kind, kind)


def trace_command(pair: ScoredPair, query: str) -> str:
    """What to type to see both traces of a query side by side."""
    quoted = (shlex.quote(str(part)) for part in (pair.a.folder, query, "--diff", pair.b.folder))
    return spelled(f"{program()} trace {' '.join(quoted)}")


def best_run(found: ScoredComparison) -> ScoredRun:
    """The run with the best mean of the main metric, the first of equals."""
    return max(found.runs, key=lambda run: run.mean(per_query(found.main)))


def findings(found: ScoredComparison) -> list[str]:
    """What the best run means for each of the others, a sentence each, in the main metric."""
    best = best_run(found)
    sentences = []
    for pair in found.pairs:
        if best not in (pair.a, pair.b):
            continue
        effect, forwards = pair.effects[found.main], pair.b is best
        other = pair.a if forwards else pair.b
        low, high = (effect.test.low, effect.test.high) if forwards else (-effect.test.high, -effect.test.low)
        gain = abs(effect.test.difference)
        within = f"95 % interval {points(low)} to {points(high)}, p {_holm_in_words(effect)}"
        if effect.significant:
            sentences.append(f"{best.name} beats {other.name} by {100 * gain:.1f} points ({within}).")
        else:
            sentences.append(f"{best.name} and {other.name} can't be told apart: {100 * gain:.1f} points ({within}).")
    return sentences


def _holm_in_words(effect: Effect) -> str:
    shown = p_value(effect.p_holm)
    return ("< 0.001" if shown.startswith("<") else f"= {shown}") + " after Holm"
