"""Four queries that none of 499 pictures matches, with what the bundled LMM said of each: nothing may seem to match.

`unmatched_queries.json` was recorded by `python -m checks.unmatched_queries`, which also checks the pictures against
their scene graphs. The best P(match) was once 0.27 to 0.55 for these queries, because the prior decided among pictures
that the model had all refuted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldscope.agent.calibration import Calibration, calibration_key
from fieldscope.agent.context import Context
from fieldscope.agent.nodes.rank import rank
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.trace_nothing import nothing
from fieldscope.agent.types import Predicate, RerankResult, Verdict
from fieldscope.core.types import Candidate, Query, Scale
from fieldscope.fieldnotes.vocabulary import MODELS
from fieldscope.retrieval.collection import FilesCollection
from fieldscope.service.wiring.calibrations import SHIPPED, load_calibrations

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "unmatched_queries.json").read_text())


@pytest.fixture(scope="module")
def agent() -> Strategy:
    return load_strategy("agent", prompts="fieldnotes")


@pytest.fixture(scope="module")
def shipped(agent: Strategy) -> Calibration:
    """The calibration of the bundled models for this strategy."""
    fits = [
        fit
        for fit in load_calibrations(MODELS / SHIPPED)
        if fit.key and fit.key.joint == {} and fit.fits(calibration_key(fit.key.model, agent, fit.key.encoder))
    ]
    assert len(fits) == 1
    return fits[0]


def ranked(
    recorded: dict[str, Any], strategy: Strategy, calibration: Calibration | None, background: bool
) -> RerankResult:
    """The ranking of what was recorded; with a `background`, priors stand against all pictures as an index has it."""
    priors = np.array(recorded["priors"])
    usual = Scale(mean=float(priors.mean()), deviation=float(priors.std())) if background else None
    images = [Candidate(f"{n:03d}", prior, usual and usual.standing(prior)) for n, prior in enumerate(priors.tolist())]
    predicates = [Predicate.model_validate(predicate) for predicate in recorded["predicates"]]
    verdicts = [
        Verdict(
            predicate=predicate.id,
            image_id=image.image_id,
            state="answered",
            p_expected=p,
            p_yes=p if predicate.expected == "yes" else 1.0 - p,
        )
        for predicate in predicates
        for image, p in zip(images, recorded["p_expected"][predicate.id], strict=True)
        if p is not None
    ]
    state = RerankState.model_construct(
        query=Query(id="q", text=recorded["query"]),
        candidates=tuple(sorted(images, key=lambda image: (-image.prior, image.image_id))),
        predicates=tuple(predicates),
        verdicts=tuple(verdicts),
    )
    resources = Resources(FilesCollection({}), calibration=calibration)
    result: RerankResult = rank(state, Context(resources, strategy))["result"]
    return result


@pytest.mark.parametrize("background", [False, True], ids=["list", "index"])
@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["query"])
def test_nothing_matches(recorded: dict[str, Any], agent: Strategy, shipped: Calibration, background: bool) -> None:
    result = ranked(recorded, agent, shipped, background)
    said = nothing(result)
    assert said is not None
    assert said.judged == len(result.ranking) == 499
    assert max(candidate.p_match or 0.0 for candidate in result.ranking) == said.statistic < said.threshold
    first = [candidate.image_id for candidate in result.ranking[: len(said.nearest)]]
    assert [near.image for near in said.nearest] == first
    held = [len(near.holds) for near in said.nearest]
    assert held == sorted(held, reverse=True) and held[0] > 0


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["query"])
def test_a_model_that_was_never_measured_says_so_too(recorded: dict[str, Any], agent: Strategy) -> None:
    assert nothing(ranked(recorded, agent, None, background=True)) is not None
