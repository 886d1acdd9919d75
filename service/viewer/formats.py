"""Numbers and states as text, for pages, reports and the terminal; `FILTERS` has them for the templates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Any, Literal

from markupsafe import Markup

from fieldscope.agent.lmm.identity import served_name
from fieldscope.agent.roles import ModelIdentity, model_text
from fieldscope.core.paths import without_folders
from fieldscope.eval.measures.paired import EVEN
from fieldscope.service.viewer.addresses import slug
from fieldscope.service.wiring.bundled import bundled_identity
from fieldscope.service.wiring.settings import BUNDLED

Side = Literal["better", "worse", "even"]

_KINDS = {"iconic_group": "iconic group", "scientific_name": "scientific name", "subject_size": "subject size"}


def side_of(gain: float) -> Side:
    """Whether a gain is better, worse, or no change beyond rounding."""
    if abs(gain) <= EVEN:
        return "even"
    return "better" if gain > 0 else "worse"


def percent(value: float | None, digits: int = 1) -> str:
    """A share between 0 and 1 in percent; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def signed(value: float | None, digits: int = 1) -> str:
    """A difference of shares in points, with its sign."""
    return odds(None if value is None else 100 * value, digits)


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with so many digits."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def count(value: int | None) -> str:
    """A whole number with separators."""
    return "–" if value is None else f"{value:,}"


def compact(value: float) -> str:
    """A number in a few characters: 0, 0.004, 12, 3.4k, 5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def amount(money: float) -> str:
    """An amount of money; small amounts have more digits."""
    return f"{money:,.2f}" if money >= 1 or money == 0 else f"{money:.3g}"


def p_value(p: float) -> str:
    """A p value as papers quote it."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def kind_name(kind: str) -> str:
    """A kind of group in words."""
    return _KINDS.get(kind, kind)


def shorten(text: str, length: int) -> str:
    """The text, cut to at most `length` characters."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def moved(ranks: int) -> str:
    """By how many ranks an image rose or fell."""
    return "=" if ranks == 0 else f"▲{ranks}" if ranks > 0 else f"▼{-ranks}"


def odds(value: float | None, digits: int = 2) -> str:
    """Log-odds with their sign, which goes where nothing else is left of them."""
    if value is None:
        return "–"
    shown = f"{value:+.{digits}f}"
    return shown.replace("-", "−") if re.search("[1-9]", shown) else shown[1:]


def chance(value: float | None, digits: int = 3) -> str:
    """A probability. One that is neither 0 nor 1 is never rounded to them."""
    if value is None:
        return "–"
    least = 10.0**-digits
    if 0.0 < value < least / 2:
        return f"<{least:.{digits}f}"
    if 1.0 - least / 2 < value < 1.0:
        return f">{1.0 - least:.{digits}f}"
    return f"{value:.{digits}f}"


def as_json(value: object, indent: int | None = None) -> str:
    """A value as JSON, for people to read."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


def identity(value: ModelIdentity | None) -> str:
    """A model's identity, those of several with their roles, or a fingerprint, with its hashes cut short; a dash where
    there is none."""
    return model_text(value, _cut_short) or "–"


def _cut_short(value: str) -> str:
    return re.sub(r"[0-9a-f]{16,}", lambda found: found[0][:8], value)


def readable(value: ModelIdentity | None) -> str | None:
    """The name of a model, or the names of several with their roles: that under which a server has it, `bundled`, or
    `local` with the beginning of its weights' hash; None where there is none."""
    return model_text(value, _named)


@cache
def _named(model: str) -> str:
    if model.startswith("local:"):
        with suppress(OSError):
            if model == bundled_identity():
                return BUNDLED
        return f"local {model.split(':')[1][:8]}"
    return served_name(model) or _cut_short(model)


def breakable(text: str) -> Markup:
    """A name that may be broken after what parts it, and nowhere else."""
    return Markup("<wbr>").join(re.split(r"(?<=[/:@#_])", text))


def day(moment: str) -> str:
    """The day of an ISO time, as people write it; what is none is shown as it is."""
    try:
        return f"{datetime.fromisoformat(moment):%-d %b %Y}"
    except ValueError:
        return moment


def hour(moment: str) -> str:
    """The time of the day of an ISO time; nothing where it is none."""
    try:
        return f"{datetime.fromisoformat(moment):%H:%M}"
    except ValueError:
        return ""


def duration(seconds: float) -> str:
    """A time in the two units that matter."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60:02} min"


def plural(number: int, one: str, many: str) -> str:
    """A count with its noun."""
    return f"{number:,} {one if number == 1 else many}"


FILTERS: dict[str, Callable[..., Any]] = {
    "percent": percent, "signed": signed, "decimal": decimal, "count": count, "moved": moved, "odds": odds,
    "json": as_json, "chance": chance,
    "identity": identity, "readable": readable, "models": model_text, "breakable": breakable, "day": day, "hour": hour,
    "without_folders": without_folders, "duration": duration, "plural": plural, "side": side_of, "kind": kind_name,
    "slug": slug,
}  # fmt: skip
