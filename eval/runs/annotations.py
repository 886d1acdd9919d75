"""People's marks on a run's verdicts and images: `annotations.jsonl` in its folder, a line for each mark.

The file is only added to. The last line about a verdict or an image counts, and one without a mark takes back those
before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fieldscope.eval.runs.jsonlines import JsonLines

NAME = "annotations.jsonl"
LONGEST_NOTE = 4000
"""Characters."""

Mark = Literal["right", "wrong"]
Said = Literal["holds", "fails"]


class Target(NamedTuple):
    """What a mark is about: the verdict on one predicate, or the image as a whole where `predicate` is None."""

    query_id: str
    image_id: str
    predicate: str | None


class Annotation(BaseModel):
    """A person's mark, made `at` a time (ISO 8601, UTC).

    On a verdict it says whether the model was right. `said` is what the verdict said then: that the image is as the
    predicate says, or that it is not. On an image it says whether the image matches the query; then `predicate` and
    `said` are None. A `mark` of None takes an earlier one back.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    query_id: str
    image_id: str
    predicate: str | None = None
    said: Said | None = None
    mark: Mark | None
    note: str = Field(default="", max_length=LONGEST_NOTE)
    at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def target(self) -> Target:
        """What it is about."""
        return Target(self.query_id, self.image_id, self.predicate)

    @property
    def holds(self) -> bool | None:
        """Whether the person found that the image is as the predicate says; None for a mark on an image."""
        return None if self.said is None else (self.said == "holds") == (self.mark == "right")


def read_annotations(folder: Path) -> list[Annotation]:
    """The marks that count, the latest last. Damaged and cut-off lines are left out; without a file there are none."""
    try:
        content = (folder / NAME).read_bytes()
    except OSError:
        return []
    found: dict[Target, Annotation] = {}
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            annotation = Annotation.model_validate_json(line)
        except ValidationError:
            continue
        found.pop(annotation.target, None)
        if annotation.mark is not None:
            found[annotation.target] = annotation
    return list(found.values())


def annotate(folder: Path, annotation: Annotation) -> None:
    """Put a mark on the disk. Raises `ConfigError` where the folder can't be written, or another process writes."""
    with closing(JsonLines(folder / NAME)) as file:
        file.recover()
        file.append([annotation.model_dump_json()])


def marked_truth(annotations: Iterable[Annotation]) -> dict[Target, bool]:
    """What people found of predicates on images, by what it is about."""
    return {each.target: each.holds for each in annotations if each.holds is not None}
