"""A strategy: which stages run, with which prompts and model settings, and how their results become one score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from fieldscope.core.errors import StrategyError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.types import Prior
from fieldscope.core.validation import parse_yaml, read_document, unknown_name, validated
from fieldscope.prompts.prompt import Prompt, load_prompt

_SHIPPED = Path(__file__).parent
_KEYS = frozenset(
    {"api_key", "apikey", "authorization", "x_api_key", "bearer", "token", "access_token", "auth_token", "api_token",
     "password", "secret"}
)  # fmt: skip


def _load(prompt: Any, info: ValidationInfo) -> Any:
    """A prompt's name or path, as a strategy file gives it; a path counts from the folder of that file."""
    if not isinstance(prompt, str):
        return prompt
    return load_prompt(Path(info.context or ".") / prompt if prompt.endswith(".md") else prompt)


def _without_keys(extra: dict[str, Any]) -> dict[str, Any]:
    """Whatever a strategy holds is written to every run and to the response cache."""
    for name, value in extra.items():
        if name.lower().replace("-", "_") in _KEYS:
            raise ValueError(f"{name!r} would be written to every run; give the server's key as FIELDSCOPE_API_KEY")
        if isinstance(value, dict):
            _without_keys(value)
    return extra


PromptRef = Annotated[Prompt, BeforeValidator(_load)]
ExtraBody = Annotated[dict[str, Any], AfterValidator(_without_keys)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Retrieve(_Settings):
    """First stage, where no candidates are given: how many images to take, how much of a similarity is that to the
    image's caption, where the collection has captions, and what the prior is: the similarity to query and descriptions
    by which an image was found (`fused`), or that to the `query` alone, which is a witness of its own: it does not
    share what the descriptions are wrong about with the predicates."""

    top_k: int = Field(default=100, ge=1)
    caption_weight: float = Field(default=0.0, ge=0.0, le=1.0)
    prior: Prior = "fused"


class _Structured(_Settings):
    """A question with a structured answer; where it can't be read, `repairs` more attempts that show the error."""

    prompt: PromptRef
    max_tokens: int = Field(default=512, ge=1)
    repairs: int = Field(default=1, ge=0, le=3)
    extra_body: ExtraBody = Field(default_factory=dict)


class Synthesize(_Structured):
    """Think out what a match must show. `again` is asked where an answer was found wanting, `caption` for the reference
    image of a composed request."""

    again: PromptRef
    caption: PromptRef


class Decompose(_Structured):
    """Turn the instructions into predicates, at most `max_predicates`."""

    max_predicates: int = Field(default=12, ge=1)


class Check(_Settings):
    """Ask the predicates of a composed request about its reference image first: leave out what is untrue of it, and
    think again, within the rounds of `refine`, where it shows everything already. It is asked as `verify` asks."""


class Joint(_Structured):
    """All predicates of an image in one structured answer.

    On a share `sample` of the images the predicates are asked one by one too; where the two agree on less than
    `agreement` of the verdicts, all others are asked one by one as well.
    """

    sample: float = Field(default=0.1, ge=0.0, le=1.0)
    agreement: float = Field(default=0.9, ge=0.0, le=1.0)


class Verify(_Settings):
    """Ask yes/no questions about each image: the whole query where the prompt takes a `query`, every predicate where it
    takes a `question`. With `whole`, a prompt that takes a `query`, the whole query is asked beside the predicates: a
    second opinion on the same thing, which errs on other images than they do.

    `top_k` is the window: only that many, best prior first, are asked about (None: all). With `stop_below` questions
    are asked in waves of `wave`, those first that are expected to change an image's P(match) most, until no question
    is expected to change it by that much; without, all are asked. `max_tokens`, `top_logprobs`, `answer_after` and
    `extra_body` go into the request; see `LMMRequest`.
    """

    prompt: PromptRef
    whole: PromptRef | None = None
    top_k: int | None = Field(default=None, ge=1)
    stop_below: float | None = Field(default=None, gt=0.0, lt=1.0)
    wave: int = Field(default=64, ge=1)
    joint: Joint | None = None
    max_tokens: int = Field(default=1, ge=1)
    top_logprobs: int = Field(default=20, ge=1, le=20)
    answer_after: str | None = None
    extra_body: ExtraBody = Field(default_factory=dict)

    @property
    def by_predicates(self) -> bool:
        """Whether every predicate is a question of its own."""
        return "question" in self.prompt.variables

    @property
    def whole_query(self) -> Prompt | None:
        """The prompt that asks about the whole query at once, where one does."""
        return self.whole if self.by_predicates else self.prompt

    @model_validator(mode="after")
    def _stages_of_it_fit(self) -> Self:
        if self.whole is not None and not self.by_predicates:
            raise ValueError("whole goes beside predicates; the prompt takes the 'query' already")
        if self.joint is not None and (self.stop_below is not None or not self.by_predicates):
            raise ValueError("joint asks every predicate of an image at once; it goes without stop_below and 'query'")
        return self


class Refine(_Settings):
    """Look at what was found and, in at most `rounds` rounds, think again: where fewer than `fewest` candidates are
    confirmed, where verdicts contradict each other, or where a predicate separates nothing. Each round widens the
    window, or the search, by the factor `widen`."""

    rounds: int = Field(default=1, ge=1, le=5)
    fewest: int = Field(default=1, ge=1)
    widen: float = Field(default=1.5, ge=1.0)


class Compare(_Settings):
    """Candidate against candidate, among the best `top_k`.

    - `pair`: two at a time, in both orders, where the order is most uncertain and matters most;
    - `set`: the best of `set_size`, shown forwards and backwards;
    - `walk`: ImageScope's final evaluation: down the ranking, the whole query about one image at a time with the
      reference image beside it, until the first yes, which goes to the top.

    `reference` is the prompt where the query has a reference image, which is shown first. At most `max_calls` calls;
    pairs whose exchange is expected to change nDCG by less than `stop_below` are left alone.
    """

    mode: Literal["pair", "set", "walk"]
    prompt: PromptRef
    reference: PromptRef
    top_k: int = Field(default=20, ge=2)
    set_size: int = Field(default=4, ge=3, le=4)
    max_calls: int = Field(default=40, ge=1)
    stop_below: float = Field(default=0.0, ge=0.0)
    top_logprobs: int = Field(default=20, ge=1, le=20)
    extra_body: ExtraBody = Field(default_factory=dict)


class Explain(_Settings):
    """Ask for the reason, after the verdict, about the best `top_k`."""

    prompt: PromptRef
    top_k: int = Field(default=3, ge=1)
    max_tokens: int = Field(default=64, ge=1)
    extra_body: ExtraBody = Field(default_factory=dict)


class Fusion(_Settings):
    """How a score is made.

    - `prior`: the prior, as it is.
    - `p_yes`: P(yes).
    - `log_odds`: log-odds of P(yes), plus `prior_weight` times the prior, standardised over the query's candidates.
    - `agreement`: how many predicates have the expected answer (ImageScope); the prior breaks ties.
    - `posterior`: the log-odds that every predicate holds, plus the weighted prior, plus comparisons; weights and
      temperatures are the calibration's, `prior_weight` stands in where there is none.
    """

    method: Literal["prior", "p_yes", "log_odds", "agreement", "posterior"]
    prior_weight: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _weight_belongs_to_odds(self) -> Self:
        if (self.prior_weight is not None) != (self.method in ("log_odds", "posterior")):
            raise ValueError("prior_weight goes with the methods log_odds and posterior, and with no other")
        return self


STAGES = ("synthesize", "decompose", "check", "verify", "refine", "compare", "explain")


class Strategy(_Settings):
    """A named, declarative choice of stages, prompts, model settings and fusion. `source` is the paper it follows."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~=,-]{0,159}$")
    description: str = ""
    source: str = ""
    retrieve: Retrieve = Retrieve()
    synthesize: Synthesize | None = None
    decompose: Decompose | None = None
    check: Check | None = None
    verify: Verify | None = None
    refine: Refine | None = None
    compare: Compare | None = None
    explain: Explain | None = None
    fusion: Fusion

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        asks = self.verify is not None or self.compare is not None
        if asks == (self.fusion.method == "prior"):
            raise ValueError("fusion.method is 'prior' where there is no stage 'verify' or 'compare', and only there")
        if self.fusion.method in ("p_yes", "log_odds") and (self.verify is None or self.verify.by_predicates):
            raise ValueError(f"fusion.method {self.fusion.method!r} wants one question about the whole query")
        if self.decompose is not None and self.synthesize is None:
            raise ValueError("decompose turns instructions into predicates; it wants the stage 'synthesize' before it")
        if self.verify is not None and self.verify.by_predicates != (self.decompose is not None):
            raise ValueError("a verify prompt takes 'question' where there is a stage 'decompose', else 'query'")
        if self.check is not None and self.decompose is None:
            raise ValueError("check asks predicates about the reference image; it wants the stage 'decompose'")
        if self.refine is not None and self.decompose is None:
            raise ValueError("refine rewrites predicates; it wants the stage 'decompose'")
        if self.compare is not None and self.compare.mode == "walk" and self.fusion.method != "agreement":
            raise ValueError("compare.mode 'walk' goes with the fusion method 'agreement'")
        if self.compare is not None and self.compare.mode != "walk" and self.fusion.method != "posterior":
            raise ValueError("comparisons are merged by the fusion method 'posterior'")
        for prompt, wanted, answer in self._used():
            prompt.check_variables(wanted)
            if prompt.answer != answer:
                raise ValueError(f"prompt {prompt.name!r} is answered by {prompt.answer!r} where {answer!r} is read")
        return self

    def _used(self) -> Iterator[tuple[Prompt, set[str], str]]:
        """Every prompt with the variables it gets and the kind of answer that is read."""
        if self.synthesize is not None:
            yield self.synthesize.prompt, {"request"}, "synthesis"
            yield self.synthesize.again, {"request", "earlier", "wanting"}, "synthesis"
            yield self.synthesize.caption, set(), "text"
        if self.decompose is not None:
            yield self.decompose.prompt, {"instructions"}, "predicates"
        if self.verify is not None:
            yield self.verify.prompt, {"question" if self.verify.by_predicates else "query"}, "yes_no"
            if self.verify.whole is not None:
                yield self.verify.whole, {"query"}, "yes_no"
            if self.verify.joint is not None:
                yield self.verify.joint.prompt, {"questions"}, "answers"
        if self.compare is not None:
            answer = "yes_no" if self.compare.mode == "walk" else "letter"
            yield self.compare.prompt, {"query"}, answer
            yield self.compare.reference, {"query"}, answer
        if self.explain is not None:
            yield self.explain.prompt, {"query"}, "text"

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Every prompt that this strategy may use, each once."""
        return tuple({prompt.name: prompt for prompt, _, _ in self._used()}.values())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides the rankings: settings and prompts, but not names and descriptions."""
        return fingerprint(
            {
                "settings": self.model_dump(mode="json", exclude_none=True, exclude={"name", "description", "source"}),
                "prompts": [prompt.fingerprint for prompt, _, _ in self._used()],
            }
        )


def load_strategy(name_or_path: str | Path, settings: Mapping[str, Any] | None = None) -> Strategy:
    """A shipped strategy by its name, or a user's own by the path of its file, which ends in `.yaml` or `.yml`.

    `settings` stand in the place of the file's, by dotted keys such as `verify.top_k`; the paths of prompts count from
    the file's folder there, too. Raises `StrategyError` for an unknown name or an invalid file, `PromptError` where its
    prompt can't be used.
    """
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return _parse(path, str(path), settings or {})
    name = str(name_or_path)
    if name not in list_strategies():
        raise StrategyError(f"{unknown_name('strategy', name, list_strategies())}; or give a file that ends in .yaml")
    return _parse(_SHIPPED / f"{name}.yaml", f"{name}.yaml", settings or {})


def list_strategies() -> tuple[str, ...]:
    """The names of the shipped strategies, sorted."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.yaml")))


def _parse(path: Path, where: str, settings: Mapping[str, Any]) -> Strategy:
    data = parse_yaml(read_document(path, StrategyError), where, StrategyError)
    for key, value in settings.items():
        data = _with(data, key.split("."), value, f"{where}: {key}")
    return validated(Strategy, data, where, StrategyError, context=path.parent)


def _with(data: dict[str, Any], path: list[str], value: Any, where: str) -> dict[str, Any]:
    """A copy of `data` with `value` at `path`. Nothing is changed in place: YAML's anchors share parts of a file."""
    key, *rest = path
    if not rest:
        return {**data, key: value}
    inner = data.get(key) or {}
    if not isinstance(inner, dict):
        raise StrategyError(f"{where}: {key!r} is a value, and has no settings below it")
    return {**data, key: _with(inner, rest, value, where)}
