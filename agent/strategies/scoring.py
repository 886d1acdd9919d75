"""The settings of the stage that lets a scoring model judge how well candidates fit."""

from __future__ import annotations

from fieldscope.agent.strategies.stage import Scope, Stage


class Score(Stage):
    """Let a scoring model (a cross-encoder, a reranker behind a server) say how well each candidate fits the query.

    Its scores are the ranking (fusion `score`), the prior (`retrieve.prior: scorer`), or evidence beside the prior
    (fusion `posterior`), where they also decide about which images the LMM is asked at all. `instruction` tells a
    scorer that takes one what a match is. With `predicates` the scorer answers the questions about the predicates,
    too, each as a query of its own, and the LMM is asked about none of them.
    """

    instruction: str | None = None
    predicates: bool = False

    def pairs(self, scope: Scope) -> float:
        """How many pairs of a text and an image are expected to be scored for a query."""
        images = max(scope.images, default=0)
        return images * (1 + (scope.predicates * scope.rounds if self.predicates else 0))
