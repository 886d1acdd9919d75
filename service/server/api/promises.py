"""A precision that a call wants promised: its fields, the promise from the service's labelled run, and the reply's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, Field

from fieldscope.core.errors import ConfigError
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.workflows.promise import CONFIDENCE, MOST

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.service.server.api.servedrun import Setting
    from fieldscope.service.workflows.promise import KeptImages, LabelledRun, Promise

PRECISION = Field(
    default=None,
    gt=0,
    le=MOST,
    allow_inf_nan=False,
    description="Keep the images above a threshold of P(match) that promises this precision, on average over queries "
    "like those of the service's labelled run. Results then say `kept`, and the reply has `cutoff`.",
    examples=[0.9],
)
CONFIDENT = Field(
    default=CONFIDENCE, gt=0, le=MOST, allow_inf_nan=False, description="How sure the promised precision must be."
)
"""The fields of a request for a promise."""

KEPT = Field(
    default=None,
    exclude_if=lambda kept: kept is None,
    description="Whether the image reaches the threshold of the promised precision, if one was requested.",
)


class CutoffReply(BaseModel):
    """The threshold of P(match), what is promised of the images that reach it, and how many of this ranking do. The
    promise is for the mean over queries like the `queries` labelled ones; `caveats` say what weakens it here."""

    threshold: float
    precision: float
    confidence: float
    queries: int
    kept_for: int = Field(description="For how many labelled queries something is kept.")
    observed: float = Field(description="Their mean precision.")
    recall: float | None = Field(description="The mean share of a labelled query's matches that is kept.")
    labelled: str
    promise: str
    kept: int
    caveats: list[str]

    @classmethod
    def of(cls, kept: KeptImages | None) -> Self | None:
        """What a reply says; None where nothing was promised."""
        return None if kept is None else cls.model_validate(kept.data())


CUTOFF = Field(default=None, exclude_if=lambda cutoff: cutoff is None)


@dataclass(frozen=True)
class Wanted:
    """The precision that a call wants promised, None for none, and the confidence."""

    precision: float | None = None
    confidence: float = CONFIDENCE


def promised(labelled: LabelledRun | None, wanted: Wanted, strategy: Strategy) -> Promise | None:
    """The promise of a call; None where it wants none. Raises `ApiError` (409) where there can be none."""
    if wanted.precision is None:
        return None
    if labelled is None:
        raise ApiError(
            409,
            "no_labelled_run",
            "the service has no labelled run, so it promises no precision. Start it with --precision-from",
        )
    try:
        return labelled.promise(wanted.precision, wanted.confidence, strategy)
    except ConfigError as error:
        raise ApiError(409, "not_promised", str(error)) from error


def require_setting(promise: Promise | None, setting: Setting, scorer: str | None) -> None:
    """Raise `ApiError` (409) where the promise is for other models than those that will rank. `scorer` is the
    fingerprint of the scoring model, None without one."""
    if promise is None:
        return
    try:
        promise.require_setting(setting.lmm, setting.calibration, setting.encoder, scorer)
    except ConfigError as error:
        raise ApiError(409, "not_promised", str(error)) from error
