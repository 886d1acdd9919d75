"""Labels of a ranked list: how images are drawn, what the file keeps, and what the labels say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import binomtest

from fieldscope.core.errors import ConfigError
from fieldscope.eval.labels.draws import draw_next, draw_random, uncertainty
from fieldscope.eval.labels.estimates import SideReport, report
from fieldscope.eval.labels.file import (
    SIDES,
    LabelFile,
    LabelLine,
    ListedImage,
    RankedList,
    read_label_file,
    read_ranking,
)

P_MATCH = (0.99, 0.97, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.5, *(0.49 - 0.01 * place for place in range(40)))
"""Of 10 images above the line, and of 40 below."""


def new_file(seed: int = 0) -> LabelFile:
    images = tuple(ListedImage(image=str(place), p_match=p) for place, p in enumerate(P_MATCH))
    return LabelFile(RankedList(query="a crab", line=0.5, seed=seed, images=images))


def labelled(file: LabelFile, matches: set[str]) -> LabelFile:
    for line in file.unlabelled:
        file = file.labelled(line.image, "yes" if line.image in matches else "no")
    return file


def below(file: LabelFile) -> SideReport:
    return report(file, 0.95)[1]


def test_a_random_sample_is_half_above_the_line_and_grows_as_if_drawn_at_once() -> None:
    file = draw_random(new_file(), 8)
    assert [len(file.drawn(side)) for side in ("above", "below")] == [4, 4]
    grown, at_once = draw_random(file, 10), draw_random(new_file(), 18)
    assert [grown.drawn(side) == at_once.drawn(side) for side in SIDES] == [True, True]
    assert [line.probability for line in file.drawn("below")] == [1 / 40, 1 / 39, 1 / 38, 1 / 37]
    assert {line.image for line in draw_random(new_file(1), 8).lines} != {line.image for line in file.lines}


def test_a_side_with_few_images_is_drawn_whole() -> None:
    file = draw_random(new_file(), 30)
    assert [len(file.drawn(side)) for side in ("above", "below")] == [10, 20]
    assert len(draw_random(file, 500).lines) == len(P_MATCH)


def test_the_next_images_are_uncertain_ones_drawn_with_known_probabilities() -> None:
    file = draw_next(new_file(), 1)
    (line,) = file.lines
    of_side = file.ranked.side(line.side or "above")
    chosen = next(listed for listed in of_side if listed.image == line.image)
    assert line.probability == pytest.approx(uncertainty(chosen) / sum(map(uncertainty, of_side)))
    often = [draw_next(new_file(seed), 1).lines[0].image for seed in range(300)]
    near, far = (sum(image in group for image in often) for group in (("10", "11", "12"), ("47", "48", "49")))
    assert near > far > 0


def test_a_random_sample_can_not_grow_after_a_choice() -> None:
    with pytest.raises(ConfigError, match="--next"):
        draw_random(draw_next(draw_random(new_file(), 8), 2), 2)


def test_the_interval_of_a_random_sample_is_exact() -> None:
    file = labelled(draw_random(new_file(), 30), {"0", "1", "12"} | {str(place) for place in range(20, 30)})
    above, under = report(file, 0.95)
    assert above.exact is not None and under.exact is not None
    assert (above.exact.low, above.exact.high) == (0.2, 0.2)  # all 10 are labelled
    sample = [line.image for line in file.drawn("below")]
    yes = sum(20 <= int(image) < 30 or image == "12" for image in sample)
    expected = binomtest(yes, 20).proportion_ci(0.95, "exact")
    assert (under.exact.low, under.exact.high) == pytest.approx((expected.low, expected.high))
    assert under.match_range == (
        max(yes, -(-expected.low * 40 // 1)),
        expected.high * 40 // 1,
    )


def test_an_unsure_label_is_either() -> None:
    file = draw_random(new_file(), 8)
    first, second, *others = (line.image for line in file.drawn("below"))
    file = file.labelled(first, "yes").labelled(second, "unsure")
    for image in others:
        file = file.labelled(image, "no")
    exact = below(file).exact
    assert exact is not None and exact.estimate == pytest.approx(1 / 3)
    assert exact.low == pytest.approx(binomtest(1, 4).proportion_ci(0.95, "exact").low)
    assert exact.high == pytest.approx(binomtest(2, 4).proportion_ci(0.95, "exact").high)


def test_labels_of_ones_own_choice_and_after_a_gap_are_left_out() -> None:
    file = draw_random(new_file(), 8)
    drawn = file.drawn("below")
    file = file.labelled(drawn[0].image, "no").labelled(drawn[2].image, "yes")
    own = next(str(place) for place in range(10, 50) if str(place) not in {line.image for line in drawn})
    file = LabelFile(file.ranked, (*file.lines, LabelLine(image=own, label="yes")))
    under = below(file)
    assert under.exact is not None and (under.exact.labels, under.exact.yes) == (1, 0)
    assert (under.early, under.left_out) == (1, 1)


def test_weighted_estimates_are_right_on_average() -> None:
    """However wrong P(match) is: here the matches are those that it thinks least likely."""
    matches = {str(place) for place in range(30, 50)}
    estimates, errors = [], []
    for seed in range(150):
        file = labelled(draw_next(draw_random(new_file(seed), 8), 8), matches)
        weighted = below(file).weighted
        assert weighted is not None and weighted.standard_error is not None
        estimates.append(weighted.estimate)
        errors.append(weighted.standard_error**2)
        exact = below(file).exact
        assert exact is not None and exact.labels == 4  # the others are left out of it
    mean = sum(estimates) / len(estimates)
    variance = sum((estimate - mean) ** 2 for estimate in estimates) / len(estimates)
    assert mean == pytest.approx(0.5, abs=3 * (variance / len(estimates)) ** 0.5)
    assert sum(errors) / len(errors) == pytest.approx(variance, rel=0.4)


def test_the_file_comes_back_as_it_was(tmp_path: Path) -> None:
    file = labelled(draw_next(draw_random(new_file(), 8), 4), {"1"})
    file.write(tmp_path / "labels.jsonl")
    assert read_label_file(tmp_path / "labels.jsonl") == file


def test_programs_may_fill_in_true_and_false(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    draw_random(new_file(), 2).write(path)
    path.write_text(path.read_text(encoding="utf-8").replace('"label":null', '"label":true'), encoding="utf-8")
    assert [line.label for line in read_label_file(path).lines] == ["yes", "yes"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"label":null', '"label":"perhaps"', "line 2: label"),
        ('"number":1', '"number":2', "is missing, or is there twice"),
        ('"side":"above"', '"side":"below"', "does not lie below the line"),
        ('"how":"random"', '"how":"random"}{', "line 2: not valid JSON"),
        ('"probability"', '"chance"', "line 2: chance"),
    ],
)
def test_a_file_that_contradicts_itself(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "labels.jsonl"
    draw_random(new_file(), 2).write(path)
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_label_file(path)


def test_a_ranking_brings_its_line(tmp_path: Path) -> None:
    images = [{"image": "a", "p_match": 0.9, "path": None}, {"image": "b", "p_match": 0.1}]
    ranking: dict[str, object] = {"query": "a crab", "ranking": images}
    path = tmp_path / "ranking.json"
    path.write_text(json.dumps(ranking), encoding="utf-8")
    assert read_ranking(path, None, 0).line == 0.5
    path.write_text(json.dumps(ranking | {"cutoff": {"threshold": 0.86}}), encoding="utf-8")
    assert read_ranking(path, None, 0).line == 0.86
    assert read_ranking(path, 0.7, 0).line == 0.7
    ranking["ranking"] = [*images, {"image": "c", "p_match": None}]
    path.write_text(json.dumps(ranking), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"1 of 3 images have no P\(match\)"):
        read_ranking(path, None, 0)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no ranking"):
        read_ranking(path, None, 0)
