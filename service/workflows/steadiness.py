"""Whether a strategy ranks alike when it is asked again, and when a query is said in other words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.feedback import note
from fieldscope.service.wiring.prompts import prompts_for
from fieldscope.service.wiring.scorers import uses_scorer
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.evaluate import (
    Contest,
    EvaluationPlan,
    OpenEvaluation,
    load_strategies,
    open_evaluation,
    run_opened,
)
from fieldscope.service.workflows.wordings import reworded, wordings_of

if TYPE_CHECKING:
    from fieldscope.agent.types import RerankResult
    from fieldscope.eval.measures.steadiness import Repeated, Steadiness

YES = 0.5
"""A verdict is a yes from this probability on."""


@dataclass(frozen=True)
class SteadinessStudy:
    """What moves for one strategy on one benchmark. `texts` are the wordings of each query, as often as it was ranked;
    `rankings` and values are along them."""

    strategy: str
    benchmark: str
    split: str
    metric: str
    found: Steadiness
    texts: Mapping[str, Sequence[str]]
    repeated: Mapping[str, Repeated]

    @property
    def widest(self) -> list[str]:
        """The queries with a spread, the widest first."""
        spread = {name: max(own.values) - min(own.values) for name, own in self.repeated.items() if own.values}
        return sorted((name for name in spread if spread[name] > 0), key=lambda name: -spread[name])


def run_repeats(plan: EvaluationPlan, strategy_name: str, settings: Settings, draws: int) -> SteadinessStudy:
    """A strategy run so many times, each under a seed of its own, which belongs to the key of every call: no draw is
    answered from the cache of another one, and a draw that was interrupted continues with its own answers. The first
    draw is the ordinary run.

    Raises `ConfigError` for a strategy that asks nothing.
    """
    strategies = load_strategies((strategy_name,), prompts_for(settings))
    opened = open_evaluation(plan, [Contest(settings, strategies)])
    if not (strategies[0].prompts or uses_scorer(strategies[0])):
        raise ConfigError(f"strategy {strategy_name!r} asks no model, so every draw is the same; name one that asks")
    folders = []
    for seed in range(draws):
        own = replace(opened, plan=replace(opened.plan, seed=seed), out=opened.out / f"draw-{seed + 1}")
        (run,) = run_opened(own).runs
        folders.append(run.out)
    return study_of(opened, strategies[0].name, folders, same_questions=True)


def run_paraphrases(
    plan: EvaluationPlan, strategy_name: str, settings: Settings, number: int, file: Path | None
) -> SteadinessStudy:
    """A strategy on the queries as they are, and again in at most `number` other wordings of each: those in the file,
    or what `wordings_of` finds. The first stage reads the other wording, too, where its encoder is known.

    Raises `ConfigError` where no query has another wording.
    """
    opened = open_evaluation(plan, [Contest(settings, load_strategies((strategy_name,), prompts_for(settings)))])
    wordings = wordings_of(opened, settings, number, file)
    workload = opened.workload
    if workload.benchmark.candidate_sets is not None and workload.encoder is None and workload.prior_encoder is None:
        note("The first stage's scores stay those of the first wording; name its encoder with --encoder.")
    # The first wording goes the same way as the others, so that nothing but the words differs.
    texts = {query.id: query.text for query in opened.workload.benchmark.queries}
    every = {query_id: [texts[query_id], *others] for query_id, others in wordings.items()}
    folders = []
    for place in range(max(map(len, every.values()))):
        own = {query_id: said[place] for query_id, said in every.items() if place < len(said)}
        changed = replace(reworded(opened, settings, own), out=opened.out / f"wording-{place + 1}")
        (run,) = run_opened(changed).runs
        folders.append(run.out)
    return study_of(opened, run.strategy, folders, same_questions=False)


def study_of(
    opened: OpenEvaluation, strategy: str, folders: Sequence[Path], *, same_questions: bool
) -> SteadinessStudy:
    """What moves between the runs in these folders; a run may have only some of the queries. Verdicts are compared
    where the questions are the same."""
    from fieldscope.eval.measures.steadiness import Repeated, steadiness
    from fieldscope.eval.runs.read import read_metrics, read_results

    benchmark = opened.workload.benchmark
    metric = benchmark.reported.headline
    runs = [(read_results(folder), read_metrics(folder).per_query) for folder in folders]
    repeated, texts = {}, {}
    for query in benchmark.queries[: opened.plan.limit]:
        own = [(results[query.id], values.get(query.id, {})) for results, values in runs if query.id in results]
        found = [value for _, values in own if (value := values.get(metric)) is not None]
        texts[query.id] = [result.query_text for result, _ in own]
        repeated[query.id] = Repeated(
            rankings=[[ranked.image_id for ranked in result.ranking] for result, _ in own],
            values=found if len(found) == len(own) else (),
            yes=[_sides(result) for result, _ in own] if same_questions else (),
        )
    if not any(len(own.rankings) > 1 for own in repeated.values()):
        raise ConfigError("no query was ranked twice, so nothing can be compared; name more wordings or draws")
    return SteadinessStudy(strategy, benchmark.name, benchmark.split, metric, steadiness(repeated), texts, repeated)


def write_study(study: SteadinessStudy, name: str, out: Path) -> dict[str, Any]:
    """Write a study's data into `out`, as JSON and, with a row for each query and ranking, as CSV; the data are also
    returned."""
    from fieldscope.eval.measures.figure import write_data

    rows = [
        {
            "query_id": query_id,
            "number": number,
            "text": text,
            study.metric: own.values[number - 1] if own.values else None,
            "first_image": own.rankings[number - 1][0] if own.rankings[number - 1] else "",
        }
        for query_id, own in study.repeated.items()
        for number, text in enumerate(study.texts[query_id], start=1)
    ]
    data: dict[str, Any] = {
        "benchmark": study.benchmark,
        "split": study.split,
        "strategy": study.strategy,
        "metric": study.metric,
        **asdict(study.found),
        "per_query": {
            query_id: {
                "texts": list(study.texts[query_id]),
                "values": list(own.values),
                "rankings": [list(ranking) for ranking in own.rankings],
            }
            for query_id, own in study.repeated.items()
        },
    }
    write_data(out, name, data, rows)
    return data


def _sides(result: RerankResult) -> dict[tuple[str, str], bool]:
    """The side of each verdict that was answered: image and question, and whether it is a yes."""
    return {
        (verdict.image_id, verdict.predicate): verdict.p_yes >= YES
        for verdict in result.verdicts
        if verdict.p_yes is not None and verdict.look is None
    }
