"""Labels for one ranked list: the file is begun or drawn on, and says what its labels are worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ConfigError

if TYPE_CHECKING:
    from fieldscope.eval.labels.estimates import SideReport
    from fieldscope.eval.labels.file import LabelFile

SAMPLE = 40
"""How many images a new file has, half of them above the line."""


def open_labels(
    path: Path, ranking: Path | None, line: float | None, seed: int, sample: int | None, following: int | None
) -> LabelFile:
    """The file at `path`, begun from a `ranking` where there is one, with `sample` more random draws and `following`
    more of those that tell most; it is written before it is returned. Raises `ConfigError`."""
    from fieldscope.eval.labels.draws import draw_next, draw_random
    from fieldscope.eval.labels.file import LabelFile, read_label_file, read_ranking

    if ranking is not None:
        if path.exists():
            raise ConfigError(
                f"{path} exists, and its labels would be lost. Leave --ranking out, or choose another file."
            )
        labels = LabelFile(read_ranking(ranking, line, seed))
        sample = SAMPLE if sample is None else sample
    elif line is not None:
        raise ConfigError("the line is drawn once, when the file is begun. Give --line together with --ranking.")
    else:
        labels = read_label_file(path)
    if sample:
        labels = draw_random(labels, sample)
    if following:
        labels = draw_next(labels, following)
    if ranking is not None or sample or following:
        labels.write(path)
    return labels


def report_data(labels: LabelFile, confidence: float) -> dict[str, Any]:
    """What the labels say, as one JSON-able object."""
    from fieldscope.eval.labels.estimates import report

    sides = report(labels, confidence)
    return {
        "query": labels.ranked.query,
        "line": labels.ranked.line,
        "confidence": confidence,
        "unlabelled": [line.image for line in labels.unlabelled],
        **{side.side: asdict(side) | {"matches": side.match_range} for side in sides},
    }


def report_lines(labels: LabelFile, confidence: float) -> Iterator[str]:
    """What the labels say, in sentences."""
    from fieldscope.eval.labels.estimates import report

    line = f"P(match) {labels.ranked.line:g}"
    above, below = report(labels, confidence)
    yield f"Above the line ({line} or more): {_shares(above, confidence)}"
    yield f"Below the line: {_counts(below, confidence)}"
    if above.weighted or below.weighted:
        yield (
            "With the images of --next, each weighted by the probability with which it was drawn (approximate): "
            + "; ".join(filter(None, (_weighted_share(above), _weighted_count(below))))
            + "."
        )
    held = [f"{name} {low:.3f} and {high:.3f}" for name, (low, high) in _anytimes(above, below)]
    if held:
        yield (
            "All draws by their probabilities, whenever one stops: the share of matches "
            f"{', and '.join(held)}, with a confidence of {confidence:g} for each."
        )
    if early := above.early + below.early:
        waiting = labels.unlabelled[0].image
        yield (
            f"{early} labels are left out for now, because they come after a drawn image without a label. Label "
            f"{waiting!r} first."
        )
    if left_out := above.left_out + below.left_out:
        yield f"{left_out} labels are left out, because their images were not drawn at random."


def _anytimes(above: SideReport, below: SideReport) -> Iterator[tuple[str, tuple[float, float]]]:
    for name, side in (("above the line lies between", above), ("below it between", below)):
        if side.anytime is not None:
            yield name, side.anytime


def _shares(side: SideReport, confidence: float) -> str:
    if side.exact is None:
        return _nothing(side)
    low, high = f"{side.exact.low:.3f}", f"{side.exact.high:.3f}"
    interval = f"lies between {low} and {high}" if low < high else f"is {low}"
    return f"{_labelled(side)}; the precision {interval} {_certain(side, confidence)}."


def _counts(side: SideReport, confidence: float) -> str:
    if side.exact is None or side.match_range is None:
        return _nothing(side)
    low, high = side.match_range
    numbers = f"{low} to {high}" if low < high else f"{low}"
    return f"{_labelled(side)}; {numbers} of the {side.images} images match {_certain(side, confidence)}."


def _certain(side: SideReport, confidence: float) -> str:
    if side.exact is not None and side.exact.labels == side.images:
        return "(all of them are labelled)"
    return f"with a confidence of {confidence:g} (exact)"


def _labelled(side: SideReport) -> str:
    assert side.exact is not None
    unsure = f", {side.exact.unsure} are unsure" if side.exact.unsure else ""
    return f"{side.exact.yes} of {side.exact.labels} images of the random sample match{unsure}"


def _nothing(side: SideReport) -> str:
    return f"none of the {side.images} images has a label yet." if side.images else "there are no images."


def _weighted_share(side: SideReport) -> str:
    if side.weighted is None:
        return ""
    return f"a precision of {side.weighted.estimate:.3f} above the line{_error(side.weighted.standard_error, '.3f')}"


def _weighted_count(side: SideReport) -> str:
    if side.weighted is None:
        return ""
    error = side.weighted.standard_error
    scaled = None if error is None else side.matches(error)
    return f"{side.matches(side.weighted.estimate):.1f} matches below it{_error(scaled, '.1f')}"


def _error(standard_error: float | None, form: str) -> str:
    return "" if standard_error is None else f" (standard error {standard_error:{form}})"
