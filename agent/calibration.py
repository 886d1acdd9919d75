"""What was fitted on a validation split: temperatures, weights, and what is to be expected of a model.

A calibration belongs to one model, one set of prompts and one first stage. Anywhere else the defaults below are used,
and the trace says `uncalibrated`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from agent.strategies.strategy import Strategy


class CalibrationKey(BaseModel):
    """What it was fitted for: model, prompts (name to fingerprint), first stage (None where the priors were given)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    prompts: Mapping[str, str]
    encoder: str | None = None


def calibration_key(model: str, strategy: Strategy, encoder: str | None) -> CalibrationKey:
    """What a calibration of this strategy belongs to. Its prompts are those whose answers become probabilities."""
    prompts = []
    if strategy.verify is not None:
        prompts += [strategy.verify.prompt, *([strategy.verify.joint.prompt] if strategy.verify.joint else [])]
    if strategy.compare is not None:
        prompts += [strategy.compare.prompt, strategy.compare.reference]
    return CalibrationKey(model=model, prompts={prompt.name: prompt.fingerprint for prompt in prompts}, encoder=encoder)


class Calibration(BaseModel):
    """The fitted values; the defaults are for a model nobody has looked at yet.

    - `temperature` divides the log-odds of every verdict (above 1: the model is too sure of itself);
    - `prior_weight` is for the prior, standardised per query, and `bias` the log-odds of a match for an average
      candidate that satisfies every predicate with certainty one half; `spread` is how wrong those log-odds may be, as
      a standard deviation;
    - `comparison_weight` is how much a comparison's evidence counts, `consistency` is how often both orders of a pair
      agreed (None: never measured), `position_bias` the log-odds for whatever is shown first;
    - `pass_rates`: by kind of predicate, the mean P(expected) over candidates;
    - `predicates_per_word`, `tokens`: what a dry run expects, predicates for a word of the query and mean tokens a call
      by stage.

    `split` and `benchmark` say where it was fitted, `queries` on how many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: CalibrationKey | None = None
    benchmark: str = ""
    split: str = ""
    queries: int = 0
    temperature: float = Field(default=1.0, gt=0)
    prior_weight: float = Field(default=0.5, ge=0)
    bias: float = 0.0
    spread: float = Field(default=1.0, gt=0)
    comparison_weight: float = Field(default=1.0, ge=0)
    position_bias: float = 0.0
    consistency: float | None = Field(default=None, ge=0, le=1)
    pass_rates: Mapping[str, float] = Field(default_factory=dict)
    predicates_per_word: float = Field(default=0.5, gt=0)
    tokens: Mapping[str, float] = Field(default_factory=dict)

    def fits(self, key: CalibrationKey) -> bool:
        """Whether it was fitted for this model, this first stage and all of these prompts; further prompts are no harm,
        so that a strategy with fewer stages shares the fit of one with more."""
        return (
            self.key is not None
            and (self.key.model, self.key.encoder) == (key.model, key.encoder)
            and key.prompts.items() <= self.key.prompts.items()
        )


UNCALIBRATED = Calibration()
