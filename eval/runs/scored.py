"""Finished runs with their scores, judgments and costs, and whether several of them did the same task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fieldscope.agent.roles import ModelIdentity
from fieldscope.agent.types import RerankResult
from fieldscope.agent.usage import Usage
from fieldscope.core.errors import ConfigError
from fieldscope.eval.reported import GENERAL, RIGHTLY, UNMATCHED, WRONGLY, Reported, reported_as
from fieldscope.eval.runs.read import METRICS, no_run, read_finished
from fieldscope.eval.types import Qrels

_NAMED = 3  # differences that an error names
_NEEDED = {"benchmark", "split", "strategy", "cost", "asked", "unknown", "ended"}  # of metrics.json


@dataclass(frozen=True)
class ScoredRun:
    """One finished run. `name` distinguishes it from those beside it, `folder` is its path as the user gave it.

    `requests` are what was asked for (text, reference image, dialogue) and `judgments` what counts as found, by query.
    `values` are the metrics per query, of those that have something to find; `groups` the kinds of groups with the
    query's own one. `lmm` is the identity of the model that was asked, or of that of each role, `benchmark` its name
    and split, `task` the fingerprint of queries, judgments, candidates with priors, and groups. `money` is what the
    calls cost, `scored_on_test` counts the runs in which the strategy was scored on test, and `by_role` has the calls
    and tokens of each role where several models were asked. `reported` are the metrics in which the benchmark's results
    are reported, `file_order` is AP@50 in the order of the scores that came with the candidates, over all queries and
    by supercategory. `official` says that equal numbers count as ties, as in INQUIRE's scripts. `nothing` maps
    `RIGHTLY` and `WRONGLY` (`fieldscope.eval.reported`) to 1 or 0 of each query; it is empty for a run that
    decided of no query whether anything matches. `choices` are the settings of the benchmark's protocol.
    """

    name: str
    folder: Path
    strategy: str
    benchmark: tuple[str, str]
    task: str
    lmm: ModelIdentity | None
    requests: Mapping[str, tuple[str, ...]]
    judgments: Qrels
    values: Mapping[str, Mapping[str, float]]
    groups: Mapping[str, Mapping[str, str]]
    spent: Usage
    asked: int
    unknown: int
    ended: int
    money: float | None = None
    scored_on_test: int = 0
    by_role: Mapping[str, Usage] = field(default_factory=dict)
    reported: Reported = GENERAL
    file_order: Mapping[str, float] = field(default_factory=dict)
    official: bool = False
    choices: Mapping[str, str] = field(default_factory=dict)
    nothing: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def text(self, query: str) -> str:
        """The query in words; of a dialogue its last round too."""
        text, *more = self.requests[query]
        return f"{text} ({more[-1]})" if more else text

    def require_values(self) -> None:
        """Raise `ConfigError` where no query has anything to find."""
        if not self.values:
            raise ConfigError(
                f"{self.folder}: no query has anything to find, and the run does not say whether anything matches, so "
                "there is nothing to compare. Use a split with judgments, or a strategy that claims probabilities."
            )

    def comparable(self) -> ScoredRun:
        """The run with values to compare: where no query has anything to find, whether nothing was rightly said to
        match. Raises `ConfigError` where that was not decided either."""
        if self.values or not self.nothing.get(RIGHTLY):
            self.require_values()
            return self
        values = {query: {RIGHTLY: value} for query, value in self.nothing[RIGHTLY].items()}
        return replace(self, values=values, reported=UNMATCHED)

    def mean(self, metric: str) -> float:
        """Over the queries that have something to find. Raises `ConfigError` where there are none, or one of them has
        no such metric."""
        self.require_values()
        scores = [values[metric] for values in self.values.values() if metric in values]
        if len(scores) < len(self.values):
            raise ConfigError(
                f"{self.folder} does not have the metric {metric!r} for every query. Rerun the command that made the "
                "run; "
                "it scores the run again without asking the model."
            )
        return sum(scores) / len(scores)


def read_scored(folder: Path, name: str | None = None) -> ScoredRun:
    """A run folder read back. Raises `ConfigError` where the run is not finished, or a file is damaged."""
    run = read_finished(folder, name)
    metrics = run.metrics
    if not metrics.model_fields_set >= _NEEDED:
        raise no_run(folder, folder / METRICS)
    values = {
        query: {name: value for name, value in scores.items() if value is not None and name != "positives"}
        for query, scores in metrics.per_query.items()
        if scores.get("positives")
    }
    return ScoredRun(
        name=name or metrics.strategy,
        folder=folder,
        strategy=metrics.strategy,
        benchmark=(metrics.benchmark, metrics.split),
        task=run.setup.benchmark.fingerprint,
        lmm=run.lmm,
        requests={query: _request(result) for query, result in run.results.items()},
        judgments=run.judgments,
        values=values,
        groups=metrics.groups,
        spent=replace(
            Usage.of(question for result in run.results.values() for question in result.asked),
            wall=metrics.cost.get("seconds", 0.0),
        ),
        asked=metrics.asked,
        unknown=metrics.unknown,
        ended=sum(metrics.ended.values()),
        scored_on_test=run.manifest.scored_on_test,
        by_role={role: role_usage(cost) for role, cost in metrics.by_role.items()},
        reported=reported_as(metrics.reported),
        file_order=metrics.file_order,
        official=metrics.scoring == "official",
        choices=run.setup.benchmark.choices,
        nothing={
            metric: said
            for metric in (RIGHTLY, WRONGLY)
            if (said := {q: v for q, scores in metrics.per_query.items() if (v := scores.get(metric)) is not None})
        },
    )


def role_usage(cost: Mapping[str, float]) -> Usage:
    """Calls and tokens of a role, as `metrics.json` has them."""
    names = ("calls", "prompt_tokens", "completion_tokens")
    return Usage(*(int(cost.get(name, 0)) for name in names))


def require_same_task(runs: Sequence[ScoredRun]) -> None:
    """Raise `ConfigError`, saying which differ, unless all runs have the same queries, judgments and protocol."""
    first = runs[0]
    for other in runs[1:]:
        for name in sorted({*first.choices, *other.choices}):
            here, there = first.choices.get(name), other.choices.get(name)
            if here != there:
                raise ConfigError(
                    f"{first.folder} and {other.folder} are runs under different protocols: {name} is {here} in the "
                    f"one and {there} in the other. Compare runs with the same --set."
                )
        for own, theirs in ((first, other), (other, first)):
            if alone := [query for query in own.requests if query not in theirs.requests]:
                raise ConfigError(
                    f"{first.folder} and {other.folder} are runs over different queries: "
                    f"{_some(alone)} only in {own.folder}. Compare runs of one benchmark, split and --limit."
                )
        if changed := [query for query, request in first.requests.items() if other.requests[query] != request]:
            raise ConfigError(
                f"{first.folder} and {other.folder} are runs over different queries: {_some(changed)} "
                f"{'does' if len(changed) == 1 else 'do'} not ask for the same. Compare runs of one benchmark and "
                "split."
            )
        judged = [query for query in first.requests if _marks(first, query) != _marks(other, query)]
        if judged:
            images = sorted(image for image, _ in _marks(first, judged[0]) ^ _marks(other, judged[0]))
            raise ConfigError(
                f"{first.folder} and {other.folder} have different qrels: {_some(judged)} (in {judged[0]} the images "
                f"{_some(list(dict.fromkeys(images)))}). Compare runs that were scored against the same judgments."
            )


def _marks(run: ScoredRun, query: str) -> frozenset[tuple[str, int]]:
    return frozenset(run.judgments.get(query, {}).items())


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _request(result: RerankResult) -> tuple[str, ...]:
    shown = (f"changed from image {result.reference_image}",) if result.reference_image is not None else ()
    rounds = tuple(f"{turn.question} {turn.answer}" for turn in result.dialogue)
    return (result.query_text, *shown, *rounds)
