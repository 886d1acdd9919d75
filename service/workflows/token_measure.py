"""How many tokens a model reads of a prompt: asked of its server, or by the rule of its family."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fieldscope.service.wiring.prompt_tokens import QUESTION, prompt_tokens, usual_picture

if TYPE_CHECKING:
    from fieldscope.eval.tuning.estimate import Measure
    from fieldscope.service.wiring.settings import Settings


@dataclass(frozen=True)
class TokenMeasure:
    """A measure, and in `source` what it rests on, for people."""

    measure: Measure
    source: str


def measured_tokens(settings: Settings) -> TokenMeasure:
    """A measure by one question about one picture of usual size, which the settings' server is asked; it costs as many
    tokens. Raises an `LMMError` where it does not answer, or does not count."""
    from fieldscope.eval.tuning.estimate import CHARACTERS_PER_TOKEN, by_picture

    picture = usual_picture(settings)
    read = asyncio.run(prompt_tokens(settings, [picture]))
    width, height = picture.size
    source = f"the server, {read:,} for a picture of {width:,} x {height:,} pixels and a short question (measured)"
    return TokenMeasure(by_picture(read - len(QUESTION) / CHARACTERS_PER_TOKEN), source)


def tokens_by_rule(settings: Settings) -> TokenMeasure:
    """A measure by the rule of the model's family, found in its name, else by a rule of thumb. Asks nothing."""
    from fieldscope.eval.tuning.estimate import by_picture, rule_of_thumb
    from fieldscope.eval.tuning.picture_tokens import TOKENS_PER_PICTURE, family_of

    width, height = usual_picture(settings).size
    family = family_of(settings.model or "")
    if family is None:
        source = f"a rule of thumb, {TOKENS_PER_PICTURE} for a picture, since the model's name tells no known family"
        return TokenMeasure(rule_of_thumb, source)
    tokens = family.tokens(width, height)
    source = f"{family.name}'s rule, {tokens:,} for a picture of {width:,} x {height:,} pixels"
    return TokenMeasure(by_picture(tokens), source)
