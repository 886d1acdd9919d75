"""An agentic reranker for text-to-image retrieval: a multimodal model looks at every candidate and says why.

    import fieldscope

    for image in fieldscope.rerank("a heron with a fish in its beak", "photos"):
        print(image.rank, image.image_id, image.reason)

Nothing is implemented here. A name is imported from where it lies when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget as Budget
    from fieldscope.agent.lmm.base import LMM as LMM
    from fieldscope.agent.lmm.base import LMMRequest as LMMRequest
    from fieldscope.agent.lmm.base import LMMResponse as LMMResponse
    from fieldscope.agent.strategies.strategy import Strategy as Strategy
    from fieldscope.agent.types import Comparison as Comparison
    from fieldscope.agent.types import Predicate as Predicate
    from fieldscope.agent.types import RankedCandidate as RankedCandidate
    from fieldscope.agent.types import Reason as Reason
    from fieldscope.agent.types import RerankResult as RerankResult
    from fieldscope.agent.types import TraceEvent as TraceEvent
    from fieldscope.agent.types import Verdict as Verdict
    from fieldscope.core.errors import BenchmarkError as BenchmarkError
    from fieldscope.core.errors import BrokenImageError as BrokenImageError
    from fieldscope.core.errors import BudgetError as BudgetError
    from fieldscope.core.errors import CacheError as CacheError
    from fieldscope.core.errors import CacheMissError as CacheMissError
    from fieldscope.core.errors import ConfigError as ConfigError
    from fieldscope.core.errors import ContextLengthError as ContextLengthError
    from fieldscope.core.errors import FieldscopeError as FieldscopeError
    from fieldscope.core.errors import FieldscopeWarning as FieldscopeWarning
    from fieldscope.core.errors import ImageError as ImageError
    from fieldscope.core.errors import ImageTooLargeError as ImageTooLargeError
    from fieldscope.core.errors import IndexMismatchError as IndexMismatchError
    from fieldscope.core.errors import LMMConnectionError as LMMConnectionError
    from fieldscope.core.errors import LMMError as LMMError
    from fieldscope.core.errors import LMMRateLimitError as LMMRateLimitError
    from fieldscope.core.errors import LMMRequestError as LMMRequestError
    from fieldscope.core.errors import LMMResponseError as LMMResponseError
    from fieldscope.core.errors import LMMServerError as LMMServerError
    from fieldscope.core.errors import PromptError as PromptError
    from fieldscope.core.errors import StrategyError as StrategyError
    from fieldscope.core.errors import VocabularyError as VocabularyError
    from fieldscope.core.types import Candidate as Candidate
    from fieldscope.core.types import ImageSource as ImageSource
    from fieldscope.core.types import Query as Query
    from fieldscope.core.types import Turn as Turn
    from fieldscope.eval.types import RunSummary as RunSummary
    from fieldscope.retrieval.encoder import Encoder as Encoder
    from fieldscope.service.wiring.settings import RoleModel as RoleModel
    from fieldscope.service.workflows.blocking import Reranker as Reranker
    from fieldscope.service.workflows.blocking import evaluate as evaluate
    from fieldscope.service.workflows.blocking import rerank as rerank
    from fieldscope.service.workflows.blocking import search as search
    from fieldscope.service.workflows.ranked_image import RankedImage as RankedImage
    from fieldscope.service.workflows.ranking import Ranking as Ranking
    from fieldscope.service.workflows.reports import Estimate as Estimate
    from fieldscope.service.workflows.reports import Evaluation as Evaluation
    from fieldscope.service.workflows.reports import LoadedRun as LoadedRun
    from fieldscope.service.workflows.reports import load_run as load_run
    from fieldscope.service.workflows.reranker import AsyncReranker as AsyncReranker

_ERRORS = (
    *("BenchmarkError", "BrokenImageError", "BudgetError", "CacheError", "CacheMissError", "ConfigError"),
    *("ContextLengthError", "FieldscopeError", "FieldscopeWarning", "ImageError", "ImageTooLargeError"),
    *("IndexMismatchError", "LMMConnectionError", "LMMError", "LMMRateLimitError", "LMMRequestError"),
    *("LMMResponseError", "LMMServerError", "PromptError", "StrategyError", "VocabularyError"),
)
_NAMES = {
    "fieldscope.agent.budget": ("Budget",),
    "fieldscope.agent.lmm.base": ("LMM", "LMMRequest", "LMMResponse"),
    "fieldscope.agent.strategies.strategy": ("Strategy",),
    "fieldscope.agent.types": (
        *("Comparison", "Predicate", "RankedCandidate", "Reason", "RerankResult", "TraceEvent", "Verdict"),
    ),
    "fieldscope.core.errors": _ERRORS,
    "fieldscope.core.types": ("Candidate", "ImageSource", "Query", "Turn"),
    "fieldscope.eval.types": ("RunSummary",),
    "fieldscope.retrieval.encoder": ("Encoder",),
    "fieldscope.service.wiring.settings": ("RoleModel",),
    "fieldscope.service.workflows.blocking": ("Reranker", "evaluate", "rerank", "search"),
    "fieldscope.service.workflows.ranked_image": ("RankedImage",),
    "fieldscope.service.workflows.ranking": ("Ranking",),
    "fieldscope.service.workflows.reports": ("Estimate", "Evaluation", "LoadedRun", "load_run"),
    "fieldscope.service.workflows.reranker": ("AsyncReranker",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULES)  # noqa: PLE0605  mypy reads the block above


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
