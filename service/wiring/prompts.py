"""Which set words the prompts: the one that the user names, or else the one that was written for the model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError, PromptError
from fieldscope.prompts.prompt import Prompt
from fieldscope.prompts.prompt_set import INSTRUCT, PromptSet, list_sets, open_prompt_set, shipped_set
from fieldscope.service.wiring.feedback import note
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.roles import Role
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.eval.runs.replay import Recording

BUNDLED = "fieldnotes"
"""The set for the bundled LMM, which knows the words of a picture book and no others."""


_DECIDING: tuple[Role, ...] = ("reasoner", "verifier", "judge")  # a captioner is asked about a reference image alone
_noted: set[Settings] = set()


def prompts_for(settings: Settings, made: Collection[Role] = ()) -> PromptSet:
    """The set for the LMMs of these settings, or the one that they name; a program `made` the LMMs of these roles.
    Where the bundled LMM has any of several roles, all are worded as it can read them, and a note says so. Raises
    `PromptError` for one that there is not."""
    named = [role for role in _DECIDING if role not in made]
    bundled = [role for role in named if settings.bundled([role])]
    if settings.prompts is None and 0 < len(bundled) < len(_DECIDING) and settings not in _noted:
        _noted.add(settings)
        note(
            f"The bundled LMM is the {' and the '.join(bundled)}, so the prompts of all roles are worded as it knows "
            f"them ({BUNDLED}). Give all roles other LMMs with --lmm, or choose a wording with --prompts."
        )
    return chosen_prompts(settings.prompts, bundled=bool(bundled))


def chosen_prompts(name_or_folder: str | Path | None, *, bundled: bool) -> PromptSet:
    """The set of this name or in this folder, or where none is given the one for the LMM: `bundled`, or any other. A
    prompt that a user's folder lacks comes from the LMM's set. Raises `PromptError` for one that there is not."""
    own = BUNDLED if bundled else INSTRUCT
    return open_prompt_set(name_or_folder or own, own)


def recorded_prompts(recording: Recording) -> PromptSet:
    """The wordings that recorded runs were made with. Raises `ConfigError` where they differ from run to run."""
    asking = [run.strategy for run in recording.runs if run.strategy.prompts]
    # Before there were sets, all models were asked in the wording that is now the bundled LMM's.
    names = sorted({strategy.prompt_set or BUNDLED for strategy in asking})
    if len(names) > 1:
        raise ConfigError(f"the recorded runs have different prompt sets ({', '.join(names)}); name one with --prompts")
    name = names[0] if names else INSTRUCT
    shipped = shipped_set(name if name in list_sets() else INSTRUCT)
    return _Recorded(name, shipped.folder, None, {p.name: p for strategy in asking for p in strategy.prompts})


@dataclass(frozen=True)
class _Recorded(PromptSet):
    """A shipped set in which `recorded` prompts are worded as runs have them."""

    recorded: Mapping[str, Prompt] = field(default_factory=dict)

    def load(self, name: str) -> Prompt:
        return self.recorded.get(name) or super().load(name)


def check_wordings(strategies: Sequence[Strategy], prompts: PromptSet) -> None:
    """Say which prompts of these strategies a user's folder does not have, and where they come from instead.

    Raises `PromptError` where it has none of them: then its files have other names.
    """
    if prompts.base is None:
        return
    used = _names(strategies)
    borrowed = [name for name in used if name not in prompts.own_names]
    if used and len(borrowed) == len(used):
        raise PromptError(
            f"{prompts.folder} has none of the prompts that are used ({', '.join(used)}); it has "
            f"{', '.join(prompts.own_names)}. Name its files like the prompts that they replace."
        )
    if borrowed:
        note(f"{prompts.name} has no {', '.join(borrowed)}; the wording of {prompts.base.name} is used for them.")


def _names(strategies: Iterable[Strategy]) -> list[str]:
    return list(dict.fromkeys(prompt.name for strategy in strategies for prompt in strategy.prompts))
