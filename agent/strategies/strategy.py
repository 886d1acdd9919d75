"""A strategy: which stages run, and how their results become one score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from fieldscope.agent.roles import ROLES, Role
from fieldscope.agent.strategies.inspection import Inspect
from fieldscope.agent.strategies.ordering import Compare, Explain, Fusion
from fieldscope.agent.strategies.predicates import ByQuery
from fieldscope.agent.strategies.query_stages import Decompose, Refine, Retrieve, Synthesize
from fieldscope.agent.strategies.scoring import Score
from fieldscope.agent.strategies.stage import AskingStage, PromptSource, PromptUse, Settings, Stage
from fieldscope.agent.strategies.verification import Check, Verify
from fieldscope.core.errors import StrategyError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.validation import parse_yaml, read_document, unknown_name, validated
from fieldscope.prompts.prompt import Prompt
from fieldscope.prompts.prompt_set import INSTRUCT, PromptSet, list_sets, open_prompt_set, shipped_set

_SHIPPED = Path(__file__).parent
_OF_A_REFERENCE = {"caption", "check"}  # calls about a reference image
_DESCRIPTIVE = {"name", "description", "source", "prompt_set"}  # what decides no ranking
STAGES = ("synthesize", "score", "decompose", "check", "verify", "inspect", "refine", "compare", "explain")


class Strategy(Settings):
    """A named, declarative choice of stages, prompts, model settings and fusion. `source` is the paper it follows.
    `prompt_set` names the set that words its prompts; it is chosen where the strategy is loaded, not in its file.
    `predicates` are asked for queries, by their ids or texts, in place of those that the stage decompose derives."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~=,-]{0,159}$")
    description: str = ""
    source: str = ""
    prompt_set: str | None = None
    retrieve: Retrieve = Retrieve()
    synthesize: Synthesize | None = None
    score: Score | None = None
    decompose: Decompose | None = None
    check: Check | None = None
    verify: Verify | None = None
    inspect: Inspect | None = None
    refine: Refine | None = None
    compare: Compare | None = None
    explain: Explain | None = None
    predicates: ByQuery | None = None
    fusion: Fusion

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        asks = self.verify is not None or self.compare is not None
        if asks == (self.fusion.method in ("prior", "score")):
            raise ValueError(
                "fusion.method is 'prior' where there is no stage 'verify' or 'compare', and only there, or 'score' "
                "with a stage `score`; change the method"
            )
        self._scores_are_used()
        if self.fusion.method in ("p_yes", "log_odds") and (self.verify is None or self.verify.by_predicates):
            raise ValueError(
                f"fusion.method {self.fusion.method!r} needs one question about the whole query; "
                "give `verify` a prompt with the variable 'query'"
            )
        for name, stage in self.stages.items():
            if stage.needs is not None and stage.needs not in self.stages:
                raise ValueError(f"stage `{name}` needs stage `{stage.needs}`; add it to the strategy")
        if self.verify is not None and self.verify.by_predicates != (self.decompose is not None):
            raise ValueError(
                "a verify prompt takes 'question' where there is a stage 'decompose', else 'query'; "
                "change verify.prompt"
            )
        if self.inspect is not None and not self.inspect.always and self.fusion.method != "posterior":
            raise ValueError("`inspect` needs the fusion method 'posterior', or `always`; set fusion.method")
        if self.compare is not None and self.compare.mode == "walk" and self.fusion.method != "agreement":
            raise ValueError("compare.mode 'walk' needs the fusion method 'agreement'; set fusion.method")
        if self.compare is not None and self.compare.mode != "walk" and self.fusion.method != "posterior":
            raise ValueError("comparisons need the fusion method 'posterior'; set fusion.method")
        if self.predicates is not None and self.decompose is None:
            raise ValueError("`predicates` are asked in place of those of stage `decompose`; add it to the strategy")
        for use in self._prompt_uses():
            use.prompt.check_variables(use.variables, use.optional)
            if use.prompt.answer != use.answer:
                raise ValueError(
                    f"prompt {use.prompt.name!r} declares the answer {use.prompt.answer!r}, but {use.answer!r} is read "
                    "here; use another prompt"
                )
        return self

    def _scores_are_used(self) -> None:
        """Raise ValueError unless the stage `score` and whatever needs or uses it go together."""
        method, weight = self.fusion.method, self.fusion.scorer_weight
        as_prior = self.retrieve.prior == "scorer"
        if self.score is None:
            if as_prior or method == "score" or weight is not None:
                user = "retrieve.prior" if as_prior else "fusion"
                raise ValueError(f"`{user}` uses the scores of a stage `score`; add `score: {{}}` to the strategy")
            return
        if self.score.predicates and self.decompose is None:
            raise ValueError("score.predicates needs stage `decompose`; add it to the strategy")
        waves = self.verify is not None and self.verify.stop_below is not None
        if self.score.stop_below is not None and not (waves and method == "posterior" and not as_prior):
            raise ValueError(
                "score.stop_below needs `verify.stop_below`, and the fusion method 'posterior' with a scorer_weight; "
                "add them, or leave it out"
            )
        if as_prior and method == "score":
            raise ValueError("retrieve.prior is 'scorer' and so is the score; leave retrieve.prior out")
        if (weight is not None) != (method == "posterior" and not as_prior):
            raise ValueError(
                "fusion.scorer_weight goes with a stage `score` whose scores are not the prior, and with the method "
                "posterior; set or remove it"
            )
        if not (as_prior or method in ("score", "posterior") or self.score.predicates):
            raise ValueError(
                f"no stage uses the scores of stage `score` with the fusion method {method!r}; set retrieve.prior to "
                "'scorer', or remove the stage"
            )

    @property
    def weighs_scores(self) -> bool:
        """Whether the scores of the stage `score` are evidence of their own beside the prior."""
        return self.fusion.scorer_weight is not None

    def _prompt_uses(self) -> Iterator[PromptUse]:
        for stage in self.stages.values():
            yield from stage.prompt_uses()

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages that the strategy has, by name, in the order of the flow."""
        return {name: stage for name in STAGES if (stage := getattr(self, name)) is not None}

    @property
    def roles_by_call(self) -> dict[str, Role]:
        """The role that answers each kind of call, by the name under which the trace counts it."""
        asking = (stage for stage in self.stages.values() if isinstance(stage, AskingStage))
        return {call: role for stage in asking for call, role in stage.roles_by_call().items()}

    def roles(self, composed: bool = True) -> tuple[Role, ...]:
        """The roles that the strategy asks, in the order of `ROLES`: for a query with a reference image, where
        `composed`, else for any other."""
        asked = {role for call, role in self.roles_by_call.items() if composed or call not in _OF_A_REFERENCE}
        return tuple(role for role in ROLES if role in asked)

    @property
    def by_turns(self) -> bool:
        """Whether a dialogue is thought out turn by turn."""
        return self.synthesize is not None and self.synthesize.turn is not None

    @property
    def open_ended(self) -> bool:
        """Whether the number of calls depends on the answers, so that it can only be bounded."""
        return any(stage.open_ended for stage in self.stages.values())

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Every prompt that this strategy may use, each once."""
        return tuple({use.prompt.name: use.prompt for use in self._prompt_uses()}.values())

    def instructed(self, instruction: str | None) -> Self:
        """The strategy with this instruction for the first stage; None leaves its own. Raises `StrategyError` for one
        without words."""
        if instruction is None:
            return self
        if not instruction.strip():
            raise StrategyError("the instruction is empty; write what a match is, or leave it out")
        return self.model_copy(update={"retrieve": self.retrieve.model_copy(update={"instruction": instruction})})

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides the rankings: settings and prompts, but not names and descriptions."""
        return fingerprint(
            {
                "settings": self.model_dump(mode="json", exclude_none=True, exclude=_DESCRIPTIVE),
                "prompts": [use.prompt.fingerprint for use in self._prompt_uses()],
            }
        )


def load_strategy(
    name_or_path: str | Path, settings: Mapping[str, Any] | None = None, *, prompts: PromptSet | str = INSTRUCT
) -> Strategy:
    """A shipped strategy by its name, or a user's own by the path of its file, which ends in `.yaml` or `.yml`.

    `settings` replace the file's, by dotted keys such as `verify.top_k`; the paths of prompts count from
    the file's folder there, too. `prompts` is the set that words the prompts, or what names one for
    `fieldscope.prompts.prompt_set.open_prompt_set`; the bundled LMM reads `fieldnotes` and no other. Raises
    `StrategyError` for an unknown name or an invalid file, `PromptError` where its prompt can't be used.
    """
    path, chosen = Path(name_or_path), prompts if isinstance(prompts, PromptSet) else open_prompt_set(prompts)
    if path.suffix in {".yaml", ".yml"}:
        return _parse(path, str(path), settings or {}, chosen)
    name = str(name_or_path)
    if name not in list_strategies():
        raise StrategyError(f"{unknown_name('strategy', name, list_strategies())}; or give a file that ends in .yaml")
    if not settings and chosen.name in list_sets() and chosen == shipped_set(chosen.name):
        return _shipped(name, chosen.name)
    return _parse(_SHIPPED / f"{name}.yaml", f"{name}.yaml", settings or {}, chosen)


@cache
def _shipped(name: str, prompts: str) -> Strategy:
    """A shipped strategy in the words of a shipped set; neither changes while a program runs."""
    return _parse(_SHIPPED / f"{name}.yaml", f"{name}.yaml", {}, shipped_set(prompts))


def list_strategies() -> tuple[str, ...]:
    """The names of the shipped strategies, sorted."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.yaml")))


def _parse(path: Path, where: str, settings: Mapping[str, Any], prompts: PromptSet) -> Strategy:
    data = parse_yaml(read_document(path, StrategyError), where, StrategyError)
    if "prompt_set" in data:
        raise StrategyError(f"{where}: a strategy does not choose its prompt set; remove prompt_set and use --prompts")
    for key, value in settings.items():
        data = _with(data, key.split("."), value, f"{where}: {key}")
    strategy = validated(Strategy, data, where, StrategyError, context=PromptSource(path.parent, prompts))
    return strategy.model_copy(update={"prompt_set": prompts.name}) if strategy.prompts else strategy


def _with(data: dict[str, Any], path: list[str], value: Any, where: str) -> dict[str, Any]:
    """A copy of `data` with `value` at `path`. Nothing is changed in place: YAML's anchors share parts of a file."""
    key, *rest = path
    if not rest:
        return {**data, key: value}
    inner = data.get(key) or {}
    if not isinstance(inner, dict):
        raise StrategyError(f"{where}: {key!r} is a single value and has no settings below it; check the key")
    return {**data, key: _with(inner, rest, value, where)}
