"""What all stages of a strategy have: settings, prompts, a role, and the calls that they are expected to make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from fieldscope.agent.roles import Role
from fieldscope.prompts.prompt import Prompt
from fieldscope.prompts.prompt_set import INSTRUCT, PromptSet, load_prompt, open_prompt_set

_KEYS = frozenset(
    {"api_key", "apikey", "authorization", "x_api_key", "bearer", "token", "access_token", "auth_token", "api_token",
     "password", "secret"}
)  # fmt: skip


@dataclass(frozen=True)
class PromptSource:
    """Where the prompts come from that a strategy file names: paths count from `folder`, names are looked up in
    `prompts`."""

    folder: Path
    prompts: PromptSet


def _load(prompt: Any, info: ValidationInfo) -> Any:
    """A prompt's name or path, as a strategy file gives it."""
    if not isinstance(prompt, str):
        return prompt
    source = info.context or PromptSource(Path(), open_prompt_set(INSTRUCT))
    return load_prompt(source.folder / prompt if prompt.endswith(".md") else prompt, source.prompts)


def _without_keys(extra: dict[str, Any]) -> dict[str, Any]:
    """Whatever a strategy holds is written to every run and to the response cache."""
    for name, value in extra.items():
        if name.lower().replace("-", "_") in _KEYS:
            raise ValueError(f"{name!r} would be written to every run; give the server's key as FIELDSCOPE_API_KEY")
        if isinstance(value, dict):
            _without_keys(value)
    return extra


THOUGHT_TOKENS = 120  # tokens that a thought is expected to have


Share = Annotated[float, Field(ge=0.0, le=1.0)]


PromptRef = Annotated[Prompt, BeforeValidator(_load)]


QUERY = frozenset({"query"})


ExtraBody = Annotated[dict[str, Any], AfterValidator(_without_keys)]


OwnWords = Literal["own_words"]
"""A prompt's `query` as the user worded it, not as it was thought out."""


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class PromptUse:
    """A prompt with the variables that it gets, those that it may have beside them, and the kind of answer that is
    read."""

    prompt: Prompt
    variables: frozenset[str]
    answer: str
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Scope:
    """What is known of a query before its stages run.

    `images` are the candidates of each round, `widened` the factors by which the rounds widen the window, `predicates`
    the questions that are expected; `composed` says that there is a reference image, `comparing` that comparisons pay
    for the model. Where `bound`, everything that can be needed is: every repair, and the most predicates.
    `verify` are the settings of that stage, with which other stages ask, too; `joint_pays` says that asking all
    questions about an image together pays for the model, `scored` that a scoring model answers the predicates. `turns`
    are the rounds of a dialogue.
    """

    composed: bool
    images: tuple[int, ...]
    widened: tuple[float, ...]
    predicates: float
    comparing: bool
    bound: bool
    verify: AskingStage | None = None
    joint_pays: bool = False
    scored: bool = False
    turns: int = 0

    @property
    def rounds(self) -> int:
        """How often the query may be thought out, at least 1."""
        return len(self.images)

    def attempts(self, settings: Structured) -> int:
        """How often a structured answer is asked for."""
        return 1 + settings.repairs if self.bound else 1


@dataclass(frozen=True)
class Calls:
    """Calls of one kind that a stage is expected to make for a query.

    `stage` is the name under which the trace counts them, and `like` that under which their tokens are measured.
    `images` are shown in each call, after the text `before`. An answer has about `answer` tokens, and at most
    `longest`.
    """

    stage: str
    prompt: Prompt
    number: float
    images: int
    answer: int
    longest: int
    before: str = ""
    like: str = ""


class Stage(Settings):
    """A stage of a strategy. `needs` names the stage without which it can't run."""

    needs: ClassVar[str | None] = None

    @property
    def open_ended(self) -> bool:
        """Whether the number of calls depends on the answers, so that it can only be bounded."""
        return False

    def prompt_uses(self) -> Iterator[PromptUse]:
        """Every prompt that the stage uses."""
        yield from ()

    def calls(self, scope: Scope) -> Iterator[Calls]:
        """The calls that the stage is expected to make for a query."""
        yield from ()


class AskingStage(Stage):
    """A stage that asks an LMM: the one that has its `role`, by default the role that `default_role` names."""

    default_role: ClassVar[Role]

    role: Role | None = None

    @property
    def asks(self) -> Role:
        """The role whose LMM the stage asks."""
        return self.role or self.default_role

    def roles_by_call(self) -> dict[str, Role]:
        """The role of each kind of call that the stage makes, by the name under which the trace counts it."""
        return {type(self).__name__.lower(): self.asks}


class Structured(Settings):
    """A question with a structured answer; where it can't be read, `repairs` more attempts that show the error."""

    prompt: PromptRef
    max_tokens: int = Field(default=512, ge=1)
    repairs: int = Field(default=1, ge=0, le=3)
    extra_body: ExtraBody = Field(default_factory=dict)
