"""A promise of precision for a ranking: its threshold from a labelled run, and which images it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ConfigError

if TYPE_CHECKING:
    from fieldscope.agent.calibration import Calibration
    from fieldscope.agent.roles import ModelIdentity
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.agent.types import RerankResult
    from fieldscope.eval.runs.inputs import Inputs
    from fieldscope.eval.runs.read import RunSetup
    from fieldscope.eval.tuning.cutoff import Cutoff, LabelledSplit

CONFIDENCE = 0.95
"""The confidence of a promise that names none."""

MOST = 0.999
"""The highest precision, and the highest confidence, that can be promised."""

UNNAMED = (
    "a promised precision needs a labelled run. Evaluate this strategy on labelled queries (`fieldscope eval BENCHMARK "
    "--split validation --strategy NAME`), and name the run's folder with --precision-from"
)


@dataclass(frozen=True)
class KeptImages:
    """The images of one ranking of `ranked` images that reach a cutoff, best first, and what weakens the promise for
    this ranking. `labelled` names benchmark and split of the labelled queries."""

    cutoff: Cutoff
    labelled: str
    images: tuple[str, ...]
    ranked: int
    caveats: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """How many images are kept."""
        return f"Kept {len(self.images)} of {self.ranked} images."

    @property
    def promise(self) -> str:
        """The threshold and what is promised, in one sentence."""
        cutoff = self.cutoff
        return (
            f"Images with P(match) of {cutoff.threshold:g} or more are kept. With a confidence of "
            f"{cutoff.confidence:g}, at least {cutoff.precision:g} of the kept images match, on average over queries "
            f"like the {cutoff.queries} labelled ones ({self.labelled}) for which something is kept. It promises "
            "nothing for a single query."
        )

    def data(self) -> dict[str, Any]:
        """As one JSON-able object."""
        return {
            **asdict(self.cutoff),
            "labelled": self.labelled,
            "promise": self.promise,
            "kept": len(self.images),
            "caveats": list(self.caveats),
        }


class LabelledRun:
    """A finished run over labelled queries, from which thresholds are chosen. Raises `ConfigError` where the folder
    holds none that may decide a setting."""

    def __init__(self, folder: Path) -> None:
        from fieldscope.eval.runs.inputs import read_inputs
        from fieldscope.eval.runs.read import read_manifest, read_metrics, read_results
        from fieldscope.eval.tuning.calibrate import require_selection_split

        self.folder = folder
        self.setup: RunSetup = read_manifest(folder).setup
        require_selection_split(self.setup.benchmark.split)
        self.inputs: Inputs = read_inputs(folder)
        read_metrics(folder)  # which a run has once it is finished
        results = read_results(folder)
        self.split: LabelledSplit = _split(folder, self.inputs, results)
        self.relative = any(result.relative for result in results.values())

    @property
    def name(self) -> str:
        """Benchmark and split."""
        return f"{self.setup.benchmark.name}, {self.setup.benchmark.split}"

    def promise(self, precision: float, confidence: float, strategy: Strategy) -> Promise:
        """What is promised of rankings of this strategy. Raises `ConfigError` where the run has another one, and where
        the labels carry no such promise; it says how many labelled queries are needed."""
        for name, value in (("precision", precision), ("confidence", confidence)):
            if not 0.0 < value <= MOST:
                raise ConfigError(f"the {name} {value:g} can't be promised. Choose one above 0 and at most {MOST:g}.")
        promise = Promise(self, self.split.cutoff(precision, confidence))
        promise.require_strategy(strategy)
        return promise


@dataclass(frozen=True)
class Promise:
    """A cutoff from a labelled run."""

    run: LabelledRun
    cutoff: Cutoff

    def require_strategy(self, strategy: Strategy) -> None:
        """Raise `ConfigError` unless the labelled run had this strategy. Reasons, which are asked last, don't count."""
        if _ranking_part(self.run.inputs.strategy.strategy()) != _ranking_part(strategy):
            own = self.run.setup.strategy.name
            form = " with other settings or wordings" if own == strategy.name else f", not {strategy.name!r}"
            raise self._another(f"the strategy {own!r}{form}")

    def require_setting(
        self,
        model: ModelIdentity | None,
        calibration: Calibration | None,
        origin: str | None,
        scorer: str | None,
    ) -> None:
        """Raise `ConfigError` unless the labelled run had this model, calibration, first stage (its fingerprint) and
        scoring model: another one's P(match) means something else."""
        setup = self.run.setup
        if not _same_models(setup.lmm, model):
            raise self._another("another LMM")
        if setup.scorer != scorer:
            raise self._another("another scoring model")
        if setup.encoder != origin:
            raise self._another("another first stage")
        if self.run.inputs.strategy.calibration != calibration:
            raise self._another("another calibration")

    def keep(self, result: RerankResult) -> KeptImages:
        """The images of a ranking that reach the threshold: none where nothing is said to match."""
        kept = [r.image_id for r in result.ranking if r.p_match is not None and r.p_match >= self.cutoff.threshold]
        return KeptImages(
            cutoff=self.cutoff,
            labelled=self.run.name,
            images=() if result.nothing is not None else tuple(kept),
            ranked=len(result.ranking),
            caveats=self._caveats(result),
        )

    def _caveats(self, result: RerankResult) -> tuple[str, ...]:
        caveats = []
        fitted = self.run.inputs.strategy.calibration
        if fitted is not None and (fitted.benchmark, fitted.split) == (
            self.run.setup.benchmark.name,
            self.run.setup.benchmark.split,
        ):
            caveats.append(
                "The calibration was fitted on the labelled queries, too, which flatters them a little. Label other "
                "queries for a promise that is exact."
            )
        if result.ended is not None and not self.run.setup.budget:
            caveats.append("A budget cut this ranking short, and the promise is for rankings that were finished.")
        if result.relative or self.run.relative:
            whose = "this list of images" if result.relative else "each list of images in the labelled run"
            caveats.append(
                f"P(match) is relative to {whose}, so the promise holds only for lists like the labelled ones."
            )
        return tuple(caveats)

    def _another(self, what: str) -> ConfigError:
        return ConfigError(
            f"The labelled run ({self.run.name}) used {what}. It promises nothing for this ranking. Evaluate "
            "labelled queries with the settings that rank here, and name that run instead."
        )


def open_promise(
    precision: float | None, confidence: float | None, run: Path | None, strategy: Strategy
) -> Promise | None:
    """What `--precision`, `--confidence` and `--precision-from` ask for; None without a precision. Raises
    `ConfigError`, before any model is opened, where it can't be promised, or not for this strategy."""
    if precision is None:
        if confidence is not None or run is not None:
            raise ConfigError("a confidence or a labelled run promises nothing by itself. Add --precision.")
        return None
    if run is None:
        raise ConfigError(UNNAMED)
    return LabelledRun(run).promise(precision, CONFIDENCE if confidence is None else confidence, strategy)


def _split(folder: Path, inputs: Inputs, results: Mapping[str, RerankResult]) -> LabelledSplit:
    from fieldscope.eval.tuning.cutoff import labelled_split

    if any(result.dialogue for result in results.values()):
        raise ConfigError(
            f"the queries in {folder} are rounds of dialogues, which say the same thing several times, and a promise "
            "needs queries that have nothing to do with each other. Name a run of single queries."
        )
    return labelled_split(results, inputs.judgments)


def _same_models(recorded: ModelIdentity | None, wanted: ModelIdentity | None) -> bool:
    """Whether the same LMMs answer; a role that is not wanted here plays no part."""
    from fieldscope.agent.roles import models_may_be

    if isinstance(recorded, Mapping) and isinstance(wanted, Mapping):
        recorded = {role: lmm for role, lmm in recorded.items() if role in wanted}
    return recorded == wanted or (None not in (recorded, wanted) and models_may_be(recorded, wanted))


def _ranking_part(strategy: Strategy) -> str:
    return strategy.model_copy(update={"explain": None}).fingerprint
