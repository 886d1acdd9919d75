"""M-BEIR's sixteen pairs of a data set and a task (arXiv 2311.17136, Table 8 of arXiv 2411.02571)."""

from __future__ import annotations

from dataclasses import dataclass

from fieldscope.core.documents import Modality

DATASETS = {
    "visualnews": 0,
    "fashion200k": 1,
    "webqa": 2,
    "edis": 3,
    "nights": 4,
    "oven": 5,
    "infoseek": 6,
    "fashioniq": 7,
    "cirr": 8,
    "mscoco": 9,
}
"""Data set -> the number before the colon of its queries' and candidates' ids."""

_TYPES: dict[int, tuple[int, Modality, Modality]] = {
    0: (1, "text", "image"),
    1: (2, "text", "text"),
    2: (3, "text", "image,text"),
    3: (4, "image", "text"),
    4: (5, "image", "image"),
    6: (6, "image,text", "text"),
    7: (7, "image,text", "image"),
    8: (8, "image,text", "image,text"),
}
"""The files' number of a task -> the papers', and what its queries and its candidates are. 5 is unused."""

_FASHION = ("fashion200k", "fashioniq")
MULTI_MODAL = "multi-modal queries"
SINGLE_MODAL = "single-modal queries"


@dataclass(frozen=True)
class MbeirTask:
    """A data set under a task: its `number` in the files, the papers' `type` (1 to 8), and what its queries and
    candidates are."""

    dataset: str
    number: int
    type: int
    query: Modality
    candidate: Modality

    @property
    def name(self) -> str:
        """As the files have it: `cirr_task7`."""
        return f"{self.dataset}_task{self.number}"

    @property
    def type_name(self) -> str:
        """As the papers number it: `7 image,text -> image`."""
        return f"{self.type} {self.query} -> {self.candidate}"

    @property
    def dataset_id(self) -> int:
        return DATASETS[self.dataset]

    @property
    def cutoff(self) -> int:
        """The depth of the recall that papers report: 10 for the fashion sets, else 5."""
        return 10 if self.dataset in _FASHION else 5

    @property
    def family(self) -> str:
        """Which of the two averages beside the one over all tasks it counts in."""
        return MULTI_MODAL if self.query == "image,text" else SINGLE_MODAL


def _task(dataset: str, number: int) -> MbeirTask:
    return MbeirTask(dataset, number, *_TYPES[number])


TASKS = {
    task.name: task
    for task in (
        _task("visualnews", 0),
        _task("mscoco", 0),
        _task("fashion200k", 0),
        _task("webqa", 1),
        _task("edis", 2),
        _task("webqa", 2),
        _task("visualnews", 3),
        _task("mscoco", 3),
        _task("fashion200k", 3),
        _task("nights", 4),
        _task("oven", 6),
        _task("infoseek", 6),
        _task("fashioniq", 7),
        _task("cirr", 7),
        _task("oven", 8),
        _task("infoseek", 8),
    )
}
"""By name, in the papers' order."""
