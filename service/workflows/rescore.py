"""A finished run ranked again under other strategies, into other folders."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import CacheError, ConfigError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.service.wiring.bundled import FOREIGN
from fieldscope.service.wiring.calibrations import find_calibration, load_calibrations
from fieldscope.service.wiring.feedback import keeping, run_progress
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.collecting import seldom_collecting
from fieldscope.service.workflows.replay import chosen_strategies, recorded_limit

if TYPE_CHECKING:
    from fieldscope.agent.calibration import Calibration
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.eval.runs.replay import Recording
    from fieldscope.eval.runs.rescore import Rescorer, Responses
    from fieldscope.eval.types import RunSummary


@seldom_collecting()
def rescore(run: Path, names: Sequence[str], fits: Path | None, reread: bool, out: Path) -> list[RunSummary]:
    """Rank a run again under strategies by name or file (none: its own), into `out/<strategy>/`.

    `fits` is a file of calibrations that replace the run's; with `reread` the answers in the response cache are read
    again. Raises `ConfigError` for a strategy that asks what the run did not.
    """
    from fieldscope.agent.resources import Resources
    from fieldscope.eval.runs.read import is_run, read_results
    from fieldscope.eval.runs.recording import recorded_lines
    from fieldscope.eval.runs.replay import make_recording
    from fieldscope.eval.runs.rescore import Rescorer, require_same_questions, require_same_scores

    if not is_run(run):
        raise ConfigError(
            f"{run} is not a run's folder; name the folder of one strategy in the output of `fieldscope eval`"
        )
    results = read_results(run)
    recording = make_recording(recorded_lines([run], None, {run: results}))
    (recorded,) = recording.runs
    strategies = chosen_strategies(recording, names, (), Settings())
    for strategy in strategies:
        require_same_questions(strategy, {prompt.name: prompt.fingerprint for prompt in recorded.strategy.prompts}, run)
        require_same_scores(strategy, recorded.strategy, run)
    flags = (FOREIGN,) if FOREIGN in recorded.flags else ()
    with ExitStack() as stack, keeping(f"finished queries are kept in {out}; rerun this command to continue"):
        responses = _responses(stack) if reread else None
        images, model = recording.benchmark.images, recording.lmm
        fitted = {strategy.name: _calibration(recording, strategy, fits) for strategy in strategies}
        rescorers = [
            Rescorer(s, results, Resources(images, model, calibration=fitted[s.name], flags=flags), responses)
            for s in strategies
        ]
        origin = {"strategy": recorded.strategy.fingerprint, "reread": reread}
        return asyncio.run(_evaluate(recording, rescorers, fitted, origin, out))


async def _evaluate(
    recording: Recording,
    rescorers: Sequence[Rescorer],
    fitted: Mapping[str, Calibration | None],
    origin: Mapping[str, Any],
    out: Path,
) -> list[RunSummary]:
    from fieldscope.eval.harness import evaluate
    from fieldscope.eval.runs.inputs import input_lines

    limit, done = recorded_limit(recording), []
    with run_progress() as progress:
        for rescorer in rescorers:
            strategy, fit = rescorer.strategy, fitted[rescorer.strategy.name]
            model = recording.lmm.identity(strategy.roles()) if recording.lmm else None
            done += await evaluate(
                recording.benchmark,
                [rescorer],
                out,
                provenance={"encoder": recording.encoder, "seed": 0, "rescored": origin},
                lmms={strategy.name: model},
                limit=limit,
                query_concurrency=1,
                calibrations={strategy.name: fingerprint(fit.model_dump(mode="json"))} if fit and fit.key else None,
                scorers={strategy.name: recording.scorer.fingerprint} if recording.scorer and strategy.score else None,
                progress=progress,
                inputs={strategy.name: input_lines(recording.benchmark, strategy, fit)},
                live=False,
            )
    return done


def _calibration(recording: Recording, strategy: Strategy, fits: Path | None) -> Calibration | None:
    """The calibration for a strategy: from the file if there is one, else the run's, else one fitted since."""
    from fieldscope.agent.calibration import calibration_key

    model = recording.lmm.identity(strategy.roles()) if recording.lmm else None
    scorer = recording.scorer.fingerprint if recording.scorer else None
    if fits is None:
        return recording.calibration_of(strategy, lambda: find_calibration(model, strategy, recording.encoder, scorer))
    if model is None or strategy.fusion.method != "posterior":
        return None
    key = calibration_key(model, strategy, recording.encoder, scorer)
    if fitting := next((fit for fit in load_calibrations(fits) if fit.fits(key)), None):
        return fitting
    raise ConfigError(
        f"{fits} has no calibration for the model, prompts and first stage of {strategy.name!r}; "
        "make one with `fieldscope calibrate`"
    )


def _responses(stack: ExitStack) -> Responses:
    """The response cache, open as long as `stack` is."""
    from fieldscope.agent.lmm.cached import require_unaltered
    from fieldscope.cache.sqlite import SqliteStore

    path = Settings().store_path
    if not path.exists():
        raise CacheError(f"there is no response cache at {path} to read answers from; leave --reread out")
    store = stack.enter_context(closing(SqliteStore(path)))

    def response(key: str) -> str | None:
        if (entry := store.get(key)) is None:
            return None
        require_unaltered(entry)
        return entry.response

    return response
