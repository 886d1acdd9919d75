"""A recording instead of a model, a first stage and images: it answers what was recorded and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from typing import Any, Literal

from PIL import Image as PILImage
from pydantic import ValidationError

from fieldscope.agent.budget import Budget
from fieldscope.agent.calibration import Calibration, calibration_key
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse
from fieldscope.agent.lmm.cached import missing_call, require_unaltered
from fieldscope.agent.lmm.identity import named_identity
from fieldscope.agent.nodes.inspect import proposals_key
from fieldscope.agent.nodes.retrieve import search_key
from fieldscope.agent.roles import LMMs, Role
from fieldscope.agent.scoring import score_key
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import ImageScore
from fieldscope.core.errors import BrokenImageError, CacheError, CacheMissError, ConfigError, LMMError
from fieldscope.core.looks import Region
from fieldscope.core.types import Candidate, HashSource, Query, Search
from fieldscope.eval.runs.inputs import BenchmarkLine, QueryLine, make_benchmark
from fieldscope.eval.runs.recording import models_by_role
from fieldscope.eval.runs.recording_lines import (
    FailureLine,
    ImageLine,
    RecordedLine,
    RegionsLine,
    ResponseLine,
    RunLine,
    ScoresLine,
    SearchLine,
)
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.regions import LEAST_GAIN, Proposal

UNRECORDED = "unrecorded"
"""Stands for the hash of an image that the model was never asked about, so that the missing question
is reported in full."""


class RecordedImages(HashSource):
    """An `ImageSource` of hashes alone."""

    def __init__(self, hashes: Mapping[str, str], errors: Mapping[str, str] | None = None) -> None:
        self._hashes = hashes
        self._errors = errors or {}

    def load(self, image_id: str) -> PILImage.Image:
        raise BrokenImageError(
            f"image {image_id!r}: a recording keeps hashes and no pixels. Open the benchmark itself."
        )

    def pixel_hash(self, image_id: str) -> str:
        """As it was recorded; raises `BrokenImageError` for an image that could not be read then either."""
        found = self._hashes.get(image_id)
        if found is None and image_id in self._errors:
            raise BrokenImageError(self._errors[image_id])
        return found or UNRECORDED


class RecordedDocuments(RecordedImages):
    """A `DocumentSource` of hashes and words."""

    def __init__(
        self, hashes: Mapping[str, str], errors: Mapping[str, str], texts: Mapping[str, str], no_image: Container[str]
    ) -> None:
        super().__init__(hashes, errors)
        self._texts = texts
        self._no_image = no_image

    def text_of(self, document_id: str) -> str:
        """As it was shown."""
        return self._texts.get(document_id, "")

    def has_image(self, document_id: str) -> bool:
        """Whether the document had a picture."""
        return document_id not in self._no_image


class RecordedLMM:
    """An `LMM` that answers what was recorded of the model `identity`. Errors of the recorded run are raised again."""

    def __init__(self, identity: str, responses: Mapping[str, str], failures: Mapping[str, str]) -> None:
        self._identity = identity
        self._responses = responses
        self._failures = failures

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def stored(self) -> Literal[True]:
        """All answers are at hand."""
        return True

    async def generate(self, request: LMMRequest) -> LMMResponse:
        """Raises `CacheMissError` for a call that was never recorded."""
        key = request.key(self._identity)
        if key not in self._responses and key not in self._failures:
            # A resumed run may have begun before the server was asked to identify its model.
            earlier = request.key(named_identity(self._identity))
            key = earlier if earlier in self._responses or earlier in self._failures else key
        response = self._responses.get(key)
        if response is None:
            if key in self._failures:
                raise LMMError(self._failures[key])
            raise missing_call(self._identity, key, request)
        try:
            return LMMResponse.model_validate_json(response).model_copy(update={"cached": True})
        except ValidationError as error:
            raise CacheError(
                f"response {key[:12]} of the recording can't be read. Export the recording again."
            ) from error

    async def aclose(self) -> None:
        """Nothing to release."""


class RecordedSearches:
    """A `Retriever` that returns recorded results. A search may ask for fewer images than the recorded one."""

    def __init__(self, searches: Mapping[str, Mapping[int, tuple[Candidate, ...]]]) -> None:
        self._searches = searches

    def search(self, search: Search) -> Sequence[Candidate]:
        """Raises `CacheMissError` for a search that was never recorded."""
        query, descriptions, k = search.query, search.descriptions, search.k
        recorded = self._searches.get(search_key(search), {})
        enough = [wanted for wanted, found in recorded.items() if wanted >= k or len(found) < wanted]
        if not enough:
            wording = f" and the descriptions {'; '.join(descriptions)!r}" if descriptions else ""
            wording += f" under the instruction {search.instruction!r}" if search.instruction else ""
            raise CacheMissError(
                f"replay: the search for the {k} images nearest to query {query.id} ({query.text!r}){wording} was "
                f"never recorded (at most {max(recorded, default=0)} images were searched). Record it with models, or "
                "search for fewer images."
            )
        return recorded[min(enough)][:k]


class RecordedScores:
    """A `CandidateScorer` that gives recorded scores, by the hash of what was asked."""

    def __init__(self, fingerprint: str, scores: Mapping[str, Mapping[str, ImageScore]]) -> None:
        self.fingerprint = fingerprint
        self._scores = scores

    async def scores(
        self, query: Query, image_ids: Sequence[str], question: str | None = None, instruction: str | None = None
    ) -> Sequence[ImageScore]:
        """Raises `CacheMissError` for a pair that was never scored."""
        recorded = self._scores.get(score_key(query, question, instruction), {})
        if missing := [image_id for image_id in image_ids if image_id not in recorded]:
            raise CacheMissError(
                f"replay: the scoring model never scored image {missing[0]} for {question or query.text!r}. Record it "
                "with the model, or use the candidates of the recording."
            )
        return [recorded[image_id].model_copy(update={"cached": True}) for image_id in image_ids]


class RecordedRegions:
    """A `RegionProposer` that proposes what was recorded, by the hash of what was asked, and knows the gain of each box
    that the model named."""

    def __init__(
        self, regions: Mapping[str, Mapping[str, tuple[Proposal, ...]]], gains: Mapping[tuple[str, Region], float]
    ) -> None:
        self._regions, self._gains = regions, gains

    def propose(
        self, texts: Sequence[str], image_ids: Sequence[str], most: int, least_gain: float = LEAST_GAIN
    ) -> Mapping[str, tuple[Proposal, ...]]:
        """Raises `CacheMissError` where nothing was recorded for these texts."""
        recorded = self._regions.get(proposals_key(texts, most, least_gain))
        if recorded is None:
            raise CacheMissError(
                f"replay: no regions of images were proposed for {'; '.join(texts)!r}. Record it with models."
            )
        return {image_id: recorded[image_id] for image_id in image_ids if image_id in recorded}

    def gain(self, image_id: str, region: Region) -> float:
        """Raises `CacheMissError` for a box that the model never named."""
        if (image_id, region) not in self._gains:
            raise CacheMissError(f"replay: this box of image {image_id!r} was never named. Record it with models.")
        return self._gains[image_id, region]


@dataclass(frozen=True)
class RecordedRun:
    """One of the recorded runs. `budget` is what its manifest says a query, and all queries together, might spend;
    under the `seed` its requests were made."""

    strategy: Strategy
    calibration: Calibration | None
    budget: Mapping[str, Mapping[str, int | None]]
    finished: frozenset[str]
    flags: tuple[str, ...]
    seed: int = 0

    def budget_of(self, whose: str) -> Budget:
        """Of a `query`, or of the whole `run`; without limits where none were set."""
        limits = self.budget.get(whose, {})
        return Budget(max_calls=limits.get("calls"), max_tokens=limits.get("tokens"))


@dataclass(frozen=True)
class Recording:
    """What a replay runs on. `lmm` is None where no model was asked, `searches` where candidates were given, `scorer`
    where no scoring model was used, `regions` where no region was proposed; `encoder` is the fingerprint of the first
    stage's encoder, where there was one."""

    benchmark: Benchmark
    runs: tuple[RecordedRun, ...]
    encoder: str | None
    lmm: LMMs | None
    searches: RecordedSearches | None
    scorer: RecordedScores | None = None
    regions: RecordedRegions | None = None

    @cached_property
    def queries(self) -> int:
        """How many of the benchmark's queries, from the first on, every run has finished."""
        for number, query in enumerate(self.benchmark.queries):
            if not all(query.id in run.finished for run in self.runs):
                return number
        return len(self.benchmark.queries)

    def calibration_of(self, strategy: Strategy, otherwise: Callable[[], Calibration | None]) -> Calibration | None:
        """What this strategy was run with, if it was; else what fits of what others were run with, or `otherwise`."""
        for run in self.runs:
            if run.strategy.fingerprint == strategy.fingerprint:
                return run.calibration
        if self.lmm is None or strategy.fusion.method != "posterior":
            return None
        scorer = self.scorer.fingerprint if self.scorer else None
        key = calibration_key(self.lmm.identity(strategy.roles()) or "", strategy, self.encoder, scorer)
        recorded = (run.calibration for run in self.runs if run.calibration is not None)
        return next((fitted for fitted in recorded if fitted.fits(key)), None) or otherwise()

    def budget_of(self, whose: str) -> Budget:
        """The budget (`query` or `run`) of the recorded runs that asked anything. Raises `ConfigError` where it was not
        the same for all."""
        budgets = {run.budget_of(whose) for run in self.runs if run.strategy.prompts or run.strategy.score}
        if len(budgets) > 1:
            raise ConfigError("the recorded runs had different budgets. Name one with --max-calls or --max-tokens.")
        return next(iter(budgets), Budget())

    @property
    def seed(self) -> int:
        """Under which the recorded requests were made. Raises `ConfigError` where it was not the same for all runs that
        asked."""
        seeds = {run.seed for run in self.runs if run.strategy.prompts}
        if len(seeds) > 1:
            raise ConfigError("the recorded runs were made under different seeds. Run --replay once for each of them.")
        return next(iter(seeds), 0)


def make_recording(lines: Iterable[RecordedLine]) -> Recording:
    """Put a recording together. Raises `CacheError` for lines that are none, `BenchmarkError` and `ConfigError` for a
    benchmark or strategy that is not as it was."""
    benchmark: BenchmarkLine | None = None
    runs: list[RunLine] = []
    queries: list[QueryLine] = []
    hashes: dict[str, str] = {}
    errors: dict[str, str] = {}
    texts: dict[str, str] = {}
    without_image: set[str] = set()
    searches: dict[str, dict[int, tuple[Candidate, ...]]] = {}
    scores: dict[str, dict[str, ImageScore]] = {}
    regions: dict[str, dict[str, tuple[Proposal, ...]]] = {}
    gains: dict[tuple[str, Region], float] = {}
    responses: dict[str, str] = {}
    failures: dict[str, str] = {}
    for line in lines:
        match line:
            case ResponseLine():
                require_unaltered(line.entry())
                responses[line.key] = line.response
            case FailureLine(response=None):
                failures[line.key] = line.error
            case FailureLine(response=str(response)):
                responses[line.key] = response
            case ImageLine():
                if line.text is not None:
                    texts[line.image_id] = line.text
                if line.modality == "text":
                    without_image.add(line.image_id)
                elif line.sha256 is not None:
                    hashes[line.image_id] = line.sha256
                elif line.error is not None or line.modality == "image":
                    errors[line.image_id] = line.error or "it could not be read"
            case SearchLine():
                standings = line.standings or [None] * len(line.found)
                found = tuple(Candidate(*pair, standing) for pair, standing in zip(line.found, standings, strict=True))
                searches.setdefault(line.key, {})[line.k] = found
            case ScoresLine():
                scores.setdefault(line.key, {}).update({score.image_id: score for score in line.scores})
            case RegionsLine():
                own = {i: tuple(starmap(Proposal, found)) for i, found in _boxes(line.regions)}
                regions.setdefault(line.key, {}).update(own)
                gains.update({(i, region): gain for i, found in _boxes(line.named) for region, gain in found})
            case QueryLine():
                queries.append(line)
            case RunLine():
                runs.append(line)
            case BenchmarkLine():
                benchmark = line
    if benchmark is None or not runs:
        raise CacheError("the recording has no benchmark or no runs. Export it again.")
    prior = str(runs[0].configuration.get("prior", ""))
    images = RecordedImages(hashes, errors)
    if texts or without_image:
        images = RecordedDocuments(hashes, errors, texts, without_image)
    made = make_benchmark(benchmark, queries, images, prior)
    models: dict[Role, str] = {}
    for run in runs:
        models = models_by_role(run.configuration, run.strategy) | models
    scorer = next((run.configuration["scorer"] for run in runs if run.configuration.get("scorer") is not None), None)
    return Recording(
        benchmark=made,
        runs=tuple(_recorded(run) for run in runs),
        encoder=None if (encoder := runs[0].configuration.get("encoder")) is None else str(encoder),
        lmm=_recorded_lmms(models, responses, failures) if models else None,
        searches=None if benchmark.rerank else RecordedSearches(searches),
        scorer=None if scorer is None else RecordedScores(str(scorer), scores),
        regions=RecordedRegions(regions, gains) if regions else None,
    )


def _boxes(recorded: Mapping[str, Sequence[Sequence[float]]]) -> Iterator[tuple[str, list[tuple[Region, float]]]]:
    """The boxes of each image, each with the number that was recorded of it. Raises `CacheError` for a box that is no
    region of a picture."""
    for image_id, boxes in recorded.items():
        try:
            regions = [(Region(left=a, top=b, right=c, bottom=d), number) for a, b, c, d, number in boxes]
        except ValidationError as error:
            raise CacheError(f"a region of image {image_id!r} was altered. Export the recording again.") from error
        yield image_id, regions


def _recorded_lmms(models: Mapping[Role, str], responses: Mapping[str, str], failures: Mapping[str, str]) -> LMMs:
    """What stands for the LMM of each role; one that is the only one has the roles that no recorded run asked, too."""
    recorded = {model: RecordedLMM(model, responses, failures) for model in dict.fromkeys(models.values())}
    if len(recorded) == 1:
        return LMMs(next(iter(recorded.values())))
    return LMMs(None, {role: recorded[model] for role, model in models.items()})


def _recorded(run: RunLine) -> RecordedRun:
    strategy, said = run.strategy.strategy(), run.configuration.get("strategy")
    if not isinstance(said, dict) or strategy.fingerprint != said.get("fingerprint"):
        raise ConfigError(
            f"strategy {strategy.name!r} is not as it was recorded, or of another version. Give its file."
        )
    return RecordedRun(
        strategy=strategy,
        calibration=run.strategy.weights,
        budget=_budget(run.configuration.get("budget")),
        finished=frozenset(run.finished),
        flags=run.flags,
        seed=seed if isinstance(seed := run.configuration.get("seed"), int) else 0,
    )


def _budget(said: Any) -> dict[str, dict[str, int | None]]:
    """What a manifest says of budgets, without whatever is none."""
    limits = said if isinstance(said, dict) else {}
    return {
        str(whose): {str(name): most for name, most in limit.items() if isinstance(most, int)}
        for whose, limit in limits.items()
        if isinstance(limit, dict)
    }
