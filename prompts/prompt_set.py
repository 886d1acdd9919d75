"""A set of prompts: a folder with one file for each prompt that strategies name.

A strategy says which prompts its stages use; the set says how these are worded. `instruct` is written for
instruction-tuned models. A folder of a user's own may have some of the prompts, and the others come from its base.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fieldscope.core.errors import PromptError
from fieldscope.core.validation import unknown_name
from fieldscope.prompts.prompt import Prompt, read_prompt

INSTRUCT = "instruct"
"""The set for every model that another one was not written for."""

_SHIPPED = Path(__file__).parent


@dataclass(frozen=True)
class PromptSet:
    """The prompts in `folder`, by their names. A name that it lacks is looked up in `base`, if there is one, and so are
    the forms of a prompt that has none."""

    name: str
    folder: Path
    base: PromptSet | None = None

    @property
    def own_names(self) -> tuple[str, ...]:
        """The names of the prompts in the folder itself, sorted."""
        return tuple(sorted(path.stem for path in self.folder.glob("*.md")))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all prompts, with those of the base, sorted."""
        return tuple(sorted({*self.own_names, *(self.base.names if self.base else ())}))

    def origin(self, name: str) -> str:
        """The name of the set that words a prompt: this one, or its base."""
        return self.name if self.base is None or self._has(name) else self.base.name

    def load(self, name: str) -> Prompt:
        """A prompt by its name. Raises `PromptError` for a name that there is not, and for a file that can't be
        used."""
        path = self.folder / f"{name}.md"
        if self.base is not None and name in self.base.names:
            based = self.base.load(name)
            if not self._has(name):
                return based
            own = read_prompt(path)
            fits = own.forms is None and own.answer == based.answer
            return own.model_copy(update={"forms": based.forms}) if fits else own
        if self._has(name):
            return _read_shipped(path) if self.base is None else read_prompt(path)
        raise PromptError(
            f"{unknown_name('prompt', name, self.names)}; or give a file that ends in .md (prompt set {self.name})"
        )

    def _has(self, name: str) -> bool:
        """Whether a prompt lies in the folder itself."""
        return Path(name).name == name and (self.folder / f"{name}.md").is_file()


@cache
def _read_shipped(path: Path) -> Prompt:
    """A shipped prompt, which many strategies share."""
    return read_prompt(path, path.name)


@cache
def list_sets() -> tuple[str, ...]:
    """The names of the shipped sets, sorted."""
    return tuple(sorted(path.parent.name for path in _SHIPPED.glob("*/match_yes_no.md")))


@cache
def shipped_set(name: str) -> PromptSet:
    """A shipped set by its name. Raises `PromptError` for a name that there is not."""
    if name not in list_sets():
        raise PromptError(f"{unknown_name('prompt set', name, list_sets())}; or give the folder of your own prompts")
    return PromptSet(name, _SHIPPED / name)


def open_prompt_set(name_or_folder: str | Path, base: str = INSTRUCT) -> PromptSet:
    """A shipped set by its name, or a user's own by its folder: files that end in .md and are named as the prompts
    that they replace. `base` is the shipped set that has the others.

    A folder's set is named like the folder, with a slash at the end. Raises `PromptError` where there is neither, and
    for a folder with a file that no shipped prompt is named like.
    """
    if str(name_or_folder) in list_sets():
        return shipped_set(str(name_or_folder))
    folder = Path(name_or_folder).expanduser()
    if not folder.is_dir():
        raise PromptError(
            f"{unknown_name('prompt set', str(name_or_folder), list_sets())}; or give the folder of your own prompts"
        )
    own = PromptSet(f"{folder.resolve().name}/", folder, shipped_set(base))
    if not own.own_names:
        raise PromptError(f"{folder} has no prompts; put .md files named like those of `fieldscope prompts list` there")
    return own


def load_prompt(name_or_path: str | Path, prompts: PromptSet | str = INSTRUCT) -> Prompt:
    """A prompt of a set by its name, or a user's own by the path of its file, which ends in `.md`.

    `prompts` is a set, or what names one for `open_prompt_set`. Raises `PromptError` for an unknown name and for a
    file that can't be used.
    """
    path = Path(name_or_path)
    if path.suffix == ".md":
        return read_prompt(path)
    chosen = prompts if isinstance(prompts, PromptSet) else open_prompt_set(prompts)
    return chosen.load(str(name_or_path))


def list_prompts(prompts: PromptSet | str = INSTRUCT) -> tuple[str, ...]:
    """The names of a set's prompts, sorted."""
    return (prompts if isinstance(prompts, PromptSet) else open_prompt_set(prompts)).names
