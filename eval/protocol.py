"""How a data set wants its rankings scored, where that is more than relevant images in one ranking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Protocol(BaseModel):
    """What a benchmark says about its scoring. It is part of the answer key, and its defaults change nothing.

    `choices` are the named settings that it was opened with, for the manifest. With `keeps_reference` a composed
    query's reference image stays in its ranking, where it takes a rank; otherwise it is left out before scoring.

    `credits` are query id -> image id -> what recall is counted in: recall@k is then the greatest credit among the best
    k, which for one designated image with 1 is whether it is among them (CIRCO, CIRR). `subsets` are small galleries by
    query id; recall_subset@k looks for a relevant image in their order alone (CIRR).

    `groups` are the groups of a query by which the data set reports its results, of the kind `group_kind`. With
    `by_group` a mean is that of the groups' means, each counted alike (FashionIQ). `averages` are metrics that are the
    mean of others. `families` name several groups, of which each has a mean of its own: that of its groups' means.
    `cutoffs` are, by query, the depth at which M-BEIR's recall looks for any relevant document.

    `dialogues` are the query ids of each dialogue in the order of its rounds, where the queries themselves do not say.
    A hit before `first_round` does not count (ImageScope counts from 1). `metrics` are means that are computed and
    shown beside those in which every benchmark is reported.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    choices: Mapping[str, str] = Field(default_factory=dict)
    keeps_reference: bool = False
    credits: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)
    subsets: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    group_kind: str = ""
    by_group: bool = False
    averages: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    families: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    cutoffs: Mapping[str, int] = Field(default_factory=dict)
    dialogues: tuple[tuple[str, ...], ...] = ()
    first_round: int = Field(default=0, ge=0)
    metrics: tuple[str, ...] = ()

    def entry(self) -> dict[str, Any]:
        """What differs from the defaults and decides a figure, as JSON."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"metrics"})


PLAIN = Protocol()
"""Of every benchmark that says nothing else."""
