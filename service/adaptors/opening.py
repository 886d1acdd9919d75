"""From what a user gives an adaptor to a `Ranker`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from fieldscope.service.adaptors.documents import Ranker
from fieldscope.service.adaptors.in_process import InProcess
from fieldscope.service.adaptors.served import Service
from fieldscope.service.workflows.blocking import Reranker

if TYPE_CHECKING:
    GivenRanker: TypeAlias = str | Reranker | Ranker


def open_ranker(ranker: GivenRanker) -> Ranker:
    """A `Reranker`, the URL of a running service, or a `Service` with options of its own. Raises `ConfigError` for a
    text that is no URL."""
    if isinstance(ranker, str):
        return Service(ranker)
    return InProcess(ranker) if isinstance(ranker, Reranker) else ranker
