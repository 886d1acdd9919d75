"""Published answers as verdicts, so that they are ranked, measured and traced like a model's own."""

from __future__ import annotations

from collections.abc import Mapping

from fieldscope.agent.types import Predicate, RankedCandidate, RerankResult, Verdict
from fieldscope.eval.benchmarks.inquire_cache import PublishedAnswers
from fieldscope.eval.types import Benchmark

MISSING = "it is not among the published answers"
UNREADABLE = "the published answer can't be read"


def published_results(
    benchmark: Benchmark, answers: PublishedAnswers, names: Mapping[str, str]
) -> dict[str, RerankResult]:
    """By query id: its candidates in the order of their prior, each with the verdict on the whole query that was
    published, in the wording in which it was asked. `names` are the images' file names. An answer that is missing, or
    can't be read, is unknown."""
    results = {}
    for query in benchmark.queries:
        candidates = sorted(benchmark.candidates(query.id) or (), key=lambda candidate: -candidate.prior)
        verdicts = []
        for candidate in candidates:
            key = names.get(candidate.image_id, ""), query.text
            p = answers.answers.get(key)
            verdicts.append(
                Verdict(predicate="query", image_id=candidate.image_id, state="answered", p_yes=p, p_expected=p)
                if p is not None
                else Verdict(
                    predicate="query",
                    image_id=candidate.image_id,
                    state="unknown",
                    error=UNREADABLE if key in answers.answers else MISSING,
                )
            )
        results[query.id] = RerankResult(
            query_id=query.id,
            query_text=query.text,
            strategy="published",
            predicates=(Predicate(id="query", question=answers.prompt(query.text), words=query.text),),
            ranking=tuple(
                RankedCandidate(image_id=c.image_id, rank=n, score=c.prior, prior=c.prior, prior_rank=n)
                for n, c in enumerate(candidates, start=1)
            ),
            verdicts=tuple(verdicts),
        )
    return results
