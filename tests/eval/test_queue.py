"""The review queue: its draws and their probabilities stay, and intervals from them hold the truth."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from fieldscope.agent.types import RankedCandidate, RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.eval.labels.anytime import anytime_interval
from fieldscope.eval.labels.estimates import report
from fieldscope.eval.labels.queue import ReviewQueue, labelled, waiting
from fieldscope.eval.runs.marks import Mark

CONFIDENCE = 0.95


def ranking(p_match: np.ndarray) -> RerankResult:
    ranked = tuple(
        RankedCandidate(image_id=str(at), rank=at + 1, score=float(p), prior=0.0, prior_rank=at + 1, p_match=float(p))
        for at, p in enumerate(p_match)
    )
    return RerankResult(query_id="q", query_text="a crab", strategy="agent", ranking=ranked)


def test_draws_stay_with_their_probabilities_and_uncertain_images_come_first(tmp_path: Path) -> None:
    result = ranking(np.linspace(0.99, 0.01, 60))
    queue = ReviewQueue(tmp_path, "q/1")
    file = queue.draw(result, 20)
    assert (len(file.lines), sum(line.how == "random" for line in file.lines)) == (20, 10)
    assert ReviewQueue(tmp_path, "q/1").draw(result, 0) == file
    order = waiting(file)
    assert [line.how for line in order[:4]] == ["next", "random", "next", "random"]
    assert {line.image for line in order} == {line.image for line in file.lines}
    more = queue.draw(result, 5)
    assert more.lines[:20] == file.lines and all(line.how == "next" for line in more.lines[20:])
    assert all(line.probability is not None and 0 < line.probability <= 1 for line in more.lines)
    marks: dict[str, Mark] = {order[0].image: "accepted", order[1].image: "unsure", "59": "rejected"}
    left = waiting(labelled(more, marks))
    assert {order[0].image, order[1].image} & {line.image for line in left} == set()
    with pytest.raises(ConfigError, match="claims no P"):
        ReviewQueue(tmp_path, "other").draw(result.model_copy(update={"ranking": (unsaid(result),)}), 5)


def unsaid(result: RerankResult) -> RankedCandidate:
    return result.ranking[0].model_copy(update={"p_match": None})


def test_marks_from_the_queue_hold_the_truth_wherever_one_stops(tmp_path: Path) -> None:
    """Lists whose P(match) is wrong where it is sure. People stop as soon as the interval looks good to them."""
    draws, rng = 40, np.random.default_rng(7)
    held = 0
    for number in range(draws):
        p_match = np.sort(rng.beta(0.5, 0.8, size=80))[::-1]
        matches = rng.random(80) < np.clip(0.25 + 0.5 * p_match, 0, 1)
        file = ReviewQueue(tmp_path, str(number)).draw(ranking(p_match), 24)
        marks: dict[str, Mark] = {}
        for line in sorted(file.lines, key=lambda each: (each.number, each.side)):
            marks[line.image] = "accepted" if matches[int(line.image)] else "rejected"
        truth = {side: [matches[int(each.image)] for each in file.ranked.side(side)] for side in ("above", "below")}
        sides = report(labelled(file, marks), CONFIDENCE)
        assert all(side.anytime is not None for side in sides)
        held += all(
            side.anytime is None or side.anytime[0] <= np.mean(truth[side.side]) <= side.anytime[1] for side in sides
        )
    assert held / draws >= 1 - 2 * (1 - CONFIDENCE) - 2 * sqrt(0.1 * 0.9 / draws)


def test_an_interval_by_hand() -> None:
    assert anytime_interval([1, 0, 1, 0], [1, 0, 1, 1], [0.25, 1 / 3, 0.5, 1.0], 4, CONFIDENCE) == (0.5, 0.75)
    low, high = anytime_interval([1.0] * 40, [1.0] * 40, [1 / (200 - n) for n in range(40)], 200, CONFIDENCE)
    assert 0.85 < low < 1.0 == high
    assert anytime_interval([], [], [], 10, CONFIDENCE) == (0.0, 1.0)


def test_a_wrong_probability_breaks_the_interval() -> None:
    """Draws that prefer matches: taken for random ones they mislead, with their probabilities they do not."""
    rng, images = np.random.default_rng(3), 300
    wrong = right = 0
    for _ in range(15):
        matches = rng.random(images) < 0.3
        weights = np.where(matches, 3.0, 1.0)
        left, labels, chances = np.arange(images), [], []
        for _ in range(60):
            share = weights[left] / weights[left].sum()
            at = rng.choice(len(left), p=share)
            labels.append(float(matches[left[at]]))
            chances.append(float(share[at]))
            left = np.delete(left, at)
        low, high = anytime_interval(labels, labels, chances, images, CONFIDENCE)
        right += low <= matches.mean() <= high
        low, high = anytime_interval(labels, labels, [1 / (images - n) for n in range(60)], images, CONFIDENCE)
        wrong += low <= matches.mean() <= high
    assert right >= 13 > wrong
