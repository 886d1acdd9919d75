"""The settings of what makes an order of the images: comparisons, fusion, and the reasons that follow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from fieldscope.agent.lmm.choice import LETTERS
from fieldscope.agent.roles import Role
from fieldscope.agent.strategies.stage import (
    AskingStage,
    Calls,
    ExtraBody,
    OwnWords,
    PromptRef,
    PromptUse,
    Scope,
    Settings,
)


class Compare(AskingStage):
    """Candidate against candidate, among the best `top_k`.

    - `pair`: two at a time, in both orders, where the order is most uncertain and matters most;
    - `set`: the best of `set_size`, shown forwards and backwards;
    - `walk`: ImageScope's final evaluation: down the ranking, the whole query about one image at a time with the
      reference image beside it, until the first yes, which goes to the top.

    `reference` is the prompt where the query has a reference image, which is shown first. At most `max_calls` calls;
    pairs whose exchange is expected to change nDCG by less than `stop_below` are left alone. With `top_logprobs` 0 the
    choice is read from the answer's text, for servers without log-probabilities; `max_tokens` are for that text, or
    for the thinking of a model before its answer (None: one token). The prompts' `query` is as it was thought out,
    beside a reference image the change alone; in the user's `own_words` it is what they asked for last.
    """

    default_role: ClassVar[Role] = "judge"

    mode: Literal["pair", "set", "walk"]
    prompt: PromptRef
    reference: PromptRef
    top_k: int = Field(default=20, ge=2)
    set_size: int = Field(default=4, ge=3, le=4)
    max_calls: int = Field(default=40, ge=1)
    stop_below: float = Field(default=0.0, ge=0.0)
    top_logprobs: int = Field(default=20, ge=0, le=20)
    max_tokens: int | None = Field(default=None, ge=1)
    extra_body: ExtraBody = Field(default_factory=dict)
    query: OwnWords | None = None

    @property
    def answer_tokens(self) -> int:
        """The longest answer."""
        return self.max_tokens or 1

    @property
    def reading(self) -> Literal["logprobs", "samples"]:
        """How the choice is read."""
        return "logprobs" if self.top_logprobs else "samples"

    @property
    def open_ended(self) -> bool:
        return self.mode != "set" or self.stop_below > 0

    def prompt_uses(self) -> Iterator[PromptUse]:
        answer = "yes_no" if self.mode == "walk" else "letter"
        yield PromptUse(self.prompt, frozenset({"query"}), answer)
        yield PromptUse(self.reference, frozenset({"query"}), answer)

    def calls(self, scope: Scope) -> Iterator[Calls]:
        shown = {"pair": 2, "set": self.set_size, "walk": 1}[self.mode]
        named = [] if self.mode == "walk" else [*["reference"] * scope.composed, *LETTERS[:shown]]
        prompt = self.reference if scope.composed else self.prompt
        number = self.most_calls(scope.images[-1]) if scope.comparing or self.mode == "walk" else 0
        names = "".join(f"{name}:\n" for name in named)
        yield Calls(
            "compare", prompt, number, images=shown + scope.composed, answer=1, longest=self.answer_tokens,
            before=names,
        )  # fmt: skip

    def most_calls(self, candidates: int) -> int:
        """The calls that are made about so many candidates where no comparison is spared: each group in two orders."""
        head = min(self.top_k, candidates)
        if self.mode == "walk":
            return min(head, self.max_calls)
        size = 2 if self.mode == "pair" else min(self.set_size, head)
        return 2 * min(self.max_calls // 2, math.comb(head, size)) if head > 1 else 0


class Explain(AskingStage):
    """Ask for the reason, after the verdict, about the best `top_k`."""

    default_role: ClassVar[Role] = "judge"

    prompt: PromptRef
    top_k: int = Field(default=3, ge=1)
    max_tokens: int = Field(default=64, ge=1)
    extra_body: ExtraBody = Field(default_factory=dict)

    def prompt_uses(self) -> Iterator[PromptUse]:
        yield PromptUse(self.prompt, frozenset({"query"}), "text")

    def calls(self, scope: Scope) -> Iterator[Calls]:
        number = min(self.top_k, scope.images[-1])
        yield Calls("explain", self.prompt, number, images=1, answer=40, longest=self.max_tokens)


class Fusion(Settings):
    """How a score is made.

    - `prior`: the prior, as it is.
    - `score`: the score of the scoring model; the prior breaks ties and places images without a score.
    - `p_yes`: P(yes).
    - `log_odds`: log-odds of P(yes), plus `prior_weight` times the prior, standardised over the query's candidates.
      With an `error_rate` e, the share of answers that are wrong however sure the model is of them, P(yes) counts as
      e + (1 - 2 e) P(yes), so that no answer outranks every gap between priors.
    - `agreement`: how many predicates have the expected answer (ImageScope); the prior breaks ties.
    - `posterior`: the log-odds that every predicate holds, plus the weighted prior, plus the weighted score of a stage
      `score`, plus comparisons; weights and temperatures are the calibration's, `prior_weight` and `scorer_weight`
      stand in where there is none.
    """

    method: Literal["prior", "score", "p_yes", "log_odds", "agreement", "posterior"]
    prior_weight: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    scorer_weight: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    error_rate: float | None = Field(default=None, gt=0.0, lt=0.5)

    @model_validator(mode="after")
    def _weight_belongs_to_odds(self) -> Self:
        if self.error_rate is not None and self.method != "log_odds":
            raise ValueError("error_rate goes with the method log_odds, and with no other; remove it")
        if (self.prior_weight is not None) != (self.method in ("log_odds", "posterior")):
            raise ValueError(
                "prior_weight goes with the methods log_odds and posterior, and with no other; set or remove it"
            )
        return self
