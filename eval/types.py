"""What the agent must never see: judgments and query metadata; and what an evaluation says about a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from fieldscope.agent.roles import ModelIdentity
from fieldscope.agent.usage import SCORER, Usage
from fieldscope.core.errors import BenchmarkError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.types import Candidate, ImageSource, Query, Scale
from fieldscope.eval.dialogues import dialogues
from fieldscope.eval.protocol import PLAIN, Protocol
from fieldscope.eval.reported import GENERAL, Reported

Qrels = Mapping[str, Mapping[str, int]]
"""Query id -> image id -> judgment: 1 or more is relevant, greater is better, 0 is not relevant, and an image without
one counts as not relevant."""

Means = Mapping[str, float | None]
"""Metric -> mean over queries, between 0 and 1; None where no query could be scored."""


@dataclass(frozen=True)
class QueryMeta:
    """INQUIRE's groups of a query, and whether its words name a species by the scientific name. `lingo` says whether
    the benchmark's own list has it among the queries in experts' lingo; None without that list. `conditions` are the
    benchmark's own kinds of group, such as the light in which its matches are seen; None where it has none.

    They are part of the answer key.
    """

    supercategory: str = ""
    category: str = ""
    iconic_group: str = ""
    scientific_name: bool = False
    lingo: bool | None = None
    conditions: Mapping[str, str] | None = None

    @property
    def groups(self) -> Mapping[str, str]:
        """Kind of group -> the query's own, empty where it has none."""
        return {
            "supercategory": self.supercategory,
            "category": self.category,
            "iconic_group": self.iconic_group,
            **(
                {"scientific_name": "yes" if self.scientific_name else "no"}
                if self.lingo is None
                else {"lingo": "yes" if self.lingo else "no"}
            ),
            **(self.conditions or {}),
        }


@dataclass(frozen=True)
class Benchmark:
    """Queries, judgments and images of one split.

    `candidate_sets` gives each query's candidates for a rerank benchmark; None makes it full retrieval, where the
    agent finds its own candidates. `oddities` are sentences about what is odd in its files, corrected or not. `prior`
    says in words where the first-stage scores come from. `priors` (query id -> image id -> score) stand in for the
    scores that came with the candidates: the same task with another first stage. `backgrounds` (by query id) say how
    similar a sample of the collection is to each query, where the scores are similarities. `reported` are the metrics
    in which its results are reported, and `protocol` is how they are scored beyond that. `beyond` gives all images of a
    query's gallery in the order of the first stage, for metrics that need more of a ranking than a strategy makes.
    `near_misses` are the images, by query, that show all of the query but one thing; None where that is not known.
    Raises `BenchmarkError` where the parts do not fit together.
    """

    name: str
    split: str
    queries: tuple[Query, ...]
    qrels: Qrels
    images: ImageSource
    candidate_sets: Mapping[str, tuple[Candidate, ...]] | None = None
    meta: Mapping[str, QueryMeta] = field(default_factory=dict)
    oddities: tuple[str, ...] = ()
    prior: str = ""
    priors: Mapping[str, Mapping[str, float]] | None = None
    reported: Reported = GENERAL
    backgrounds: Mapping[str, Scale] = field(default_factory=dict)
    protocol: Protocol = PLAIN
    beyond: Callable[[Query], Sequence[str]] | None = field(default=None, repr=False, compare=False)
    near_misses: Mapping[str, frozenset[str]] | None = None

    def __post_init__(self) -> None:
        ids = [query.id for query in self.queries]
        if not ids:
            raise BenchmarkError(f"{self.name} ({self.split}) has no queries. Check its files.")
        if len(set(ids)) < len(ids):
            raise BenchmarkError(f"{self.name} ({self.split}) names a query id twice. Correct its files.")
        for wanted, where in ((self.qrels, "judgments"), (self.candidate_sets, "candidates")):
            if wanted is not None and (missing := [query for query in ids if query not in wanted]):
                raise BenchmarkError(
                    f"{self.name} ({self.split}) has no {where} for {', '.join(missing[:5])}. Correct its files."
                )

    @cached_property
    def rounds(self) -> Mapping[str, int]:
        """Query id -> how many rounds of its dialogue it has heard; empty where no query has a dialogue.

        A dialogue that is searched again after every round is a query for each, the caption alone among them.
        """
        if self.protocol.dialogues:
            here = {query.id for query in self.queries}
            return {query_id: done for ids in self.dialogues for done, query_id in enumerate(ids) if query_id in here}
        rounds = {query.id: len(query.dialogue) for query in self.queries}
        return rounds if any(rounds.values()) else {}

    @cached_property
    def dialogues(self) -> list[list[str]]:
        """The query ids of each dialogue, in the order of its rounds; empty where no query has a dialogue."""
        if self.protocol.dialogues:
            return [list(ids) for ids in self.protocol.dialogues]
        return dialogues(self.queries) if self.rounds else []

    def candidates(self, query_id: str) -> tuple[Candidate, ...] | None:
        """The given candidates of a query, or None for full retrieval. Raises `BenchmarkError` for a query that has no
        score where others have one in `priors`: the scores of two first stages never mix."""
        if self.candidate_sets is None:
            return None
        if self.priors is None:
            return self._standing(query_id, self.candidate_sets[query_id])
        if query_id not in self.priors:
            raise BenchmarkError(
                f"{self.name} ({self.split}) has no scores of {self.prior} for query {query_id}. Run it with --encoder."
            )
        scores = self.priors[query_id]
        given = (Candidate(image_id, scores[image_id]) for image_id in self.candidate_ids(query_id))
        return self._standing(query_id, given)

    def _standing(self, query_id: str, candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
        """The candidates with their standing against the query's background, where it has one."""
        usual = self.backgrounds.get(query_id)
        return tuple(
            candidates if usual is None else (replace(c, standing=usual.standing(c.prior)) for c in candidates)
        )

    def candidate_ids(self, query_id: str) -> tuple[str, ...]:
        """The ids of a query's given candidates; empty for full retrieval."""
        return tuple(c.image_id for c in self.candidate_sets[query_id]) if self.candidate_sets is not None else ()

    def judgments(self, query_id: str) -> Mapping[str, int]:
        """The judgments that count, 1 or 0: those on the candidates of a rerank benchmark, else all."""
        return {image_id: int(grade > 0) for image_id, grade in self.grades(query_id).items()}

    def grades(self, query_id: str) -> Mapping[str, int]:
        """`judgments` as they were given: a relevant image may be more relevant than another."""
        judged = self.qrels[query_id]
        if self.candidate_sets is None:
            return judged
        return {candidate.image_id: judged.get(candidate.image_id, 0) for candidate in self.candidate_sets[query_id]}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over queries, judgments, candidates with the scores that they came with, and groups; images have
        hashes of their own."""
        sets = self.candidate_sets
        return fingerprint(
            {
                "name": self.name,
                "split": self.split,
                "queries": [query.model_dump(mode="json") for query in self.queries],
                "qrels": {query: dict(judged) for query, judged in self.qrels.items()},
                "candidates": sets and {q: [[c.image_id, c.prior] for c in found] for q, found in sets.items()},
                "meta": {query: _identity(meta) for query, meta in self.meta.items()},
                **({"protocol": entry} if (entry := self.protocol.entry()) else {}),
            }
        )


def _identity(meta: QueryMeta) -> dict[str, str]:
    """What was read of a query's groups; what was made out from its text adds nothing to that."""
    groups = {"supercategory": meta.supercategory, "category": meta.category, "iconic_group": meta.iconic_group}
    return {**groups, **(meta.conditions or {})}


@dataclass(frozen=True)
class RunSummary:
    """One strategy on one benchmark: means over the scored queries, overall and per supercategory, and the cost.

    `scored` counts the queries that have a positive, `asked` the calls that the rankings rest on and `unknown` those
    of them that failed; `ended` says in which stage a budget ended the work on how many queries. `flags` are the
    warnings that hold for every query, and of stages that were lost on some. `by_round` are a dialogue benchmark's
    means after each number of rounds, over so many `dialogues`. `breakdowns` are means by the other kinds of group:
    category, iconic_group, scientific_name or lingo (yes or no), and the benchmark's own. `scored_on_test` counts the
    runs in which the strategy was scored on the benchmark's test split. `by_role` is the cost of each role where
    several LMMs were asked, whose identities `lmm` has, and of the `scorer` where a scoring model was used: its calls
    are pairs, and its fingerprint is the field of that name. `prior` says where the first-stage scores come from, and
    `reported` are the metrics in which the benchmark's results are reported. `values` has, by the mean's name and
    query, the values that the means of `reported.overview` are of.
    """

    benchmark: str
    split: str
    strategy: str
    metrics: Means
    by_supercategory: Mapping[str, Means]
    cost: Usage
    out: Path
    queries: int
    scored: int
    asked: int = 0
    unknown: int = 0
    ended: Mapping[str, int] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    by_round: Mapping[int, Means] = field(default_factory=dict)
    breakdowns: Mapping[str, Mapping[str, Means]] = field(default_factory=dict)
    scored_on_test: int = 0
    by_role: Mapping[str, Usage] = field(default_factory=dict)
    lmm: ModelIdentity | None = None
    scorer: str | None = None
    prior: str = ""
    reported: Reported = GENERAL
    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def unknown_share(self) -> float:
        """The share of calls that failed, or that of scored pairs where it is greater; between 0 and 1."""
        scored = self.by_role.get(SCORER, Usage())
        shares = ((self.unknown, self.asked), (scored.unknown, scored.calls))
        return max(unknown / asked if asked else 0.0 for unknown, asked in shares)
