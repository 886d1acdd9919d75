"""Modality-aware hard negatives (MM-Embed, arXiv 2411.02571), mined from what a retriever finds first.

Two kinds: documents of the wrong modality above the positive, and documents of the right modality so far down that they
are unlikely to be positives that nobody labelled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fieldscope.core.documents import Modality
from fieldscope.core.errors import ConfigError, first_line
from fieldscope.core.files import replacing
from fieldscope.retrieval.training.queries import TrainingQuery, TrainingSet

TOP = 50
"""How far down negatives are looked for; a positive that is further down counts as one after that."""

BELOW = 45
"""Negatives of the right modality are at ranks after this one."""


class Negative(BaseModel):
    """A document, its rank from 1, and what it is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    document: str
    rank: int
    modality: Modality


class Mined(BaseModel):
    """A query's hard negatives of both kinds, by rank. `positive_rank` is that of its best positive, None where none is
    among the first 50."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: str
    task: str
    positive_rank: int | None
    wrong_modality: tuple[Negative, ...] = ()
    right_modality: tuple[Negative, ...] = ()


def mine(query: TrainingQuery, ranked: Sequence[str], modality: Mapping[str, Modality]) -> Mined:
    """The hard negatives of a query among the documents that were found for it, the best first."""
    found = [
        Negative(document=document_id, rank=rank, modality=modality[document_id])
        for rank, document_id in enumerate(ranked[:TOP], start=1)
    ]
    positives = frozenset(query.positives)
    positive_rank = next((each.rank for each in found if each.document in positives), None)
    above = positive_rank or TOP + 1
    others = [each for each in found if each.document not in positives]
    return Mined(
        query=query.id,
        task=query.task,
        positive_rank=positive_rank,
        wrong_modality=tuple(each for each in others if each.rank < above and each.modality != query.wanted),
        right_modality=tuple(each for each in others if each.rank > BELOW and each.modality == query.wanted),
    )


def mine_all(training: TrainingSet, ranked: Iterable[Sequence[str]]) -> dict[str, Mined]:
    """The hard negatives of every query, by its id, from the rankings of all queries in their order."""
    modality = {document_id: training.modality(document_id) for document_id in training.pool}
    return {
        query.id: mine(query, documents, modality) for query, documents in zip(training.queries, ranked, strict=True)
    }


def counts(mined: Iterable[Mined]) -> dict[str, int]:
    """How many queries and negatives there are of each kind."""
    each = list(mined)
    return {
        "queries": len(each),
        "wrong_modality": sum(len(one.wrong_modality) for one in each),
        "right_modality": sum(len(one.right_modality) for one in each),
        "queries_with_wrong_modality": sum(bool(one.wrong_modality) for one in each),
        "queries_with_right_modality": sum(bool(one.right_modality) for one in each),
        "queries_without": sum(not (one.wrong_modality or one.right_modality) for one in each),
    }


def write_mined(path: Path, mined: Iterable[Mined]) -> None:
    """Write negatives as JSON lines, one for each query."""
    with replacing(path) as partial:
        partial.write_text("".join(f"{json.dumps(each.model_dump())}\n" for each in mined), encoding="utf-8")


def read_mined(path: Path) -> dict[str, Mined]:
    """The negatives in a file, by query. Raises `ConfigError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return {each.query: each for each in (Mined.model_validate_json(line) for line in lines)}
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read ({first_line(error)}); remove it, and rerun this command") from error
