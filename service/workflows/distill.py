"""A retriever that learns from what the agent said: the rankings of runs, with P(match)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.feedback import keeping, progress
from fieldscope.service.workflows.train_retriever import open_learner

if TYPE_CHECKING:
    from fieldscope.retrieval.training.distilling import Judged
    from fieldscope.retrieval.training.trainer import Plan, Stage


def distill(
    run: Path, start: Path, out: Path, plan: Plan, validation: Path | None = None, replay: Path | None = None
) -> Iterator[Stage]:
    """Train the model in `start` on the rankings of a run, and write it below `out`; the start's figures on the
    validation queries below `validation`, then the stage. The training queries below `replay` are trained on, too.
    Raises `ConfigError` and `BenchmarkError`."""
    from fieldscope.eval.datasets.mbeir_training import load_mbeir_training, load_mbeir_validation
    from fieldscope.eval.runs.read import run_folders
    from fieldscope.retrieval.training.distilling import distil

    folders = run_folders([run])
    if len(folders) != 1:
        raise ConfigError(f"{run} holds {len(folders)} runs; name the folder of one")
    judged = read_judged(folders[0])
    held_out = load_mbeir_validation(validation, "validation") if validation is not None else None
    replayed = load_mbeir_training(replay, "replay") if replay is not None else None
    sets = [each for each in (judged.training, held_out, replayed) if each is not None]
    opened = partial(open_learner, sets=sets)
    with keeping(f"what was trained so far is kept in {out}; rerun this command to continue"):
        yield from distil(judged, opened, start, held_out, plan, out, progress, replayed)


def read_judged(folder: Path) -> Judged:
    """The queries of a run with P(match) of their candidates. A query with fewer than two of them is left out. Raises
    `ConfigError` where none is left: the run's strategy claims no P(match)."""
    from fieldscope.core.reading import file_bytes, load_json
    from fieldscope.eval.runs.inputs import read_inputs
    from fieldscope.eval.runs.read import COLLECTION, read_results
    from fieldscope.retrieval.encoder import query_text
    from fieldscope.retrieval.opening import reopen_collection
    from fieldscope.retrieval.training.distilling import Judged
    from fieldscope.retrieval.training.queries import TrainingQuery, TrainingSet

    results, queries, p_match = read_results(folder), [], {}
    for line in read_inputs(folder).queries:
        result = results.get(line.id)
        if line.query is None or result is None:
            continue
        said = {each.image_id: each.p_match for each in result.ranking if each.p_match is not None}
        if len(said) < 2:
            continue
        asked, instruction = line.query, line.query.instruction
        p_match[asked.id] = said
        queries.append(
            TrainingQuery(
                asked.id,
                "all",
                query_text(asked),
                asked.reference_image,
                asked.wanted or "image",
                (),
                (instruction,) if instruction else (),
            )
        )
    if not queries:
        raise ConfigError(
            f"{folder} has no query with P(match) of two images; give a run of a strategy that asks the LMM"
        )
    try:
        images = reopen_collection(load_json(file_bytes(folder / COLLECTION)))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / COLLECTION} can't be read; rerun the command that made the run") from error
    pool = tuple(dict.fromkeys(image for said in p_match.values() for image in said))
    return Judged(TrainingSet("judged", tuple(queries), pool, images), p_match)
