"""Strategies once for each of several prompt sets or encoders, which their names then tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.prompts import prompts_for
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.evaluate import Contest, load_strategies

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


def worded_strategies(names: Sequence[str], prompt_sets: Sequence[str], settings: Settings) -> list[Strategy]:
    """Strategies by name or file, each that asks anything once in the wording of each set, which its name then tells:
    `yes-no~prompts=instruct`. Raises `ConfigError` where two would have the same name."""
    worded: dict[str, Strategy] = {}
    for prompt_set in dict.fromkeys(prompt_sets):
        own = replace(settings, prompts=prompt_set)
        for strategy in load_strategies(names, prompts_for(own)):
            name = strategy.name
            if strategy.prompts:
                name = f"{name}~prompts={(strategy.prompt_set or '').rstrip('/')}"
                if name in worded:
                    raise ConfigError(f"two of the prompt sets have the name {strategy.prompt_set!r}; rename a folder")
            worded[name] = strategy.model_copy(update={"name": name})
    return list(worded.values())


def by_encoder(strategies: Sequence[Strategy], settings: Settings, encoders: Sequence[str]) -> list[Contest]:
    """The strategies under each encoder, which their names tell where there are several. Raises `ConfigError` where two
    encoders would give the same name."""
    if len(encoders) < 2:
        return [Contest(replace(settings, encoder=encoders[0]) if encoders else settings, strategies)]
    texts: dict[str, str] = {}
    for encoder in encoders:
        if (other := texts.setdefault(encoder_text(encoder).casefold(), encoder)) != encoder:
            raise ConfigError(
                f"the encoders {other!r} and {encoder!r} would both name their runs {encoder_text(encoder)!r}; rename "
                "a folder, or evaluate them one after the other with --out"
            )
    return [
        Contest(replace(settings, encoder=encoder), [named_by_encoder(strategy, encoder) for strategy in strategies])
        for encoder in encoders
    ]


def named_by_encoder(strategy: Strategy, encoder: str) -> Strategy:
    """The strategy under a name that tells the encoder: `clip~encoder=ViT-L-14-openai`."""
    separator = "," if "~" in strategy.name else "~"
    return strategy.model_copy(update={"name": f"{strategy.name}{separator}encoder={encoder_text(encoder)}"})


def encoder_text(encoder: str) -> str:
    """An encoder's name with signs that file systems and shells take: of a folder the last part, of a server's model
    the model's name."""
    folder = Path(encoder.removeprefix("path:")).expanduser()
    name = folder.resolve().name if folder.is_dir() else encoder.rpartition("#")[2]
    return _UNSAFE.sub("-", name).strip("-.") or "encoder"
