"""A server's refusal of a request, and which parameter its words are about.

Servers say it in many ways: `Unsupported parameter: 'max_tokens' is not supported with this model`, `Extra inputs are
not permitted` with the field's place, `Unknown name "seed"`, `Logprobs is not enabled for models/x`. So a parameter is
what the error names as its `param` or place, else what its sentence names first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

_NAMES = {
    "tokens": r"max_(?:completion_|output_|new_)?tokens|maxOutputTokens|max(?:imum)? (?:output|completion) tokens",
    "logprobs": r"(?:top_?)?log_?prob(?:s|abilit(?:y|ies))?|log[ -]probabilit(?:y|ies)|responseLogprobs",
    "temperature": r"temperature",
    "seed": r"seed",
    "response_format": r"response[_ ]?format|responseSchema|response_?schema|json[_ ]?schema|structured outputs?"
    r"|guided[_ ](?:json|decoding)",
}
_DENIED = re.compile(
    r"unsupported|(?:not|n.t|never) (?:\w+ )?(?:support|permit|allow|accept|enable|avail|recogni|implement|compatib"
    r"|expect|valid|be used|take)\w*|no longer|unknown|unrecogni[sz]ed|unexpected|unavailable|extra (?:input|field)"
    r"|cannot find|disabled|deprecated|forbidden|\bonly\b|invalid (?:schema|parameter|argument|field|temperature)"
    r"|extra_forbidden",
    re.IGNORECASE,
)
_CORRECTED = re.compile(r"\b(?:must|should|has to) be\b|\binvalid\b", re.IGNORECASE)
_LIMITED = re.compile(
    r"less than|at most|max(?:imum)?\b(?!_)|between|\brange\b|<=?|exceed|greater than|too (?:many|large)|out of|above",
    re.IGNORECASE,
)
_FLOOR = re.compile(
    r"(?P<over>greater than (?!or equal)|more than |> ?(?!=))?"
    r"(?(over)|(?:>=|at least|minimum(?: value)?|(?:or )?equal to|between|range|not be (?:less|lower|smaller) than))"
    r"\D{0,24}?(?P<number>\d+)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.:/-])\d+(?![\w/-]|\.\d)")
_PARAM = re.compile(r"""['"]param['"]: ?['"]([\w.]+)['"]|['"]loc['"]: ?[\[(]['"]body['"], ?['"](\w+)['"]""")
_MOST = 4096  # a larger least number of tokens is no such thing


@dataclass(frozen=True)
class Refusal:
    """What a server said when it refused: its sentence in `words`, all that it wrote in `body`."""

    words: str
    body: str = ""

    def place(self, parameter: str) -> int | None:
        """Where the refusal names the parameter: -1 if the error has it as its `param` or place, else its index in the
        words; None where it does not."""
        pattern = re.compile(rf"(?<![A-Za-z0-9_])(?:{_NAMES[parameter]})(?![A-Za-z0-9_])", re.IGNORECASE)
        if self._param is not None:
            return -1 if pattern.search(self._param) else None
        named = pattern.search(self.words)
        return named.start() if named else None

    @property
    def denies(self) -> bool:
        """Whether it says that something is not taken at all."""
        return _DENIED.search(f"{self.words} {self.body}") is not None

    @property
    def corrects(self) -> bool:
        """Whether it says that something should have another value."""
        return _CORRECTED.search(self.words) is not None

    @property
    def limits(self) -> bool:
        """Whether it says that a number is too large."""
        return _LIMITED.search(self.words) is not None

    @cached_property
    def _param(self) -> str | None:
        named = _PARAM.search(self.body)
        return next(filter(None, named.groups())) if named else None


def upper_bound(words: str, sent: int) -> int | None:
    """The largest number that the words name and that is smaller than the one that was sent; None where they speak of
    no limit."""
    if not _LIMITED.search(words):
        return None
    return max((number for number in map(int, _NUMBER.findall(words)) if number < sent), default=None)


def lower_bound(words: str, sent: int) -> int | None:
    """The number that the words name as the least one, if it is larger than the one that was sent."""
    named = [int(found["number"]) + (found["over"] is not None) for found in _FLOOR.finditer(words)]
    return min((number for number in named if sent < number <= _MOST), default=None)
