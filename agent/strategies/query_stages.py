"""The settings of the stages that work out what is searched for, and find candidates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field

from fieldscope.agent.roles import Role
from fieldscope.agent.strategies.stage import (
    QUERY,
    AskingStage,
    Calls,
    OwnWords,
    PromptRef,
    PromptUse,
    Scope,
    Settings,
    Stage,
    Structured,
)
from fieldscope.core.types import Prior


class Retrieve(Settings):
    """First stage, where no candidates are given: how many images to take, how much of a similarity is that to the
    image's caption, where the collection has captions, and what the prior is: the similarity to query and descriptions
    by which an image was found (`fused`), or that to the `query` alone, which is a witness of its own: it does not
    share what the descriptions are wrong about with the predicates; or the score of the stage `score` (`scorer`), for
    given candidates, too. `instruction` tells an encoder or a scoring model that reads one what a match is; it is part
    of every query's vector, and of no image's.

    ImageScope (arXiv 2503.10166) searches by the `descriptions` alone, which is the `vector`, and has the reference
    image `kept` among the candidates, whether or not the benchmark counts it; None: by query and descriptions, and as
    the collection has it.

    With `tiles` an image found in an index that has tiles is as similar as the most similar of it and its tiles."""

    top_k: int = Field(default=100, ge=1)
    caption_weight: float = Field(default=0.0, ge=0.0, le=1.0)
    prior: Prior | Literal["scorer"] = "fused"
    instruction: str | None = Field(default=None, pattern=r"\S")
    vector: Literal["descriptions"] | None = None
    reference: Literal["kept"] | None = None
    tiles: bool = Field(default=False, exclude_if=lambda tiles: not tiles)

    @property
    def searched_prior(self) -> Prior:
        """The prior that the first stage gives."""
        return "fused" if self.prior == "scorer" else self.prior


class Synthesize(Structured, AskingStage):
    """Think out what a match must show. `again` is asked in a later round, `caption` for the reference
    image of a composed request, of the captioner.

    With a prompt for a `turn` a dialogue is read as ImageScope (arXiv 2503.10166) reads it: each turn of it changes the
    one description that those before it led to, and the instructions are those of the last turn alone. Without, the
    whole dialogue is thought out at once."""

    default_role: ClassVar[Role] = "reasoner"

    again: PromptRef
    caption: PromptRef
    turn: PromptRef | None = None

    def roles_by_call(self) -> dict[str, Role]:
        return {"caption": "captioner", "synthesize": self.asks, "refine": self.asks}

    def prompt_uses(self) -> Iterator[PromptUse]:
        yield PromptUse(self.prompt, frozenset({"request"}), "synthesis")
        yield PromptUse(self.again, frozenset({"request", "earlier", "wanting"}), "synthesis")
        yield PromptUse(self.caption, frozenset(), "text", QUERY)
        if self.turn is not None:
            yield PromptUse(self.turn, frozenset({"request", "earlier"}), "synthesis")

    def about(self, query: str) -> Self:
        """The settings for this query, for a caption's prompt that also names it."""
        return self.model_copy(update={"caption": self.caption.about(query)})

    def calls(self, scope: Scope) -> Iterator[Calls]:
        attempts, longest = scope.attempts(self), self.max_tokens
        turns = scope.turns if self.turn is not None else 0
        if scope.composed:
            yield Calls("caption", self.caption, 1, images=1, answer=40, longest=longest)
        first, number = (self.turn or self.prompt, attempts * turns) if turns else (self.prompt, attempts)
        yield Calls("synthesize", first, number, images=0, answer=250, longest=longest)
        if scope.rounds > 1:
            yield Calls("refine", self.again, attempts * (scope.rounds - 1), images=0, answer=250, longest=longest)


class Decompose(Structured, AskingStage):
    """Turn the instructions into predicates, at most `max_predicates`. Where the `query` is in the user's `own_words`,
    a prompt that names it gets those; else composed and dialogue queries are as they were thought out."""

    needs: ClassVar[str | None] = "synthesize"
    default_role: ClassVar[Role] = "reasoner"

    max_predicates: int = Field(default=12, ge=1)
    query: OwnWords | None = None

    def prompt_uses(self) -> Iterator[PromptUse]:
        yield PromptUse(self.prompt, frozenset({"instructions"}), "predicates", QUERY)

    def about(self, query: str) -> Self:
        """The settings for this query, for a prompt that also names it."""
        return self.model_copy(update={"prompt": self.prompt.about(query)})

    def calls(self, scope: Scope) -> Iterator[Calls]:
        number = scope.attempts(self) * scope.rounds
        yield Calls("decompose", self.prompt, number, images=0, answer=200, longest=self.max_tokens)


class Refine(Stage):
    """Look at what was found and, in at most `rounds` rounds, think again: where fewer than `fewest` candidates are
    confirmed, where verdicts contradict each other, or where a predicate separates nothing. Each round widens the
    window, or the search, by the factor `widen`."""

    needs: ClassVar[str | None] = "decompose"

    rounds: int = Field(default=1, ge=1, le=5)
    fewest: int = Field(default=1, ge=1)
    widen: float = Field(default=1.5, ge=1.0)

    @property
    def open_ended(self) -> bool:
        return True
