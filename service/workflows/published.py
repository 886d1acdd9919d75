"""INQUIRE's published LMM answers, ranked and measured as runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.inquire import open_rerank
from fieldscope.service.wiring.prompts import chosen_prompts
from fieldscope.service.workflows.evaluate import load_strategies

if TYPE_CHECKING:
    from fieldscope.eval.types import RunSummary

FLAG = "the answers are the benchmark's published ones, asked in its own wording"


def rank_published(file: Path, benchmark: Path, names: Sequence[str], split: str | None, out: Path) -> list[RunSummary]:
    """Rank the benchmark's candidates by the answers in `file`, under strategies by name or file, into
    `out/<strategy>/`. Raises `BenchmarkError` for files of another kind, `ConfigError` for a strategy that asks more
    than the whole query about each image."""
    from fieldscope.agent.resources import Resources
    from fieldscope.eval.benchmarks.inquire_answers import published_results
    from fieldscope.eval.benchmarks.inquire_cache import answers_to, read_published_cache
    from fieldscope.eval.benchmarks.inquire_rerank import file_names
    from fieldscope.eval.harness import evaluate
    from fieldscope.eval.runs.rescore import Rescorer

    strategies = load_strategies(names, chosen_prompts(None, bundled=False))
    for strategy in strategies:
        if strategy.verify is None or strategy.verify.by_predicates or strategy.compare:
            raise ConfigError(
                f"strategy {strategy.name!r} asks questions without published answers; name one that asks the whole "
                "query about each image, such as yes-no or yes-no-fused"
            )
    loaded = open_rerank(benchmark, split)
    answers = answers_to(read_published_cache(file), [query.text for query in loaded.queries])
    results = published_results(loaded, answers, file_names(benchmark, split))
    rescorers = [Rescorer(strategy, results, Resources(loaded.images, flags=(FLAG,))) for strategy in strategies]
    source = {"file": file.name, "sha256": sha256(file.read_bytes()).hexdigest()}
    provenance = {"lmm": f"published:{file.name}", "encoder": None, "seed": 0, "published": source}
    return asyncio.run(evaluate(loaded, rescorers, out, provenance=provenance, query_concurrency=1, live=False))
