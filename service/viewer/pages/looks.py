"""The closer looks at an image: which were taken, where on the picture, and what was answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fieldscope.agent.types import Predicate, Verdict
from fieldscope.core.errors import ImageError
from fieldscope.core.looks import Look
from fieldscope.retrieval.looked_at import stored_size
from fieldscope.service.viewer.runs.exchange import Exchange
from fieldscope.service.viewer.runs.run import Run


@dataclass(frozen=True)
class Answered:
    """A question that was asked of a look, with its call."""

    predicate: Predicate
    exchange: Exchange


@dataclass(frozen=True)
class TakenLook:
    """A closer look, in the order in which they were taken: `image_id` is that of what it shows."""

    number: int
    look: Look
    image_id: str
    answers: tuple[Answered, ...]


@dataclass(frozen=True)
class Frame:
    """The picture's size in pixels, which the boxes of regions are drawn in, and the looks at regions of it."""

    width: int
    height: int
    looks: tuple[TakenLook, ...]


def taken_looks(
    verdicts: Sequence[Verdict], predicates: Mapping[str, Predicate], known: Mapping[int, Exchange]
) -> tuple[TakenLook, ...]:
    """The looks of an image's verdicts, each once."""
    by_look: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.look is not None:
            by_look.setdefault(verdict.shown, []).append(verdict)
    return tuple(
        TakenLook(
            number,
            look,
            shown,
            tuple(
                Answered(
                    predicates.get(verdict.predicate)
                    or Predicate(id=verdict.predicate, question=verdict.predicate, kind="other"),
                    known[id(verdict)],
                )
                for verdict in of_look
            ),
        )
        for number, (shown, of_look) in enumerate(by_look.items(), start=1)
        if (look := of_look[0].look) is not None
    )


def frame(run: Run, image_id: str, looks: Sequence[TakenLook]) -> Frame | None:
    """What the boxes of regions are drawn in; None where there is none, or the picture can't be read."""
    regions = tuple(each for each in looks if each.look.region is not None)
    if not regions or isinstance(run.collection, str):
        return None
    try:
        return Frame(*stored_size(run.collection, image_id), regions)
    except ImageError:
        return None
