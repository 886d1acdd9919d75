"""A finished run repeated with its prompts in other words, over the queries, candidates and images of its folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.benchmarks import Workload
from fieldscope.service.wiring.bundled import require_known_words
from fieldscope.service.wiring.calibrations import find_calibration
from fieldscope.service.wiring.roles import probe_servers
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.dry_run import Outlook, Task, outlooks
from fieldscope.service.workflows.evaluate import (
    Contest,
    EvaluationPlan,
    OpenEvaluation,
    check_evaluation,
    run_opened_async,
)
from fieldscope.service.workflows.evaluation_checks import composed

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import Query
    from fieldscope.eval.runs.inputs import Inputs
    from fieldscope.eval.runs.read import RunSetup

_NAME = re.compile(r"[A-Za-z0-9][\w.+~=,-]{0,99}")


@dataclass(frozen=True)
class Wording:
    """What a prompt says in place of its own words: the system part, which may be empty, and the template."""

    system: str
    template: str


@dataclass(frozen=True)
class PromptEdit:
    """A run's `folder`, the `wordings` of prompts by their names, and how many of the run's queries are asked (None:
    all). `name` is that of the new run; by default the strategy's, with what tells the wordings apart."""

    folder: Path
    wordings: Mapping[str, Wording] = field(default_factory=dict)
    queries: int | None = None
    name: str | None = None


@dataclass(frozen=True)
class OpenEdit:
    """An edit that can be run: the recorded `inputs` and `setup` of its run, and its `strategy` in the new words."""

    edit: PromptEdit
    inputs: Inputs
    setup: RunSetup
    strategy: Strategy

    @property
    def asked(self) -> tuple[Query, ...]:
        """The queries that are asked."""
        queries = [line.query for line in self.inputs.queries if line.query is not None]
        return tuple(queries[: self.edit.queries])


def open_edit(edit: PromptEdit) -> OpenEdit:
    """Read the run and word its strategy. Opens no image and no model.

    Raises `ConfigError` for a run that does not say what it was made from, that searched for its own candidates, or
    that has no such prompt, for words that change nothing, and for a name that can't name a folder; `PromptError` for a
    template with other variables.
    """
    from fieldscope.eval.runs.inputs import read_inputs
    from fieldscope.eval.runs.read import read_manifest

    inputs, setup = read_inputs(edit.folder), read_manifest(edit.folder).setup
    if not inputs.benchmark.rerank:
        raise ConfigError(
            f"{edit.folder.name} searched for its own candidates; run `fieldscope eval` with --prompts FOLDER instead"
        )
    before = inputs.strategy.strategy()
    strategy = _worded(inputs.strategy.definition, before, edit.wordings)
    if strategy.fingerprint == before.fingerprint:
        raise ConfigError("no prompt was changed; change the words of one")
    name = edit.name or f"{before.name}-{strategy.fingerprint[:8]}"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:60]!r} can't name a run; use letters, digits and . _ - only")
    return OpenEdit(edit, inputs, setup, strategy.model_copy(update={"name": name}))


def price_edit(opened: OpenEdit, settings: Settings, prices: Path | None = None) -> Outlook:
    """What the edited strategy asks about the run's queries. Asks no model. Raises `ConfigError` for prices that can't
    be used."""
    lines = {line.id: line for line in opened.inputs.queries}
    candidates = tuple(len(lines[query.id].candidates or ()) for query in opened.asked)
    (outlook,) = outlooks(Task(opened.asked, candidates), [opened.strategy], settings, prices, probe=False)
    return outlook


def edit_caveat(opened: OpenEdit, settings: Settings) -> str | None:
    """A sentence where the run was calibrated and its edited wording is not, so that a difference has two causes."""
    from fieldscope.agent.roles import read_identity

    fitted = opened.inputs.strategy.calibration if opened.strategy.fusion.method == "posterior" else None
    model = read_identity(opened.setup.lmm)
    if fitted is None or find_calibration(model, opened.strategy, opened.setup.encoder, opened.setup.scorer):
        return None
    return (
        "the weights of this run were fitted to its own words, and the edited prompts use the usual weights; compare "
        "two edited runs, or a strategy without a calibration, such as yes-no"
    )


async def run_edit(opened: OpenEdit, out: Path, settings: Settings) -> Path:
    """Run the edited strategy into a folder below `out`, and return it; finished queries of an earlier attempt are
    kept. Raises what `fieldscope.service.workflows.evaluate.run_opened_async` raises, and `VocabularyError` for words
    that the bundled LMM does not know."""
    roles = opened.strategy.roles(composed(opened.asked))
    if settings.bundled(roles):
        texts = [f"{wording.system} {_own_words(wording.template)}" for wording in opened.edit.wordings.values()]
        require_known_words(texts, "lmm")
    evaluation = _evaluation(opened, out, settings, [await probe_servers(settings, roles)])
    await run_opened_async(evaluation)
    return evaluation.out / opened.strategy.name


def _evaluation(opened: OpenEdit, out: Path, settings: Settings, contexts: list[Any]) -> OpenEvaluation:
    from fieldscope.agent.budget import Budget
    from fieldscope.core.reading import load_json
    from fieldscope.eval.runs.inputs import make_benchmark
    from fieldscope.eval.runs.read import COLLECTION
    from fieldscope.retrieval.opening import reopen_collection

    setup, folder = opened.setup, opened.edit.folder
    try:
        images = reopen_collection(load_json((folder / COLLECTION).read_bytes()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder.name} does not say where its images are; make the run again") from error
    benchmark = make_benchmark(opened.inputs.benchmark, opened.inputs.queries, images, setup.prior or "")
    limits = {whose: setup.budget.get(whose) or {} for whose in ("query", "run")}
    budgets = {whose: Budget(limit.get("calls"), limit.get("tokens")) for whose, limit in limits.items()}
    plan = EvaluationPlan(
        benchmark=benchmark.name,
        split=benchmark.split,
        limit=len(opened.asked) or None,
        out=out / f"{benchmark.name}-{benchmark.split}",
        budget=budgets["query"],
        run_budget=budgets["run"],
        seed=setup.seed or 0,
    )
    contest = Contest(settings, [opened.strategy])
    return check_evaluation(plan, Workload(benchmark, encoder=setup.encoder), [contest], contexts)


def _worded(definition: Mapping[str, Any], before: Strategy, wordings: Mapping[str, Wording]) -> Strategy:
    """The strategy with these wordings in place of those of its prompts."""
    from fieldscope.core.validation import unknown_name
    from fieldscope.eval.runs.inputs import StrategyLine
    from fieldscope.prompts.prompt import check_template

    known = {prompt.name: prompt for prompt in before.prompts}
    for name, wording in wordings.items():
        if name not in known:
            raise ConfigError(unknown_name("prompt", name[:60], known))
        if not wording.template.strip():
            raise ConfigError(f"prompt {name!r} has no words; write some, or leave it as it is")
        words = {"system": wording.system.strip(), "template": wording.template.strip()}
        check_template(known[name].model_copy(update=words), name)

    def edited(value: Any) -> Any:
        if isinstance(value, list):
            return [edited(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "template" in value and (own := wordings.get(str(value.get("name")))):
            return {**value, "system": own.system.strip(), "template": own.template.strip()}
        return {key: edited(each) for key, each in value.items()}

    return StrategyLine(definition=edited(dict(definition))).strategy()


def _own_words(template: str) -> str:
    """A template without its variables."""
    from fieldscope.prompts.forms import PLACEHOLDER

    return PLACEHOLDER.sub(" ", template)
