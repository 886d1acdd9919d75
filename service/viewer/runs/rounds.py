"""The rounds of a query: what each round found missing, and what the next one changed."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fieldscope.agent.types import RerankResult, TraceEvent


class _Said(BaseModel):
    """The part of a trace event that the page shows."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Synthesized(_Said):
    """The synthesis. `kept` says why an earlier one was kept."""

    caption: str = ""
    descriptions: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()
    fallback: str | None = None
    kept: str | None = None


class Retrieved(_Said):
    """The number of candidates, and of those that are new in this round."""

    candidates: int = 0
    given: bool = False
    new: int | None = None


class Decomposed(_Said):
    """Predicates by id: the `new` ones as question and expected answer, and those that are `gone`."""

    new: dict[str, str] = Field(default_factory=dict)
    gone: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    fallback: str | None = None


class Checked(_Said):
    """P(expected) of each predicate about the reference image, and the questions that it contradicts."""

    holds: dict[str, float] = Field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    unchanged: bool = False
    again: bool = False
    error: str | None = None


class Planned(_Said):
    """A wave of questions."""

    questions: int = 0
    images: int = 0


class Assessed(_Said):
    """The state after a round, and what is missing. `contradicted` is a share of images."""

    confirmed: int = 0
    contradicted: float = 0.0
    separates_nothing: tuple[str, ...] = ()
    wanting: str = ""
    again: bool = False


class Refined(_Said):
    """Why the next round began, and how many candidates are verified in it."""

    because: str = ""
    window: int | None = None


@dataclass
class Round:
    """One round. Steps that did not happen are None."""

    synthesized: Synthesized | None = None
    retrieved: Retrieved | None = None
    decomposed: Decomposed | None = None
    checked: Checked | None = None
    assessed: Assessed | None = None
    refined: Refined | None = None
    waves: list[Planned] = field(default_factory=list)

    @property
    def questions(self) -> int:
        """The number of questions in all waves."""
        return sum(wave.questions for wave in self.waves)


_KINDS: dict[str, type[_Said]] = {
    "synthesized": Synthesized, "retrieved": Retrieved, "decomposed": Decomposed, "checked": Checked,
    "planned": Planned, "assessed": Assessed, "refined": Refined,
}  # fmt: skip


def rounds(result: RerankResult) -> list[Round]:
    """The rounds in order, from the trace. Unknown events are ignored."""
    found = [Round()]
    for event in result.trace:
        said = _said(event)
        if said is None:
            continue
        number = event.data.get("round")
        if not isinstance(said, Refined) and isinstance(number, int) and number >= len(found):
            found.append(Round())
        if isinstance(said, Planned):
            found[-1].waves.append(said)
        else:
            setattr(found[-1], event.kind, said)
    return found


def _said(event: TraceEvent) -> _Said | None:
    kind = _KINDS.get(event.kind)
    try:
        return kind.model_validate(event.data) if kind else None
    except ValidationError:
        return None
