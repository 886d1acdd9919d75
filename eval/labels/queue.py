"""The review queue of a kept search: which of its images to look at next, with the probability of each draw.

The draws are those of `fieldscope label`, kept in `queues/` in the search's folder; a person's marks are their labels.
The first draws hold a random sample of both sides of the line, which exact intervals need; the others prefer uncertain
images. What waits is shown uncertain images first, and each random one at its turn, so that a queue that is left early
has labels of both. An image that was marked before it was drawn keeps its mark: leaving it out would bias the draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, zip_longest
from pathlib import Path
from urllib.parse import quote

from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.eval.labels.draws import draw_next, draw_random
from fieldscope.eval.labels.file import LINE, Label, LabelFile, LabelLine, ListedImage, RankedList, read_label_file
from fieldscope.eval.runs.marks import Mark

RANDOM_SHARE = 0.5
"""The share of the first draws that are random."""

_LABELS: Mapping[Mark, Label] = {"accepted": "yes", "rejected": "no", "unsure": "unsure"}


class ReviewQueue:
    """The queue of one query of the search in `folder`. Raises `ConfigError` where its file can't be read or written,
    and for a ranking without P(match)."""

    def __init__(self, folder: Path, query_id: str) -> None:
        self.path = folder / "queues" / f"{quote(query_id, safe='')}.jsonl"

    def draw(self, result: RerankResult, images: int, line: float = LINE) -> LabelFile:
        """Draw `images` more (0: none), and keep them before returning. The first call begins the queue, with the
        `line` between images above and below it."""
        file = read_label_file(self.path) if self.path.exists() else LabelFile(_listed(result, line))
        if not images:
            return file
        if not file.lines:
            file = draw_random(file, max(round(images * RANDOM_SHARE), 1))
            images -= len(file.lines)
        if images > 0:
            file = draw_next(file, images)
        file.write(self.path)
        return file


def labelled(file: LabelFile, marks: Mapping[str, Mark]) -> LabelFile:
    """The drawn images with people's marks as their labels."""
    lines = tuple(
        line.model_copy(update={"label": _LABELS[marks[line.image]] if line.image in marks else None})
        for line in file.lines
    )
    return LabelFile(file.ranked, lines)


def waiting(file: LabelFile) -> list[LabelLine]:
    """The drawn images without a label: the uncertain ones, each followed by a random one while there are some."""
    left = file.unlabelled
    uncertain = [line for line in left if line.how == "next"]
    at_random = [line for line in left if line.how == "random"]
    return [line for line in chain(*zip_longest(uncertain, at_random)) if line is not None]


def _listed(result: RerankResult, line: float) -> RankedList:
    if not result.ranking or any(ranked.p_match is None for ranked in result.ranking):
        raise ConfigError(
            f"strategy {result.strategy!r} claims no P(match), so nothing says which images are uncertain. Choose "
            "one that does, such as agent."
        )
    images = tuple(
        ListedImage(image=each.image_id, p_match=each.p_match) for each in result.ranking if each.p_match is not None
    )
    return RankedList(query=result.query_text, line=line, images=images)
