"""The prompts of a run: their texts, examples of calls, and differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from mmap import ACCESS_READ, mmap
from typing import Any

from pydantic import BaseModel

from fieldscope.agent.schemas import AnswersAnswer, PredicatesAnswer, SynthesisAnswer
from fieldscope.agent.types import Asked, Comparison, Reason, RerankResult, Verdict
from fieldscope.core.errors import ConfigError
from fieldscope.prompts.prompt import Prompt
from fieldscope.service.viewer.addresses import INDEX, prompts_page, run_page
from fieldscope.service.viewer.page import Page
from fieldscope.service.viewer.runs.exchange import Exchange, UsedPrompt, exchanges, used_prompts
from fieldscope.service.viewer.runs.prompt_text import Piece, template_pieces
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.word_diff import Kind, word_diff

_QUERIES = 6  # that examples are taken from
_EXAMPLES = 4  # of each prompt
_SELDOM = {
    "synthesize.again": b'"stage":"refine"',
    "synthesize.caption": b'"stage":"caption"',
    "synthesize.turn": b'"turns":[',
    "verify.joint.prompt": b'"joint":true',
    "verify.reason.prompt": b'"reasoned":true',
    "verify.reason.whole": b'"reasoned":true',
    "inspect.ground.prompt": b'"stage":"ground"',
    "compare.prompt": b'"comparisons":[{',
    "compare.reference": b'"comparisons":[{',
    "explain.prompt": b'"reasons":[{',
}
"""For prompts that few queries use: what the line of such a query in `results.jsonl` contains."""

_IMAGES = (0, 4, 40)  # places in a ranking that examples are about
_LONGEST_DIFFERENCES = 200_000  # characters of all differences, so that a page stays small

_ANSWERS = {
    "yes_no": "yes or no, read from the log-probabilities of the answer's first token",
    "letter": "the letter of an image, read from the log-probabilities of the answer's first token",
    "synthesis": "JSON with a thought, three descriptions and instructions",
    "predicates": "JSON with questions and the answers that a match must give",
    "answers": "JSON with an answer to each question",
    "text": "text, as it is",
}
_SCHEMAS: dict[str, type[BaseModel]] = {
    "synthesis": SynthesisAnswer, "predicates": PredicatesAnswer, "answers": AnswersAnswer,
}  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A prompt as it was sent in a call of a query; `image_id` is set if the call was about a ranked image."""

    exchange: Exchange
    result: RerankResult
    image_id: str | None


@dataclass(frozen=True)
class Described:
    """A prompt with its text, if available. `places` are the strategy's settings that name it."""

    used: UsedPrompt
    places: tuple[str, ...]
    template: tuple[Piece, ...]
    answer: str
    schema: dict[str, Any] | None
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Difference:
    """Two prompts and the differences of their texts; `template` is None if they are too long to show."""

    a: Prompt
    b: Prompt
    system: list[tuple[Kind, str]]
    template: list[tuple[Kind, str]] | None


def page(run: Run) -> Page:
    """The page of a run's prompts."""
    used = used_prompts(run)
    places = dict(_places(run.strategy_in_full))
    examples = _examples(run, places) if any(each.prompt for each in used) else {}
    return Page(
        address=prompts_page(run.key),
        template="prompts.html",
        title="Prompts",
        crumbs=[("Runs", INDEX), (run.name, run_page(run.key))],
        styles=["call.css", "prompts.css"],
        scripts=["prompts.js"],
        context={
            "run": run,
            "strategy": run.strategy_in_full,
            "prompts": [_described(each, places, examples.get(each.name, ())) for each in used],
            "differences": _differences([each.prompt for each in used if each.prompt is not None]),
        },
    )


def _described(used: UsedPrompt, places: Mapping[str, str], examples: Sequence[Example]) -> Described:
    prompt = used.prompt
    schema = _SCHEMAS.get(prompt.answer) if prompt else None
    return Described(
        used=used,
        places=tuple(place for place, name in places.items() if name == used.name),
        template=template_pieces(prompt) if prompt else (),
        answer=_ANSWERS[prompt.answer] if prompt else "",
        schema=schema.model_json_schema() if schema else None,
        examples=tuple(examples),
    )


def _places(settings: BaseModel | None, above: str = "") -> Iterator[tuple[str, str]]:
    """The settings of a strategy that name a prompt: (dotted setting, prompt name)."""
    for name in type(settings).model_fields if settings is not None else ():
        value = getattr(settings, name)
        if isinstance(value, Prompt):
            yield above + name, value.name
        elif isinstance(value, BaseModel) and isinstance(settings, BaseModel):
            yield from _places(value, f"{above}{name}.")


def _examples(run: Run, places: Mapping[str, str]) -> dict[str, list[Example]]:
    """Prompt -> some of its calls with different texts, from queries spread over the run."""
    found: dict[str, list[Example]] = {}
    for query_id in _spread(list(run.digests), _QUERIES):
        _add_examples(run, query_id, found)
    seldom = [mark for place, mark in _SELDOM.items() if place in places and not found.get(places[place])]
    for query_id in dict.fromkeys(_queries_with(run, seldom)):
        _add_examples(run, query_id, found)
    return found


def _add_examples(run: Run, query_id: str, found: dict[str, list[Example]]) -> None:
    """Add one example of each prompt, or two if other queries gave some, so that not all are from one query."""
    try:
        result = run.result(query_id)
    except ConfigError:
        return
    told = {example.exchange.wording for examples in found.values() for example in examples}
    room = {name: min(len(examples) + 2, _EXAMPLES) for name, examples in found.items()}
    for exchange in exchanges(run, result, list(_telling(result))):
        if exchange.wording is None or exchange.wording in told:
            continue
        name = exchange.wording.prompt.name
        examples = found.setdefault(name, [])
        if len(examples) < room.get(name, 1):
            examples.append(Example(exchange, result, _about(exchange.asked)))
            told.add(exchange.wording)


def _queries_with(run: Run, marks: Iterable[bytes]) -> Iterator[str]:
    """For each mark, the first query whose line in `results.jsonl` contains it, if any."""
    path = run.folder / "results.jsonl"
    try:
        with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as lines:
            for mark in marks:
                at = lines.find(mark)
                yield from (q for q, digest in run.digests.items() if digest.start <= at < digest.start + digest.size)
    except (OSError, ValueError):
        return


def _telling(result: RerankResult) -> Iterator[Asked]:
    """Questions of every kind, with images near the top, further down, and far down."""
    images = {result.ranking[place].image_id for place in _IMAGES if place < len(result.ranking)}
    yield from (call for call in result.calls if call.request_key)
    verdicts = (verdict for verdict in result.verdicts if verdict.request_key and verdict.image_id in images)
    yield from (asked for verdict in verdicts for asked in verdict.draws or (verdict,))
    yield from [comparison for comparison in result.comparisons if comparison.request_key][:2]
    yield from [reason for reason in result.reasons if reason.request_key][:2]


def _about(asked: Asked) -> str | None:
    match asked:
        case Verdict() | Reason():
            return asked.image_id
        case Comparison():
            return asked.shown[0]
    return None


def _spread(items: Sequence[str], count: int) -> list[str]:
    """`count` of the items at even distances, including the first and the last."""
    if len(items) <= count:
        return list(items)
    return [items[round(place * (len(items) - 1) / (count - 1))] for place in range(count)]


def _differences(prompts: Sequence[Prompt]) -> list[Difference]:
    """The differences of every two prompts, until they are too long in total."""
    found, room = [], _LONGEST_DIFFERENCES
    for a, b in combinations(prompts, 2):
        room -= sum(len(text) for prompt in (a, b) for text in (prompt.system, prompt.template))
        fits = room >= 0
        system = word_diff(a.system, b.system) if fits else []
        found.append(Difference(a, b, system, word_diff(a.template, b.template) if fits else None))
    return found
