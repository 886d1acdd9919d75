"""An audit of the verification: what was said of images against what is true of them, by kind of predicate. Pure.

"Holds" always means that the image is as the predicate says: the answer that a match must give, which is "no" for what
must be absent. A verdict is taken for the side that it finds more probable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from fieldscope.agent.fusion import log_odds
from fieldscope.agent.query_text import mentions
from fieldscope.agent.trace_view import verdicts_by_image
from fieldscope.agent.types import Predicate, RankedCandidate, RerankResult, Verdict
from fieldscope.eval.measures.truth import AnswerKey

CLEAR = 0.8
"""The probability from which a verdict is held to its word, either way."""

ALL = "all"
"""The name of the row for all kinds together."""

Sort = Literal["subject", "whole", "repeated"]

Said = Mapping[str, Verdict]
"""By predicate id, the verdict on one image that counts."""


@dataclass(frozen=True)
class Confusion:
    """What was said of the predicates of one kind, and what is true.

    Of what holds, `seen` was said to hold and `missed` was not; of what fails, `refused` was said to fail and `passed`
    to hold. The last two are None where the truth says of nothing that it fails. `untold` are answers whose truth is
    not known, `unknown` questions without an answer, `not_asked` those never sent. `marked` are answers whose truth is
    a person's mark, `marked_wrong` those of them that are wrong; both are among the others, too. `contradictions`
    counts the images on which answers to such a predicate contradict others, `sank` the relevant images that one of
    them sank most.
    """

    kind: str
    source: str
    predicates: int
    seen: int
    missed: int
    refused: int | None
    passed: int | None
    untold: int
    unknown: int
    not_asked: int
    marked: int
    marked_wrong: int
    contradictions: int
    sank: int

    @property
    def seen_share(self) -> float | None:
        """The share seen of all that holds (sensitivity), between 0 and 1; None where nothing does."""
        return _share(self.seen, self.missed)

    @property
    def refused_share(self) -> float | None:
        """The share refused of all that fails (specificity), between 0 and 1; None where nothing is known to."""
        return None if self.refused is None or self.passed is None else _share(self.refused, self.passed)


@dataclass(frozen=True)
class Contradiction:
    """Clear answers about one image that can't all be true.

    - `subject`: an animal or thing is said not to be there, and something about it to be so;
    - `whole`: the whole query is said to match and one of its parts to fail, or not to match and all parts to hold;
    - `repeated`: one question got both answers.

    `kind` is that of the predicate to blame: what is said about the missing subject, the whole query, the question
    itself. `predicates` are the ids of those that contradict each other.
    """

    query_id: str
    image_id: str
    sort: Sort
    kind: str
    predicates: tuple[str, ...]


@dataclass(frozen=True)
class Sunk:
    """A relevant image that fell, or stands below an irrelevant one, and the predicate that counts most against it.

    `contribution` is in log-odds: the predicate's part of the score, or where the score has no such parts the log-odds
    of P(expected). `holds` says whether the image is as the predicate says: if so the model erred, if not the question
    was not what the query asks for.
    """

    query_id: str
    query_text: str
    image_id: str
    predicate: str
    question: str
    expected: str
    kind: str
    p_expected: float
    contribution: float
    holds: bool | None
    prior_rank: int
    rank: int


@dataclass(frozen=True)
class Audit:
    """One run: a row for each kind of predicate and one for all, contradictions, and sunk images, the gravest first.

    `relevant` counts the relevant images in the rankings, `sunk_otherwise` those that fell or stand below an irrelevant
    one although no predicate counts against them: by the prior, by comparisons, or because others rose.
    """

    kinds: tuple[Confusion, ...]
    total: Confusion
    contradictions: tuple[Contradiction, ...]
    sunk: tuple[Sunk, ...]
    sunk_otherwise: int
    relevant: int


def audit(results: Mapping[str, RerankResult], key: AnswerKey) -> Audit:
    """Hold all verdicts of a run against the answer key. Kinds come in order of name, the whole query last."""
    tallies: dict[str, _Tally] = {}
    contradictions: list[Contradiction] = []
    sunk: list[Sunk] = []
    otherwise = relevant = 0
    for result in results.values():
        said = verdicts_by_image(result)
        predicates = {predicate.id: predicate for predicate in result.predicates}
        for predicate in result.predicates:
            tallies.setdefault(predicate.kind, _Tally()).predicates += 1
        for image_id, verdicts in said.items():
            for name, verdict in verdicts.items():
                place = (result.query_id, predicate := predicates[name], image_id)
                tallies[predicate.kind].count(verdict, key.holds(*place), key.marked(*place))
        contradictions += find_contradictions(result)
        wanted = key.relevant(result.query_id)
        relevant += sum(ranked.image_id in wanted for ranked in result.ranking)
        for ranked in overtaken(result.ranking, wanted):
            found = _sunk(result, ranked, said.get(ranked.image_id, {}), key)
            if found is None:
                otherwise += 1
            else:
                sunk.append(found)
                tallies[found.kind].sank += 1
    for contradiction in contradictions:
        tallies[contradiction.kind].contradictions += 1
    kinds = tuple(
        tallies[kind].row(kind, key.source(kind), key.one_sided(kind) and not tallies[kind].fails)
        for kind in sorted(tallies, key=lambda kind: (kind == "query", kind))
    )
    return Audit(
        kinds=kinds,
        total=_total(kinds),
        contradictions=tuple(contradictions),
        sunk=tuple(sorted(sunk, key=lambda each: (each.contribution, each.query_id, each.image_id))),
        sunk_otherwise=otherwise,
        relevant=relevant,
    )


def find_contradictions(result: RerankResult) -> list[Contradiction]:
    """The contradictions in one query's clear answers, at most one of each sort for a predicate and image."""
    predicates = {predicate.id: predicate for predicate in result.predicates}
    found = []
    for image_id, verdicts in verdicts_by_image(result).items():
        asked = [predicates[name] for name in verdicts]
        for sort, predicate, others in (*_about_subjects(asked, verdicts), *_about_the_whole(asked, verdicts)):
            names = (predicate.id, *(other.id for other in others))
            found.append(Contradiction(result.query_id, image_id, sort, predicate.kind, names))
    for (image_id, name), both in _answers(result).items():
        if name in predicates and _yes(both) and _no(both):
            kind = predicates[name].kind
            found.append(Contradiction(result.query_id, image_id, "repeated", kind, (name,)))
    return found


def overtaken(ranking: Sequence[RankedCandidate], relevant: frozenset[str]) -> list[RankedCandidate]:
    """The relevant images that stand below an irrelevant one, or below their rank by prior."""
    others = [ranked.rank for ranked in ranking if ranked.image_id not in relevant]
    best = min(others, default=len(ranking) + 1)
    return [
        ranked
        for ranked in ranking
        if ranked.image_id in relevant and (ranked.rank > best or ranked.rank > ranked.prior_rank)
    ]


@dataclass
class _Tally:
    predicates: int = 0
    seen: int = 0
    missed: int = 0
    refused: int = 0
    passed: int = 0
    untold: int = 0
    unknown: int = 0
    not_asked: int = 0
    marked: int = 0
    marked_wrong: int = 0
    contradictions: int = 0
    sank: int = 0

    @property
    def fails(self) -> int:
        """Answers about what is known to fail."""
        return self.refused + self.passed

    def count(self, verdict: Verdict, holds: bool | None, marked: bool | None) -> None:
        if marked is not None and verdict.p_expected is not None:
            self.marked += 1
            self.marked_wrong += marked != (verdict.p_expected > 0.5)
        if verdict.state == "not_asked":
            self.not_asked += 1
        elif verdict.p_expected is None:
            self.unknown += 1
        elif holds is None:
            self.untold += 1
        elif holds:
            self.seen += verdict.p_expected > 0.5
            self.missed += verdict.p_expected <= 0.5
        else:
            self.refused += verdict.p_expected <= 0.5
            self.passed += verdict.p_expected > 0.5

    def row(self, kind: str, source: str, one_sided: bool) -> Confusion:
        counts = dict(vars(self))
        if one_sided:
            counts |= {"refused": None, "passed": None}
        return Confusion(kind=kind, source=source, **counts)


def _total(kinds: Sequence[Confusion]) -> Confusion:
    total = _Tally()
    for row in kinds:
        for name in vars(total):
            setattr(total, name, getattr(total, name) + (getattr(row, name) or 0))
    sources = sorted({row.source for row in kinds})
    return total.row(ALL, " and ".join(sources), any(row.refused is None for row in kinds))


def _about_subjects(
    asked: Sequence[Predicate], verdicts: Said
) -> Iterator[tuple[Sort, Predicate, tuple[Predicate, ...]]]:
    """What is said to be so of a subject that is said not to be there, as far as the query's words show."""
    missing = [
        predicate
        for predicate in asked
        if predicate.kind == "subject"
        and predicate.expected == "yes"
        and predicate.words
        and _no([verdicts[predicate.id].p_yes])
    ]
    for predicate in asked:
        if predicate.kind in ("subject", "query") or predicate.expected != "yes":
            continue
        if _yes([verdicts[predicate.id].p_yes]):
            named = tuple(subject for subject in missing if mentions(predicate.question, subject.words))
            if named:
                yield "subject", predicate, named


def _about_the_whole(
    asked: Sequence[Predicate], verdicts: Said
) -> Iterator[tuple[Sort, Predicate, tuple[Predicate, ...]]]:
    parts = [predicate for predicate in asked if predicate.kind != "query"]
    failing = tuple(part for part in parts if _no([verdicts[part.id].p_expected]))
    for whole in asked:
        if whole.kind != "query":
            continue
        p = verdicts[whole.id].p_expected
        if _yes([p]) and failing:
            yield "whole", whole, failing
        elif _no([p]) and parts and all(_yes([verdicts[part.id].p_expected]) for part in parts):
            yield "whole", whole, tuple(parts)


def _answers(result: RerankResult) -> dict[tuple[str, str], list[float | None]]:
    """By image and predicate, all probabilities that were given of the picture as it is, also those that were
    outweighed later."""

    def place(verdict: Verdict) -> tuple[str, str]:
        return verdict.image_id, verdict.predicate

    ordered = sorted((verdict for verdict in result.verdicts if verdict.look is None), key=place)
    return {at: [verdict.p_yes for verdict in group] for at, group in groupby(ordered, key=place)}


def _yes(probabilities: Sequence[float | None]) -> bool:
    return any(p is not None and p > CLEAR for p in probabilities)


def _no(probabilities: Sequence[float | None]) -> bool:
    return any(p is not None and p < 1.0 - CLEAR for p in probabilities)


def _sunk(result: RerankResult, ranked: RankedCandidate, said: Said, key: AnswerKey) -> Sunk | None:
    """What counts most against an image; None where nothing does."""
    predicates = {predicate.id: predicate for predicate in result.predicates}
    answered = {name: verdict.p_expected for name, verdict in said.items() if verdict.p_expected is not None}
    shares = ranked.contributions or {name: log_odds(p) for name, p in answered.items()}
    against = {name: shares[name] for name in answered if shares.get(name, 0.0) < 0}
    if not against:
        return None
    name = min(against, key=lambda each: against[each])
    predicate = predicates[name]
    return Sunk(
        query_id=result.query_id,
        query_text=result.query_text,
        image_id=ranked.image_id,
        predicate=name,
        question=predicate.question,
        expected=predicate.expected,
        kind=predicate.kind,
        p_expected=answered[name],
        contribution=against[name],
        holds=key.holds(result.query_id, predicate, ranked.image_id),
        prior_rank=ranked.prior_rank,
        rank=ranked.rank,
    )


def _share(part: int, rest: int) -> float | None:
    return part / (part + rest) if part + rest else None
