"""Where in the text of a message the advice begins: a clause that tells the reader to do something."""

from __future__ import annotations

import re

_CLAUSE = re.compile(r"(?:[;:!?]|\.(?=\s+[A-Z`{])|\s\()\s*|,\s(?=or\s|and\s|then\s|so\s)")
_LEAD = re.compile(
    r"(?:(?:or|and|then|so|else|please|otherwise|again,?)\s+|(?:to|if|where|when|for|in|with|after|before|on)\s[^,;]*,\s*)*",
    re.IGNORECASE,
)
_VERB = re.compile(
    r"(accept|add|allow|ask|build|change|check|choose|close|compare|convert|copy|correct|create|define|delete|"
    r"describe|download|drop|enable|encode|enlarge|evaluate|export|fetch|fill|find|finish|fit|fix|free|generate|give|"
    r"go|import|include|increase|index|install|keep|leave|let|list|load|lower|make|mark|move|name|omit|open|pass|"
    r"pick|pip|point|press|put|raise|rank|read|rebuild|reconnect|record|reduce|refresh|reinstall|reload|remove|"
    r"rename|repair|repeat|replace|rerun|resize|restart|restore|retry|return|review|run|save|say|score|see|"
    r"select|send|serve|set|shorten|show|shrink|spell|split|start|stop|store|submit|supply|switch|take|train|try|"
    r"turn|type|uninstall|unset|update|upgrade|upload|use|vary|verify|wait|write)"
    r"\s(?!asks\b)",
    re.IGNORECASE,
)
_CHOICES = re.compile(r"did you mean|known\b|one of |\S+ lists (them|all)|available\b|valid\b", re.IGNORECASE)


def split_advice(text: str, *, follows: bool = False) -> tuple[str, str]:
    """What happened, and what to do; either may be empty. Where nothing is to be done and `follows`, the second is what
    follows from the first."""
    cut = _advice_at(text, follows)
    return text[:cut].rstrip(" ;:,(."), _balanced(text[cut:]).strip(" ;:,")


def _advice_at(text: str, follows: bool) -> int:
    """The position where the advice begins; the text's length where there is none."""
    starts = [0, *(match.end() for match in _CLAUSE.finditer(text))]
    for start in starts:
        if _is_advice(text[start:]):
            return start
    consequence = re.search(r"[;:]\s|\.\s|,\s(?=so\s)", text)
    return consequence.end() if follows and consequence else len(text)


def _balanced(text: str) -> str:
    """Without a closing parenthesis that was opened before the text."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return text[:place] + text[place + 1 :]
    return text


def _is_advice(clause: str) -> bool:
    match = _LEAD.match(clause)
    return bool(_CHOICES.match(clause) or _VERB.match(clause, match.end() if match else 0))
