"""Published answers and lists as results, so that they are ranked, measured and traced like a model's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fieldscope.agent.types import Predicate, RankedCandidate, RerankResult, Verdict
from fieldscope.core.errors import BenchmarkError
from fieldscope.core.types import Candidate
from fieldscope.eval.benchmarks.inquire_cache import PublishedAnswers, image_key
from fieldscope.eval.measures.official import ranked, sorted_again
from fieldscope.eval.measures.scoring import OfficialScores
from fieldscope.eval.types import Benchmark

MISSING = "it is not among the published answers"
UNREADABLE = "the published answer was refused or can't be read"

_MEASURED = 50  # images of full retrieval that INQUIRE's scripts measure, their default `--k`


@dataclass(frozen=True)
class PublishedStudy:
    """Queries with what was published about their candidates.

    `candidates` stand in the order of the benchmark's files, each with its prior; `paths` are the images' file names.
    `answers` is None where the candidates' order is all that was published.
    """

    benchmark: Benchmark
    candidates: Mapping[str, Sequence[Candidate]]
    paths: Mapping[str, str]
    answers: PublishedAnswers | None = None

    def results(self) -> dict[str, RerankResult]:
        """By query id: its candidates in the order of their prior, each with the verdict on the whole query that was
        published, in the wording in which it was asked. An answer that is missing or can't be read is unknown."""
        return {query.id: self._result(query.id, query.text) for query in self.benchmark.queries}

    def official_scores(self) -> OfficialScores:
        """The number that INQUIRE's scripts rank each image by: its answer, else its prior. An answer that can't be
        read counts as 0, as a refused one does there.

        Raises `BenchmarkError` where an image has no answer: the scripts would ask the model then.
        """
        scores: dict[str, dict[str, float]] = {}
        for query in self.benchmark.queries:
            listed = self.candidates[query.id]
            if self.answers is None:
                scores[query.id] = {each.image_id: each.prior for each in listed}
                continue
            if missing := [each for each in listed if self._key(each, query.text) not in self.answers.answers]:
                raise BenchmarkError(
                    f"{len(missing):,} of {len(listed):,} images of the query {query.text!r} are not among the "
                    "published answers, so INQUIRE's script has no figure for it. Use --scoring fieldscope, which "
                    "takes them as unknown."
                )
            found = {each.image_id: self.answers.answers[self._key(each, query.text)] for each in listed}
            scores[query.id] = {image_id: number or 0.0 for image_id, number in found.items()}
        return scores

    def _result(self, query_id: str, text: str) -> RerankResult:
        candidates = sorted(self.candidates[query_id], key=lambda candidate: -candidate.prior)
        predicates: tuple[Predicate, ...] = ()
        verdicts: tuple[Verdict, ...] = ()
        if self.answers is not None:
            predicates = (Predicate(id="query", question=self.answers.prompt(text), words=text),)
            verdicts = tuple(self._verdict(candidate, text) for candidate in candidates)
        return RerankResult(
            query_id=query_id,
            query_text=text,
            strategy="published",
            predicates=predicates,
            ranking=tuple(
                RankedCandidate(image_id=c.image_id, rank=n, score=c.prior, prior=c.prior, prior_rank=n)
                for n, c in enumerate(candidates, start=1)
            ),
            verdicts=verdicts,
        )

    def _verdict(self, candidate: Candidate, text: str) -> Verdict:
        answers = self.answers.answers if self.answers else {}
        key = self._key(candidate, text)
        p = answers.get(key)
        if p is not None:
            return Verdict(predicate="query", image_id=candidate.image_id, state="answered", p_yes=p, p_expected=p)
        error = UNREADABLE if key in answers else MISSING
        return Verdict(predicate="query", image_id=candidate.image_id, state="unknown", error=error)

    def _key(self, candidate: Candidate, text: str) -> tuple[str, str]:
        return image_key(self.paths.get(candidate.image_id, "")), text


def official_results(study: PublishedStudy, scores: OfficialScores) -> dict[str, RerankResult]:
    """The results of a study, ranked as INQUIRE's scripts rank: by the numbers alone, equal ones as NumPy sorts them.

    A ranking's `score` is its place from the end, since no two may be equal; the published number is its `p_match`.
    There are no verdicts: a number of 0 or 1 is none, and what the scripts take for 0 may be no answer at all.
    """
    results = {}
    for query_id, result in study.results().items():
        numbers = scores[query_id]
        images = [*numbers]
        places = _places(study, [*numbers.values()])
        before = {each.image_id: each for each in result.ranking}
        ranking = tuple(
            before[images[place]].model_copy(
                update={
                    "rank": rank,
                    "score": float(len(images) - rank),
                    "p_match": numbers[images[place]] if study.answers else None,
                }
            )
            for rank, place in enumerate(places, start=1)
        )
        results[query_id] = result.model_copy(update={"ranking": ranking, "verdicts": (), "strategy": "official"})
    return results


def _places(study: PublishedStudy, numbers: Sequence[float]) -> list[int]:
    """The places of a query's candidates in the order that the scripts measure."""
    if study.benchmark.candidate_sets is not None:
        return ranked(numbers)
    first = range(len(numbers)) if study.answers is None else ranked(numbers)
    return sorted_again(first, numbers, _MEASURED)
