"""INQUIRE's published LMM answers and lists of the best images, ranked and measured as runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.service.wiring.feedback import warn
from fieldscope.service.wiring.inquire import open_rerank
from fieldscope.service.wiring.prompts import chosen_prompts
from fieldscope.service.workflows.evaluate import load_strategies

if TYPE_CHECKING:
    from fieldscope.agent.budget import Account, Budget
    from fieldscope.agent.roles import Role
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.agent.types import RerankResult
    from fieldscope.core.types import Candidate, Query
    from fieldscope.eval.benchmarks.inquire_answers import PublishedStudy
    from fieldscope.eval.benchmarks.inquire_cache import Scoring
    from fieldscope.eval.harness import Reranker
    from fieldscope.eval.measures.scoring import OfficialScores
    from fieldscope.eval.runs.rescore import Rescorer
    from fieldscope.eval.runs.runfolder import Fingerprinted
    from fieldscope.eval.types import RunSummary

ANSWERS = "the answers are the benchmark's published ones, asked in its own wording"
LISTS = "the candidates and their order are the benchmark's published ones, so nothing was searched for here"
OFFICIAL = "scored as INQUIRE's scripts score: by the number alone, equal numbers as ties"


@dataclass(frozen=True)
class PublishedRequest:
    """What to rank: a published `file` over a `benchmark`, which is a folder of INQUIRE-Rerank's Parquet files or of
    INQUIRE-Fullrank's tables.

    The file is a cache of an LMM's answers or a list of a CLIP's best images. Full retrieval needs such a list: where
    `file` has answers, `first_stage` names it. The best `top` images of a list are ranked.
    """

    file: Path
    benchmark: Path
    split: str | None = None
    first_stage: Path | None = None
    top: int = 100


def rank_published(
    request: PublishedRequest, names: Sequence[str], out: Path, scoring: Scoring = "fieldscope"
) -> list[RunSummary]:
    """Rank what was published, into `out/<strategy>/`: under strategies by name or file, or with the scoring `official`
    as INQUIRE's scripts do, into `out/official/`.

    Raises `BenchmarkError` for files of another kind, `ConfigError` for a strategy that asks more than was published.
    """
    from fieldscope.eval.benchmarks.inquire_answers import official_results
    from fieldscope.eval.harness import evaluate

    strategies = _strategies(request, names, scoring)
    study = _open(request, scoring)
    flag = ANSWERS if study.answers else LISTS
    official: OfficialScores | None = None
    rerankers: Sequence[Reranker]
    if scoring == "official":
        official = study.official_scores()
        _warn_of_unreadable(study)
        rerankers = [_Official(official_results(study, official), (flag, OFFICIAL))]
    else:
        rerankers = _rescorers(study, strategies, flag)
    provenance = {
        "lmm": f"published:{request.file.name}" if study.answers else None,
        "encoder": None,
        "seed": 0,
        "published": _source(request.file),
        **({"first_stage": _source(request.first_stage)} if request.first_stage else {}),
        **({"scoring": scoring} if scoring == "official" else {}),
    }
    return asyncio.run(
        evaluate(
            study.benchmark, rerankers, out, provenance=provenance, query_concurrency=1, live=False, official=official
        )
    )


def _strategies(request: PublishedRequest, names: Sequence[str], scoring: Scoring) -> list[Strategy]:
    """The strategies to rank under; the official scoring only takes the one that ranks by the number alone, as it
    does."""
    from fieldscope.eval.benchmarks.inquire_top_k import is_top_k

    lists = is_top_k(request.file)
    usual = "clip" if lists else "yes-no"
    if scoring == "official" and set(names) - {usual}:
        raise ConfigError(
            "INQUIRE's own scoring ranks by the published numbers alone; leave --strategy out, or use "
            "--scoring fieldscope"
        )
    strategies = load_strategies(names or (usual,), chosen_prompts(None, bundled=False))
    for strategy in strategies:
        if lists and strategy.stages:
            raise ConfigError(
                f"strategy {strategy.name!r} asks questions, and a list of images has no answers; name clip, or the "
                "cache of an LMM's answers with this list as --first-stage"
            )
        if not lists and (strategy.verify is None or strategy.verify.by_predicates or strategy.compare):
            raise ConfigError(
                f"strategy {strategy.name!r} asks questions without published answers; name one that asks the whole "
                "query about each image, such as yes-no or yes-no-fused"
            )
    return strategies


def _open(request: PublishedRequest, scoring: Scoring) -> PublishedStudy:
    """The queries with what was published about them. Raises `BenchmarkError`, and `ConfigError` for files that do not
    go together."""
    from fieldscope.eval.benchmarks.inquire_answers import PublishedStudy
    from fieldscope.eval.benchmarks.inquire_cache import answers_to, read_published_cache
    from fieldscope.eval.benchmarks.inquire_fullrank import is_fullrank
    from fieldscope.eval.benchmarks.inquire_lists import load_ranked_lists
    from fieldscope.eval.benchmarks.inquire_rerank import file_names
    from fieldscope.eval.benchmarks.inquire_top_k import is_top_k, read_top_k

    whole, lists = is_fullrank(request.benchmark), request.first_stage
    if is_top_k(request.file):
        if lists is not None:
            raise ConfigError(f"{request.file} is itself a list of images; leave --first-stage out")
        lists = request.file
    if whole and lists is None:
        raise ConfigError(
            f"{request.benchmark} is full retrieval, and answers alone do not say which images were found; name the "
            "list of the first stage with --first-stage, such as vit-h-14-378--top-1000.pkl"
        )
    if not whole and lists is not None:
        raise ConfigError(
            f"{lists} lists images of the whole collection, and {request.benchmark} has candidates of its own; name "
            "the folder of INQUIRE-Fullrank's tables"
        )
    if lists is not None:
        ranked = {query: listed.top(request.top) for query, listed in read_top_k(lists).items()}
        benchmark, candidates, paths = load_ranked_lists(request.benchmark, request.split, ranked)
    else:
        benchmark = open_rerank(request.benchmark, request.split)
        candidates = dict(benchmark.candidate_sets or {})
        paths = file_names(request.benchmark, request.split)
    if is_top_k(request.file):
        return PublishedStudy(benchmark, candidates, paths)
    texts = [query.text for query in benchmark.queries]
    answers = answers_to(read_published_cache(request.file, scoring), texts)
    return PublishedStudy(benchmark, candidates, paths, answers)


def _rescorers(study: PublishedStudy, strategies: Sequence[Strategy], flag: str) -> list[Rescorer]:
    from fieldscope.agent.resources import Resources
    from fieldscope.eval.runs.rescore import Rescorer

    results, resources = study.results(), Resources(study.benchmark.images, flags=(flag,))
    return [Rescorer(strategy, results, resources) for strategy in strategies]


def _warn_of_unreadable(study: PublishedStudy) -> None:
    answers = study.answers.answers if study.answers else {}
    if unreadable := sum(number is None for number in answers.values()):
        warn(
            f"{unreadable:,} of {len(answers):,} published answers can't be read. INQUIRE's script would stop at them; "
            "here they count as 0, as a refused request does there."
        )


def _source(file: Path) -> dict[str, str]:
    return {"file": file.name, "sha256": sha256(file.read_bytes()).hexdigest()}


@dataclass(frozen=True)
class _OfficialStrategy:
    """How INQUIRE's scripts rank published numbers, as a run's manifest records it."""

    name: str = "official"
    fingerprint: str = fingerprint({"scoring": "official"})
    prompts: tuple[Fingerprinted, ...] = ()
    prompt_set: str | None = None

    @property
    def roles_by_call(self) -> Mapping[str, Role]:
        return {}


class _Official:
    """A reranker that gives the results that INQUIRE's scripts come to."""

    account: Account | None = None
    strategy = _OfficialStrategy()

    def __init__(self, results: Mapping[str, RerankResult], flags: tuple[str, ...]) -> None:
        self._results, self._flags = results, flags

    async def rerank(
        self, query: Query, candidates: Sequence[Candidate] | None = None, *, budget: Budget | None = None
    ) -> RerankResult:
        return self._results[query.id].model_copy(update={"flags": self._flags})
