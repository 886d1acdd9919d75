"""What was fitted on a validation split: temperatures, weights, and what is to be expected of a model.

A calibration belongs to one model, one set of prompts and one first stage. Anywhere else the defaults below are used,
and the trace says `uncalibrated`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fieldscope.agent.lmm.identity import may_be
from fieldscope.agent.roles import ModelIdentity, role_identity, roles_by_model
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.types import Scale

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy


JOINT_PAYS = 0.005
"""The most mean average precision that joint answers may cost, to be worth the calls that they spare."""


class CalibrationKey(BaseModel):
    """What it was fitted for: the model that verifies, first stage (None where the priors were given), and the prompts
    of the questions about one image, of the comparisons, and of joint questions (name to fingerprint). `judge` is the
    model that compares, None where it is the same. `reading` and `comparisons_read` say how the probabilities of
    verdicts and comparisons were read, where not from one answer's log-probabilities. `scorer` is the fingerprint of
    the scoring model, with its instruction, None where the strategy uses none; where its scores are the prior, it is
    the first stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    prompts: Mapping[str, str]
    comparing: Mapping[str, str] = Field(default_factory=dict)
    joint: Mapping[str, str] = Field(default_factory=dict, exclude_if=lambda joint: not joint)
    encoder: str | None = None
    judge: str | None = Field(default=None, exclude_if=lambda judge: judge is None)  # as earlier versions wrote it
    reading: str = Field(default="", exclude_if=lambda reading: not reading)
    comparisons_read: str = Field(default="", exclude_if=lambda reading: not reading)
    scorer: str | None = Field(default=None, exclude_if=lambda scorer: scorer is None)


def calibration_key(
    model: ModelIdentity, strategy: Strategy, encoder: str | None, scorer: str | None = None
) -> CalibrationKey:
    """What a calibration of this strategy belongs to. Its prompts are those whose answers become probabilities.
    `encoder` and `scorer` are the fingerprints of first stage and scoring model, where there are any."""
    verify, compare = strategy.verify, strategy.compare
    asking = [verify.prompt, verify.whole] if verify else []
    if verify and verify.reason:
        asking += [verify.reason.prompt, verify.reason.whole]
    comparing = [compare.prompt, compare.reference] if compare else []
    together = [verify.joint.prompt] if verify and verify.joint else []
    verifier = role_identity(model, verify.asks) if verify else None
    judge = role_identity(model, compare.asks) if compare else None
    first = verifier or judge or next(iter(roles_by_model(model)), "")
    scored, reading = strategy.score, verify.reading if verify else ""
    if scored and scored.predicates:
        reading = ", ".join(filter(None, (reading, "predicates scored")))
    if scored and scorer and scored.instruction:
        scorer = fingerprint({"scorer": scorer, "instruction": scored.instruction})
    as_prior = strategy.retrieve.prior == "scorer"
    return CalibrationKey(
        model=first,
        prompts={prompt.name: prompt.fingerprint for prompt in asking if prompt},
        comparing={prompt.name: prompt.fingerprint for prompt in comparing},
        joint={prompt.name: prompt.fingerprint for prompt in together},
        encoder=scorer if as_prior else _first_stage(encoder, strategy.retrieve.instruction),
        judge=None if judge == first else judge,
        reading=reading,
        comparisons_read="samples" if compare and compare.reading == "samples" else "",
        scorer=scorer if scored and not as_prior else None,
    )


def _first_stage(encoder: str | None, instruction: str | None) -> str | None:
    """What decides the scale of the priors: the encoder, and the instruction under which it reads queries."""
    if encoder is None or instruction is None:
        return encoder
    return fingerprint({"encoder": encoder, "instruction": instruction})


class FirstLook(BaseModel):
    """What first stage and scoring model say of an image about which no question was asked: the log-odds of a match are
    `bias` + `prior_weight` × prior + `scorer_weight` × score, both standardised per query."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bias: float
    prior_weight: float = Field(ge=0)
    scorer_weight: float = Field(ge=0)


class LookWeights(BaseModel):
    """What one set of looks at an image says of a match, after as many looks at `regions`, at the region `around`
    them, at the `enhanced` picture and at `enhanced_regions`: `bias` plus, divided by `temperature`, `prior_weight` ×
    standing and the log-odds of each witness times its weight (`weights`, along
    `fieldscope.agent.closer_looks.WITNESSES`), these tempered by odds of its own for a miss and a false alarm.

    `moves` is by how much the last of these looks moved the log-odds of a match, by the kind of that look, as a
    standard deviation over images whose match was uncertain; `moves_small` the same over images whose subject seemed
    small.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    regions: int = Field(default=0, ge=0)
    around: int = Field(default=0, ge=0)
    enhanced: int = Field(default=0, ge=0)
    enhanced_regions: int = Field(default=0, ge=0)
    bias: float
    temperature: float = Field(default=1.0, gt=0)
    prior_weight: float = Field(ge=0)
    miss_odds: float = Field(gt=0)
    false_alarm_odds: float = Field(gt=0)
    weights: tuple[float, float, float, float, float, float]
    moves: Mapping[str, float] = Field(default_factory=dict)
    moves_small: Mapping[str, float] = Field(default_factory=dict)


class Calibration(BaseModel):
    """The fitted values; the defaults are for a model that was never measured.

    - `temperature` divides the log-odds that all predicates hold (above 1: the model is too sure of itself), and
      `whole_weight` multiplies those of the verdict on the whole query; `miss_odds` are the odds that a match's
      verdicts look like another image's, `false_alarm_odds` that another image's look like a match's (a file calls them
      `doubt` and `slip`); `part_cost` is what each part that fails takes from the log-odds besides;
    - `prior_weight` is for the prior's standing against the collection's background, and `bias` the log-odds of a match
      for an image of standing 0 that satisfies every predicate with certainty one half; `spread` is how wrong those
      log-odds may be, as a standard deviation; `prior_scale` standardises priors that come without a collection (None:
      they are standardised over the candidates);
    - `scorer_weight` is for the score of a scoring model beside the prior and 0 where it adds nothing to prior and
      verdicts; `first_look` is what prior and score say before any question (None: never measured, or the score says
      nothing); `scored_scale` and `scored_offset` turn the scorer's standardised scores of a predicate into log-odds
      that it holds; `scorer_values` and `predicate_values` standardise its scores (None: over the candidates);
    - `comparison_weight` is how much a comparison's evidence counts, `consistency` is how often both orders of a pair
      agreed (None: never measured), `position_bias` the log-odds for whatever is shown first;
    - `joint_temperature` divides the log-odds of joint answers about predicates, and `joint_whole_weight` multiplies
      those about the whole query, before they count like single ones; `joint_loss` is the mean average precision that
      they cost against single questions (None: never measured);
    - `edition`: how answers become probabilities; 1 is that of earlier versions (`agent/earlier.py`);
    - `nothing_below`: where the best P(match) of a query lies below it, nothing is said to match (None: the default of
      `agent/nothing.py`), `composed_nothing_below` the same for queries with a reference image, and
      `looked_nothing_below` for those at whose images closer looks were taken (None: no other);
    - `looks`: what each set of closer looks at an image is worth (empty: never measured);
    - `pass_rates`: by kind of predicate, the mean P(expected) over candidates;
    - `predicates_per_word`, `tokens`: what a dry run expects, predicates for a word of the query and mean tokens a call
      by stage.

    `split` and `benchmark` say where it was fitted, `queries` on how many, and `prompt_set` in whose wording.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    key: CalibrationKey | None = None
    benchmark: str = ""
    split: str = ""
    queries: int = 0
    edition: Literal[1, 2] = Field(default=2, exclude_if=lambda edition: edition == 1)  # as earlier versions wrote it
    prompt_set: str | None = Field(default=None, exclude_if=lambda name: name is None)  # as earlier versions wrote it
    temperature: float = Field(default=1.0, gt=0)
    whole_weight: float = Field(default=1.0, ge=0)
    miss_odds: float = Field(default=0.001, ge=0, validation_alias="doubt", serialization_alias="doubt")
    false_alarm_odds: float = Field(default=0.03, ge=0, validation_alias="slip", serialization_alias="slip")
    part_cost: float = Field(default=0.0, ge=0, exclude_if=lambda cost: cost == 0.0)
    prior_weight: float = Field(default=0.5, ge=0)
    scorer_weight: float | None = Field(default=None, ge=0, exclude_if=lambda weight: weight is None)
    first_look: FirstLook | None = Field(default=None, exclude_if=lambda look: look is None)
    prior_scale: Scale | None = Field(default=None, exclude_if=lambda scale: scale is None)
    scorer_values: Scale | None = Field(default=None, exclude_if=lambda scale: scale is None)
    predicate_values: Scale | None = Field(default=None, exclude_if=lambda scale: scale is None)
    scored_scale: float = Field(default=1.0, ge=0, exclude_if=lambda scale: scale == 1.0)
    scored_offset: float = Field(default=0.0, exclude_if=lambda offset: offset == 0.0)
    bias: float = 0.0
    spread: float = Field(default=1.0, gt=0)
    comparison_weight: float = Field(default=1.0, ge=0)
    position_bias: float = 0.0
    consistency: float | None = Field(default=None, ge=0, le=1)
    joint_temperature: float = Field(default=1.0, gt=0)
    joint_whole_weight: float = Field(default=1.0, ge=0)
    joint_loss: float | None = None
    nothing_below: float | None = Field(default=None, ge=0, le=1, exclude_if=lambda threshold: threshold is None)
    looks: tuple[LookWeights, ...] = Field(default=(), exclude_if=lambda looks: not looks)
    composed_nothing_below: float | None = Field(
        default=None, ge=0, le=1, exclude_if=lambda threshold: threshold is None
    )
    looked_nothing_below: float | None = Field(default=None, ge=0, le=1, exclude_if=lambda threshold: threshold is None)
    pass_rates: Mapping[str, float] = Field(default_factory=dict)
    predicates_per_word: float = Field(default=0.5, gt=0)
    tokens: Mapping[str, float] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _without_edition(cls, data: Any) -> Any:
        """A fit that an earlier version wrote does not say so."""
        written = isinstance(data, dict) and isinstance(data.get("key"), dict)
        return {"edition": 1, **data} if written else data

    @property
    def knows_joint(self) -> bool:
        """Whether joint answers were measured."""
        return self.joint_loss is not None

    @property
    def joint_pays(self) -> bool:
        """Whether joint answers were measured, and rank about as well as single ones."""
        return self.joint_loss is not None and self.joint_loss <= JOINT_PAYS

    def fits(self, key: CalibrationKey) -> bool:
        """Whether it was fitted for this model, as far as its identity was known then, this first stage, this scoring
        model and these prompts. It may have further prompts of comparisons and of joint questions, so that a strategy
        that only verifies shares the fit of one that also compares; without any joint ones it says nothing of joint
        answers."""
        return (
            self.key is not None
            and may_be(self.key.model, key.model)
            and (self.key.encoder, self.key.prompts, self.key.reading) == (key.encoder, key.prompts, key.reading)
            and self.key.scorer == key.scorer
            and key.comparing.items() <= self.key.comparing.items()
            and (not self.key.joint or key.joint.items() <= self.key.joint.items())
            and (not key.comparing or may_be(self.key.judge or self.key.model, key.judge or key.model))
            and (not key.comparing or self.key.comparisons_read == key.comparisons_read)
        )


UNCALIBRATED = Calibration()


def earlier_uncalibrated(prior_weight: float | None) -> Calibration:
    """What runs of earlier versions had where nothing was fitted, with the weight that their strategy gave the
    prior."""
    return Calibration(edition=1, prior_weight=prior_weight or 0.0)
