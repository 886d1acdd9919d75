"""The settings of the stage that looks at an image more closely."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

from pydantic import Field, model_validator

from fieldscope.agent.strategies.stage import (
    QUERY,
    Calls,
    ExtraBody,
    PromptRef,
    PromptUse,
    Scope,
    Settings,
    Stage,
)
from fieldscope.agent.strategies.verification import Verify


class Grounding(Settings):
    """Ask the model where in an image the things are that the query names, before a tile is looked at: a call for each
    image, to the role that verifies. The prompt takes a `query`; the answer names boxes in thousandths of each side."""

    prompt: PromptRef
    max_tokens: int = Field(default=256, ge=1)
    extra_body: ExtraBody = Field(default_factory=dict)


class Inspect(Stage):
    """Ask again, of a closer look at an image: the enlarged crop of a region at the source's full resolution, or the
    picture with its contrast stretched and its grain removed.

    Each image has up to `regions` regions: with `ground` the boxes that the model names, then those that the first
    stage's encoder finds nearest to the query. Of two and more the region around them is a look, too. With
    `enhance` the enhanced picture is one, and with `enhance_regions` so is each region, enhanced. A look is taken
    where it is expected to change an image's P(match) by `stop_below` or more per call, and by more than another
    question about the picture as it is. What a look is expected to change is the calibration's; without one a
    region is looked at only where the model sees it at 1.5 times the pixels or more. With `always` every look at
    every image of the window is taken, which is what `fieldscope calibrate` fits to.

    A region is asked about the whole query, or where no question is about that, about what a region can answer. It is
    asked as `verify` asks.
    """

    needs: ClassVar[str | None] = "verify"

    regions: int = Field(default=2, ge=0, le=8)
    ground: Grounding | None = None
    enhance: bool = False
    enhance_regions: bool = False
    stop_below: float = Field(default=0.01, gt=0.0, lt=1.0)
    always: bool = False

    @property
    def most_looks(self) -> int:
        """How many looks at an image there may be."""
        return self.regions * (1 + self.enhance_regions) + (self.regions > 1) + self.enhance

    @property
    def open_ended(self) -> bool:
        return not self.always

    def prompt_uses(self) -> Iterator[PromptUse]:
        if self.ground is not None:
            yield PromptUse(self.ground.prompt, QUERY, "text")

    def calls(self, scope: Scope) -> Iterator[Calls]:
        if not isinstance(verify := scope.verify, Verify):
            return
        if self.ground is not None:
            longest = self.ground.max_tokens
            images = verify.asked_images(scope)
            yield Calls("ground", self.ground.prompt, images, images=1, answer=min(_BOXES, longest), longest=longest)
        whole = verify.whole_query
        kind, questions = ("predicate", scope.predicates) if whole is None else ("query", 1)
        number = verify.asked_images(scope) * self.most_looks * questions * verify.plain_calls(kind)
        longest = verify.answer_tokens
        yield Calls("inspect", whole or verify.prompt, number, images=1, answer=longest, longest=longest, like="verify")

    @model_validator(mode="after")
    def _looks(self) -> Self:
        if not self.most_looks:
            raise ValueError("`inspect` has no look to take; set `regions` above 0, or `enhance`")
        for name in ("ground", "enhance_regions"):
            if getattr(self, name) and not self.regions:
                raise ValueError(f"`inspect.{name}` needs regions; set `inspect.regions` above 0")
        return self


_BOXES = 60  # tokens that two boxes with their labels are expected to take
