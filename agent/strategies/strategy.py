"""A strategy: which stages run, with which prompts and model settings, and how their results become one score."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from core.errors import StrategyError
from core.fingerprint import fingerprint
from core.validation import parse_yaml, read_document, unknown_name, validated
from prompts.prompt import Prompt, load_prompt

_SHIPPED = Path(__file__).parent


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Retrieve(_Settings):
    """First stage, where no candidates are given: how many images to take."""

    top_k: int = Field(default=100, ge=1)


class Verify(_Settings):
    """Ask a yes/no question about each image.

    `top_k` is the window: only that many, best prior first, are asked about (None: all). `max_tokens`,
    `top_logprobs`, `answer_after` and `extra_body` go into the request; see `LMMRequest`.
    """

    prompt: Prompt
    top_k: int | None = Field(default=None, ge=1)
    max_tokens: int = Field(default=1, ge=1)
    top_logprobs: int = Field(default=20, ge=1, le=20)
    answer_after: str | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)

    @field_validator("prompt", mode="before")
    @classmethod
    def _load(cls, prompt: Any, info: ValidationInfo) -> Any:
        """A prompt's name or path, as a strategy file gives it; a path counts from the folder of that file."""
        if not isinstance(prompt, str):
            return prompt
        return load_prompt(Path(info.context or ".") / prompt if prompt.endswith(".md") else prompt)


class Fusion(_Settings):
    """How a score is made.

    - `prior`: the prior, as it is.
    - `p_yes`: P(yes).
    - `log_odds`: log-odds of P(yes), plus `prior_weight` times the prior, standardised over the query's candidates.
    """

    method: Literal["prior", "p_yes", "log_odds"]
    prior_weight: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _weight_belongs_to_log_odds(self) -> Self:
        if (self.prior_weight is not None) != (self.method == "log_odds"):
            raise ValueError("prior_weight goes with the method log_odds, and with no other")
        return self


class Strategy(_Settings):
    """A named, declarative choice of stages, prompts, model settings and fusion. `source` is the paper it follows."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = ""
    source: str = ""
    retrieve: Retrieve = Retrieve()
    verify: Verify | None = None
    fusion: Fusion

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if (self.verify is None) != (self.fusion.method == "prior"):
            raise ValueError("fusion.method is 'prior' where there is no stage 'verify', and only there")
        if self.verify is not None:
            self.verify.prompt.check_variables({"query"})
        return self

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Every prompt that this strategy may use."""
        return (self.verify.prompt,) if self.verify else ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides the rankings: settings and prompts, but not names and descriptions."""
        settings = self.model_dump(mode="json", include={"retrieve", "verify", "fusion"})
        if self.verify:
            settings["verify"]["prompt"] = self.verify.prompt.fingerprint
        return fingerprint(settings)


def load_strategy(name_or_path: str | Path) -> Strategy:
    """A shipped strategy by its name, or a user's own by the path of its file, which ends in `.yaml` or `.yml`.

    Raises `StrategyError` for an unknown name or an invalid file, `PromptError` where its prompt can't be used.
    """
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return _parse(path, str(path))
    name = str(name_or_path)
    if name not in list_strategies():
        raise StrategyError(f"{unknown_name('strategy', name, list_strategies())}; or give a file that ends in .yaml")
    return _parse(_SHIPPED / f"{name}.yaml", f"{name}.yaml")


def list_strategies() -> tuple[str, ...]:
    """The names of the shipped strategies, sorted."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.yaml")))


def _parse(path: Path, where: str) -> Strategy:
    data = parse_yaml(read_document(path, StrategyError), where, StrategyError)
    return validated(Strategy, data, where, StrategyError, context=path.parent)
