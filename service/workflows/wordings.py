"""Other wordings of a benchmark's queries: from a file, from FieldNotes' grammar, or the LMM's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.feedback import note
from fieldscope.service.wiring.prompts import prompts_for
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.answer_key import scenes_of
from fieldscope.service.workflows.evaluate import Contest, OpenEvaluation, check_evaluation, load_strategies, run_opened

if TYPE_CHECKING:
    from fieldscope.core.types import Query

Wordings = Mapping[str, Sequence[str]]
"""Query id -> other texts with the same meaning."""

REWORDING = "agent"
"""The strategy whose stage `synthesize` writes the LMM's own wordings."""


def wordings_of(opened: OpenEvaluation, settings: Settings, number: int, file: Path | None) -> Wordings:
    """At most `number` other wordings of each query: those in the file; without one FieldNotes' own, which are checked
    against its scene graphs, and for other benchmarks what the LMM writes, which nothing checks.

    Raises `ConfigError` where no query has another wording.
    """
    benchmark = opened.workload.benchmark
    queries = benchmark.queries[: opened.plan.limit]
    found: Wordings
    if file is not None:
        found = read_wordings(file, queries)
    elif (scenes := scenes_of(benchmark.name, benchmark.split)) is not None:
        from fieldscope.fieldnotes.paraphrases import paraphrases

        found = {query.id: paraphrases(query.text, scenes, number) for query in queries}
    else:
        found = _own(opened, settings, queries)
        note("The wordings are the model's own descriptions of the queries; nothing checks that they mean the same.")
    wordings = {query_id: tuple(texts)[:number] for query_id, texts in found.items() if texts}
    if not wordings:
        raise ConfigError(f"no query of {benchmark.name} has another wording; give some with --wordings FILE")
    if missing := len(queries) - len(wordings):
        note(f"{missing} of {len(queries)} queries have no other wording and are left out.")
    return wordings


def read_wordings(file: Path, queries: Sequence[Query]) -> dict[str, list[str]]:
    """YAML or JSON: a query's id or text, with a list of other texts. Raises `ConfigError` for anything else."""
    from fieldscope.core.validation import parse_yaml, read_document

    ids = {query.id: query for query in queries} | {query.text: query for query in queries}
    found: dict[str, list[str]] = {}
    for name, texts in parse_yaml(read_document(file, ConfigError), str(file), ConfigError).items():
        if not (isinstance(texts, list) and texts and all(isinstance(text, str) and text.strip() for text in texts)):
            raise ConfigError(f"{file}: {name!r} has no list of texts; write `{name}: [another wording, ...]`")
        if str(name) in ids:
            query = ids[str(name)]
            found[query.id] = [text for text in dict.fromkeys(texts) if text != query.text]
    if not found:
        raise ConfigError(f"{file} names none of the queries; name them by id or text")
    return found


def reworded(opened: OpenEvaluation, settings: Settings, wordings: Mapping[str, str]) -> OpenEvaluation:
    """The evaluation of these queries alone, in these words. Where the first stage's encoder is known, it scores the
    given candidates anew; else their scores stay those of the first wording."""
    from fieldscope.service.wiring.priors import load_image_encoder, with_priors
    from fieldscope.service.workflows.evaluation_checks import one_instruction

    workload = opened.workload
    queries = tuple(
        query.model_copy(update={"text": wordings[query.id]})
        for query in workload.benchmark.queries
        if query.id in wordings
    )
    benchmark = replace(workload.benchmark, queries=queries)
    encoder = workload.prior_encoder
    if encoder is None and benchmark.candidate_sets is not None and workload.encoder is not None:
        encoder = load_image_encoder(settings)
    workload = replace(workload, benchmark=benchmark, prior_encoder=encoder)
    plan = replace(opened.plan, limit=None, selection=None, out=opened.out)
    contexts = [contest.contexts for contest in opened.contests]
    checked = check_evaluation(plan, workload, opened.contests, contexts)
    strategies = [strategy for contest in opened.contests for strategy in contest.strategies]
    instruction = one_instruction(workload, strategies) if encoder is not None else None
    return replace(checked, workload=with_priors(checked.workload, settings.encoder, None, instruction))


def _own(opened: OpenEvaluation, settings: Settings, queries: Sequence[Query]) -> dict[str, list[str]]:
    """What the LMM describes each query as, all details included."""
    from fieldscope.agent.strategies.ordering import Fusion
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.eval.runs.read import read_results

    (asking,) = load_strategies((REWORDING,), prompts_for(settings))
    writing = Strategy(name="wordings", synthesize=asking.synthesize, fusion=Fusion(method="prior"))
    (run,) = run_opened(replace(opened, contests=(Contest(settings, [writing]),))).runs
    results, texts = read_results(run.out), {query.id: query.text for query in queries}
    return {
        query_id: [synthesis.comprehensive]
        for query_id, text in texts.items()
        if (synthesis := results[query_id].synthesis) is not None
        and synthesis.fallback is None
        and synthesis.comprehensive.strip() not in ("", text)
    }
