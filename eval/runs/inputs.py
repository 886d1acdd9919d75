"""What a run is made from, in full and without pixels: enough to replay or re-score it with nothing else at hand.

A manifest says by fingerprints what was run; `inputs.jsonl` beside it has the things themselves. Its first line is the
strategy, with its prompts and the calibration that it was run with; the second the benchmark; the others its queries.
They are part of the answer key: no line but a `Query`'s own fields ever reaches the agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from fieldscope.agent.calibration import Calibration, earlier_uncalibrated
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.core.errors import BenchmarkError, ConfigError, FieldscopeError
from fieldscope.core.reading import file_bytes
from fieldscope.core.types import Candidate, ImageSource, Query, Scale
from fieldscope.eval.protocol import PLAIN, Protocol
from fieldscope.eval.reported import GENERAL, reported_as
from fieldscope.eval.types import Benchmark, QueryMeta

NAME = "inputs.jsonl"


class Line(BaseModel):
    """One line; `kind` tells them apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StrategyLine(Line):
    """A strategy with all settings and wordings, and what was fitted for it. `edition` is that of the posterior where
    nothing was fitted (`Calibration.edition`)."""

    kind: Literal["strategy"] = "strategy"
    definition: dict[str, Any]
    calibration: Calibration | None = None
    edition: Literal[1, 2] = Field(default=1, exclude_if=lambda edition: edition == 1)  # as earlier versions wrote it

    @property
    def weights(self) -> Calibration | None:
        """What was fitted, or for a run of an earlier version what it had where nothing was."""
        fusion = self.definition.get("fusion")
        if self.calibration is not None or self.edition == 2 or not isinstance(fusion, dict):
            return self.calibration
        return earlier_uncalibrated(fusion.get("prior_weight")) if fusion.get("method") == "posterior" else None

    def strategy(self) -> Strategy:
        """Raises `ConfigError` for a definition that is none of this version's."""
        try:
            strategy = Strategy.model_validate(self.definition)
            for prompt in strategy.prompts:
                prompt.render(**dict.fromkeys(prompt.variables, ""))
        except (ValidationError, FieldscopeError, KeyError) as error:
            name = str(self.definition.get("name", "a strategy"))[:64]
            raise ConfigError(
                f"{name} can't be read by this version of Fieldscope. Give the strategy's file."
            ) from error
        return strategy


class BenchmarkLine(Line):
    """A benchmark but for its queries. `rerank` says that every query has given candidates. `protocol` is there where
    it scores in a way of its own, and so is the name of the metrics in which it is `reported`."""

    kind: Literal["benchmark"] = "benchmark"
    name: str
    split: str
    rerank: bool
    fingerprint: str
    protocol: Protocol | None = None
    reported: str | None = None


class QueryLine(Line):
    """A query with its judgments, its given candidates with the scores that they came with, and its groups. `priors`
    are an encoder's scores in place of those, in the same order; `background` is the scale of a sample's scores;
    `near_misses` are the images that show all of the query but one thing, where the benchmark knows them. `query` is
    None where it was left out of the run: its judgments belong to the benchmark all the same."""

    kind: Literal["query"] = "query"
    id: str
    query: Query | None = None
    judgments: dict[str, int] | None = None
    candidates: tuple[tuple[str, FiniteFloat], ...] | None = None
    priors: tuple[FiniteFloat, ...] | None = None
    background: Scale | None = None
    meta: QueryMeta | None = None
    near_misses: tuple[str, ...] | None = None


_LINE: TypeAdapter[StrategyLine | BenchmarkLine | QueryLine] = TypeAdapter(
    Annotated[StrategyLine | BenchmarkLine | QueryLine, Field(discriminator="kind")]
)


@dataclass(frozen=True)
class Inputs:
    """What one run is made from."""

    strategy: StrategyLine
    benchmark: BenchmarkLine
    queries: tuple[QueryLine, ...]

    @property
    def judgments(self) -> dict[str, Mapping[str, int]]:
        """By query id. A given candidate without a judgment counts as judged with 0."""
        judgments: dict[str, Mapping[str, int]] = {}
        for line in self.queries:
            judged = line.judgments or {}
            judgments[line.id] = (
                judged if line.candidates is None else {image: judged.get(image, 0) for image, _ in line.candidates}
            )
        return judgments


def strategy_line(strategy: Strategy, calibration: Calibration | None) -> StrategyLine:
    """A strategy as it can be read back."""
    definition = strategy.model_dump(mode="json", exclude_none=True)
    stand_in = calibration is not None and calibration.key is None and calibration.edition == 1
    fitted = None if stand_in else calibration
    return StrategyLine(definition=definition, calibration=fitted, edition=calibration.edition if calibration else 2)


def benchmark_lines(benchmark: Benchmark) -> Iterator[BenchmarkLine | QueryLine]:
    """A benchmark as it can be read back, but for its images."""
    sets, own = benchmark.candidate_sets, benchmark.protocol != PLAIN
    yield BenchmarkLine(
        name=benchmark.name,
        split=benchmark.split,
        rerank=sets is not None,
        fingerprint=benchmark.fingerprint,
        protocol=benchmark.protocol if own else None,
        reported=benchmark.reported.name if own else None,
    )
    queries = {query.id: query for query in benchmark.queries}
    known = benchmark.near_misses or {}
    for query_id in dict.fromkeys((*queries, *benchmark.qrels, *(sets or ()), *benchmark.meta)):
        judged, given = benchmark.qrels.get(query_id), (sets or {}).get(query_id)
        scores = (benchmark.priors or {}).get(query_id)
        yield QueryLine(
            id=query_id,
            query=queries.get(query_id),
            judgments=None if judged is None else dict(judged),
            candidates=None if given is None else tuple((c.image_id, c.prior) for c in given),
            priors=None if given is None or scores is None else tuple(scores[c.image_id] for c in given),
            background=benchmark.backgrounds.get(query_id),
            meta=benchmark.meta.get(query_id),
            near_misses=None if (near := known.get(query_id)) is None else tuple(sorted(near)),
        )


def input_lines(benchmark: Benchmark, strategy: Strategy, calibration: Calibration | None) -> Iterator[str]:
    """The lines of `inputs.jsonl`."""
    for line in (strategy_line(strategy, calibration), *benchmark_lines(benchmark)):
        yield f"{line.model_dump_json(exclude_none=True)}\n"


def read_inputs(folder: Path) -> Inputs:
    """What the run in a folder is made from. Raises `ConfigError` where the folder does not say."""
    path = folder / NAME
    try:
        lines = [_LINE.validate_json(line) for line in file_bytes(path).splitlines()]
        strategy, benchmark, *queries = lines
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the inputs of the run in {folder} are unknown ({NAME} is missing or damaged). Rerun the command that "
            "made "
            "it; it repeats no call."
        ) from error
    asked = tuple(line for line in queries if isinstance(line, QueryLine))
    if not (isinstance(strategy, StrategyLine) and isinstance(benchmark, BenchmarkLine) and len(asked) == len(queries)):
        raise ConfigError(f"{path} is damaged. Rerun the command that made the run.")
    return Inputs(strategy, benchmark, asked)


def read_protocol(folder: Path) -> Protocol:
    """How the benchmark of the run in a folder is scored; the usual way where the folder does not say."""
    try:
        with (folder / NAME).open("rb") as stream:
            stream.readline()
            line = BenchmarkLine.model_validate_json(stream.readline())
    except (OSError, ValueError):
        return PLAIN
    return line.protocol or PLAIN


def begun_earlier(folder: Path) -> Calibration | None:
    """The weights of a run in a folder that an earlier version began without a calibration, so that it goes on as it
    began; None for any other."""
    if not (folder / NAME).is_file():
        return None
    try:
        weights = read_inputs(folder).strategy.weights
    except FieldscopeError:  # damaged; it is written again
        return None
    return weights if weights is not None and weights.key is None else None


def read_priors(lines: Iterable[QueryLine]) -> dict[str, Mapping[str, float]]:
    """Query id -> image id -> an encoder's score in place of the one that the candidate came with, of the queries that
    have such scores. Raises `BenchmarkError` where a candidate has none."""
    priors: dict[str, Mapping[str, float]] = {}
    for line in lines:
        if line.priors is not None:
            images = [image_id for image_id, _ in line.candidates or ()]
            if len(images) != len(line.priors):
                raise BenchmarkError(
                    f"query {line.id} has {len(images)} candidates and {len(line.priors)} priors. Make the run again."
                )
            priors[line.id] = dict(zip(images, line.priors, strict=True))
    return priors


def read_backgrounds(lines: Iterable[QueryLine]) -> dict[str, Scale]:
    """Query id -> the scale of a sample's scores, of the queries that have one."""
    return {line.id: line.background for line in lines if line.background is not None}


def keeping_priors(benchmark: Benchmark, folder: Path) -> Benchmark:
    """The benchmark with an encoder's scores also for those queries that the run in a folder had before; as it is where
    its candidates have the scores that they came with."""
    if benchmark.priors is None or not (folder / NAME).is_file():
        return benchmark
    try:
        lines = read_inputs(folder).queries
        earlier = read_priors(lines)
    except FieldscopeError:  # damaged; the run's queries are written again
        return benchmark
    backgrounds = {**read_backgrounds(lines), **benchmark.backgrounds}
    return replace(benchmark, priors={**earlier, **benchmark.priors}, backgrounds=backgrounds)


def make_benchmark(
    line: BenchmarkLine, queries: Iterable[QueryLine], images: ImageSource, prior: str = ""
) -> Benchmark:
    """The benchmark over other images of the same ids; `prior` says whose the first-stage scores are. Raises
    `BenchmarkError` unless it is the one it says it is."""
    lines = tuple(queries)
    sets: Mapping[str, tuple[Candidate, ...]] = {
        each.id: tuple(Candidate(image_id, prior) for image_id, prior in each.candidates)
        for each in lines
        if each.candidates is not None
    }
    benchmark = Benchmark(
        name=line.name,
        split=line.split,
        queries=tuple(each.query for each in lines if each.query is not None),
        qrels={each.id: each.judgments for each in lines if each.judgments is not None},
        images=images,
        candidate_sets=sets if line.rerank else None,
        meta={each.id: each.meta for each in lines if each.meta is not None},
        prior=prior,
        priors=read_priors(lines) or None,
        backgrounds=read_backgrounds(lines),
        protocol=line.protocol or PLAIN,
        reported=reported_as(line.reported) if line.reported else GENERAL,
        near_misses={each.id: frozenset(each.near_misses) for each in lines if each.near_misses is not None} or None,
    )
    if benchmark.fingerprint != line.fingerprint:
        raise BenchmarkError(
            f"{line.name} ({line.split}) is not as it was recorded: queries or judgments were altered. Make the run "
            "again."
        )
    return benchmark
