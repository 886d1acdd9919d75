"""What is shown where nothing matches: the sentence, the parts that hold of no image, and the nearest images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from fieldscope.agent.trace_view import View, verdicts_by_image
from fieldscope.agent.types import NothingMatches, Predicate, RankedCandidate, RerankResult, Verdict

NONE_HOLDS = "No image shows any part of the query."
NOT_TOGETHER = "Each part is shown by some image, but no image shows all of them."


class FailingPart(View):
    """A part of the query that holds of none of the images that were `asked` about it. `words` are the query's own."""

    predicate: str
    question: str
    words: str
    expected: Literal["yes", "no"]
    asked: int

    def sentence(self, judged: int) -> str:
        """What none of the `judged` images shows or, where a match must not show it, what all of them do."""
        images = "1 image that was" if self.asked == 1 else f"{self.asked:,} images that were"
        few = f"the {images} asked about it" if self.asked < judged else ""
        if self.expected == "yes":
            shows = f"None of {few} shows" if few else "No image shows"
        else:
            shows = f"All of {few} show what a match must not" if few else "Every image shows what a match must not"
        return f"{shows}: {self.words} ({self.question})." if self.words else f"{shows}: {self.question}"


class NearImage(View):
    """One of the nearest images: the questions about parts of the query that hold, that do not, and that got no answer
    (`open`)."""

    image: str
    rank: int
    p_match: float | None
    holds: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()
    open: tuple[str, ...] = ()

    @property
    def parts(self) -> str:
        """How many parts hold, of how many."""
        return f"{len(self.holds)} of {len(self.holds) + len(self.fails) + len(self.open)}"

    @property
    def missing(self) -> str:
        """The questions that do not hold, or that got no answer."""
        return "; ".join([*self.fails, *(f"{question} (no answer)" for question in self.open)])


class Nothing(View):
    """The decision that no image seems to match, in words and numbers (see `NothingMatches`)."""

    sentences: tuple[str, ...]
    statistic: float
    threshold: float
    judged: int
    failing: tuple[FailingPart, ...] = ()
    nearest: tuple[NearImage, ...] = ()

    @property
    def sentence(self) -> str:
        """That nothing seems to match, with the numbers."""
        return self.sentences[0]


def nothing(result: RerankResult) -> Nothing | None:
    """The decision that no image matches, with the nearest ones; None where a result does not have it."""
    decision = result.nothing
    if decision is None:
        return None
    parts = {predicate.id: predicate for predicate in result.predicates if predicate.kind != "query"}
    verdicts = verdicts_by_image(result)
    ranked = {candidate.image_id: candidate for candidate in result.ranking}
    failing = tuple(
        FailingPart(
            predicate=name,
            question=parts[name].question,
            words=parts[name].words,
            expected=parts[name].expected,
            asked=_answered(name, verdicts.values()),
        )
        for name in decision.failing
        if name in parts
    )
    return Nothing(
        sentences=(_sentence(decision, len(ranked)), *_about_parts(decision, failing, parts, verdicts.values())),
        statistic=decision.statistic,
        threshold=decision.threshold,
        judged=decision.judged,
        failing=failing,
        nearest=tuple(_near(ranked[i], parts, verdicts.get(i, {})) for i in decision.nearest if i in ranked),
    )


def _sentence(decision: NothingMatches, images: int) -> str:
    numbers = f"best P(match) {decision.statistic:.2f}, threshold {decision.threshold:.2f}"
    left = images - decision.judged
    if left <= 0:
        return f"No image seems to match ({numbers})."
    of = "1 image" if decision.judged == 1 else f"{decision.judged:,} images"
    were = "was" if left == 1 else "were"
    return f"No image of the {of} judged seems to match ({numbers}); {left:,} {were} not judged."


def _about_parts(
    decision: NothingMatches,
    failing: Sequence[FailingPart],
    parts: Collection[str],
    verdicts: Iterable[Mapping[str, Verdict]],
) -> tuple[str, ...]:
    """The parts that no image shows; or that each is shown, but not all at once."""
    if len(failing) == len(parts) > 1:
        return (NONE_HOLDS,)
    if failing:
        return tuple(part.sentence(decision.judged) for part in failing)
    shown = {name for said in verdicts for name, verdict in said.items() if (verdict.p_expected or 0.0) > 0.5}
    return (NOT_TOGETHER,) if parts and shown >= set(parts) else ()


def _answered(predicate: str, verdicts: Iterable[Mapping[str, Verdict]]) -> int:
    return sum(predicate in said and said[predicate].p_expected is not None for said in verdicts)


def _near(ranked: RankedCandidate, parts: Mapping[str, Predicate], verdicts: Mapping[str, Verdict]) -> NearImage:
    said: dict[str, list[str]] = {"holds": [], "fails": [], "open": []}
    for name, part in parts.items():
        p = verdicts[name].p_expected if name in verdicts else None
        said["open" if p is None else "holds" if p > 0.5 else "fails"].append(part.question)
    return NearImage(
        image=ranked.image_id,
        rank=ranked.rank,
        p_match=ranked.p_match,
        holds=tuple(said["holds"]),
        fails=tuple(said["fails"]),
        open=tuple(said["open"]),
    )
