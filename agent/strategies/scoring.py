"""The settings of the stage that lets a scoring model judge how well candidates fit."""

from __future__ import annotations

from pydantic import Field

from fieldscope.agent.strategies.stage import Scope, Stage


class Score(Stage):
    """Let a scoring model (a cross-encoder, a reranker behind a server) say how well each candidate fits the query.

    Its scores are the ranking (fusion `score`), the prior (`retrieve.prior: scorer`), or evidence beside the prior
    (fusion `posterior`), where they also decide about which images the LMM is asked at all. `instruction` tells a
    scorer that takes one what a match is. With `predicates` the scorer answers the questions about the predicates,
    too, each as a query of its own, and the LMM is asked about none of them.

    With `stop_below` an image is left out where the first answer about it is expected to change its P(match) by less,
    as the calibration has it before any question; without a calibration in which the scorer counts, none is.
    """

    instruction: str | None = None
    predicates: bool = False
    stop_below: float | None = Field(default=None, gt=0.0, lt=1.0)

    def pairs(self, scope: Scope) -> float:
        """How many pairs of a text and an image are expected to be scored for a query."""
        images = max(scope.images, default=0)
        return images * (1 + (scope.predicates * scope.rounds if self.predicates else 0))
