"""FieldNotes-Universal: the eight types of M-BEIR's tasks (arXiv 2311.17136) over pictures, captions, and both.

Queries and candidates are texts, pictures, or both; each task has a pool of its own, and all pools together are the
union, in which a query has to find what it wants among documents of every kind. In each pool matches stand among near
misses, which differ from them in one fact.
"""

from __future__ import annotations

import random
from functools import cache

from fieldscope.core.errors import BenchmarkError
from fieldscope.fieldnotes.queries import Split
from fieldscope.fieldnotes.scene import Scene
from fieldscope.fieldnotes.universal_drafts import DRAFTS
from fieldscope.fieldnotes.universal_records import UniversalDocument, UniversalQuery, UniversalSplit
from fieldscope.fieldnotes.universal_tasks import TASKS
from fieldscope.fieldnotes.universal_training import make_texts, make_training, plain

SIZES = {"validation": 12, "test": 25}
"""Queries of each task per split that is scored."""

MADE = {"training": make_training, "texts": make_texts}
"""The splits to train on, over documents of any kind and over texts alone. Their pool is one for all tasks."""


@cache
def load_universal(split: str) -> UniversalSplit:
    """A split, made from its name: always the same. Raises `BenchmarkError` for an unknown one."""
    if split in MADE:
        return MADE[split](_scored_scenes())
    if split not in SIZES:
        raise BenchmarkError(f"FieldNotes-Universal has no split {split!r}. Use one of {', '.join(SIZES)}")
    rng = random.Random(f"fieldnotes-universal-{split}-1")
    numbers = dict.fromkeys((task.dataset for task in TASKS), 0)
    documents: dict[str, UniversalDocument] = {}
    pools: dict[str, tuple[str, ...]] = {}
    queries: list[UniversalQuery] = []
    asked = dict(numbers)
    for task in TASKS:
        drafts = list(DRAFTS[task.name](rng, SIZES[split]))
        pool = list({(each.picture, each.text): each for draft in drafts for each in draft.documents}.values())
        rng.shuffle(pool)
        ids = []
        for document in pool:
            numbers[task.dataset] += 1
            ids.append(f"{task.dataset}:{numbers[task.dataset]}")
            documents[ids[-1]] = document
        pools[task.name] = tuple(ids)
        for draft in drafts:
            asked[task.dataset] += 1
            relevant = frozenset(did for did in ids if draft.matches(documents[did]))
            queries.append(
                UniversalQuery(f"{task.dataset}:{asked[task.dataset]}", task, draft.text, draft.picture, relevant)
            )
    return UniversalSplit(f"universal-{split}", documents, pools, tuple(queries))


def load_universal_pictures(split: str) -> Split:
    """The scenes that a split draws, numbered from 1."""
    scenes = load_universal(split).scenes.values()
    return Split(f"universal-{split}", {str(n): scene for n, scene in enumerate(scenes, start=1)}, (), {})


def _scored_scenes() -> frozenset[Scene]:
    """The scenes of all splits that are scored: of documents, and of queries' pictures."""
    splits = [load_universal(split) for split in SIZES]
    told = (document.about for split in splits for document in split.documents.values())
    return frozenset(map(plain, (*told, *(scene for split in splits for scene in split.scenes.values()))))
