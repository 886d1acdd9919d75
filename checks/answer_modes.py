"""How well images are ranked without log-probabilities: by the share of plain answers, and by stated probabilities.

python -m checks.answer_modes --queries 20 --samples 8 --cache-file /tmp/answers.sqlite

The LMM here gives words and no log-probabilities. What it says is drawn from the bundled LMM's P(yes), so that all
modes rest on the same model, and differ in how they read it. Each mode ranks FieldNotes-Rerank's validation queries by
the strategy's defaults; then it is fitted on the first half of them, as `fieldscope calibrate` does it, and ranks the
second half again. Printed are mAP@50 in percent, and how far each mode is from log-probabilities.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from fieldscope.agent.calibration import Calibration, calibration_key
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse, Message, TextPart
from fieldscope.agent.lmm.choice import LETTERS, choose
from fieldscope.agent.lmm.yes_no import p_yes
from fieldscope.agent.resources import Resources
from fieldscope.agent.schemas import StatedAnswer
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import RerankResult
from fieldscope.core.types import Query
from fieldscope.eval.measures.scoring import score
from fieldscope.eval.tuning.calibrate import calibrate, verification
from fieldscope.eval.types import Benchmark
from fieldscope.service.wiring.benchmarks import open_workload
from fieldscope.service.wiring.models import open_lmm
from fieldscope.service.wiring.settings import Settings

METRIC = "mAP@50"
_STATED, _YES_NO = "answer as json.", "answer yes or no."


class WordsOnly:
    """An LMM that gives no log-probabilities. Its words follow those of another one, at temperature 1 as they are
    probable; the same request with the same sample number always gets the same ones."""

    def __init__(self, lmm: LMM) -> None:
        self._lmm = lmm

    @property
    def identity(self) -> str:
        return f"{self._lmm.identity} in words"

    async def generate(self, request: LMMRequest) -> LMMResponse:
        stated = request.json_schema == StatedAnswer.model_json_schema()
        if request.top_logprobs or (request.json_schema is not None and not stated) or request.max_tokens > 64:
            said = await self._lmm.generate(request)
            return said.model_copy(update={"answer_logprobs": ()})
        asked = plain_question(request)
        said = await self._lmm.generate(asked)
        if len(request.images) > 1:
            return said.model_copy(update={"text": self._letter(request, said), "answer_logprobs": ()})
        p = p_yes(said.answer_logprobs).p_yes or 0.5
        text = f'{{"probability": {p:.2f}}}' if stated else "Yes." if chance(request, self.identity) < p else "No."
        return said.model_copy(update={"text": text, "answer_logprobs": ()})

    async def aclose(self) -> None:
        """The other one is closed by the code that opened it."""

    def _letter(self, request: LMMRequest, said: LMMResponse) -> str:
        shown = sum(f"{letter}:" in request.text.split() for letter in LETTERS)
        left = chance(request, self.identity)
        for letter, p in zip(LETTERS, choose(said.answer_logprobs, shown).probabilities, strict=False):
            left -= p
            if left < 0:
                return letter.upper()
        return LETTERS[shown - 1].upper()


def plain_question(request: LMMRequest) -> LMMRequest:
    """The question with log-probabilities, as the bundled LMM knows it: without the system message and the words that
    ask for JSON."""
    messages = tuple(
        Message(
            role=message.role,
            content=tuple(
                TextPart(text=part.text.replace(_STATED, _YES_NO)) if isinstance(part, TextPart) else part
                for part in message.content
            ),
        )
        for message in request.messages
        if message.role == "user"
    )
    return LMMRequest(messages=messages, top_logprobs=20)


def chance(request: LMMRequest, identity: str) -> float:
    """A number in [0, 1) that the request and its sample number decide."""
    return int.from_bytes(sha256(request.key(identity).encode()).digest()[:7]) / (1 << 56)


def modes(name: str, samples: int) -> dict[str, Strategy]:
    """The strategy with each way to read P(yes)."""
    plain = load_strategy(name, prompts="fieldnotes")
    verify = plain.verify
    if verify is None:
        raise SystemExit(f"strategy {name!r} asks nothing about single images; name one that does")
    by_predicates = verify.by_predicates
    stated = {"verify.prompt": "state_predicate" if by_predicates else "state_yes_no"}
    if verify.whole is not None:
        stated["verify.whole"] = "state_yes_no"
    changes: dict[str, Mapping[str, object]] = {
        "logprobs": {},
        f"samples: {samples}": {"verify.samples": samples},
        "stated": stated,
    }
    return {mode: load_strategy(name, change, prompts="fieldnotes") for mode, change in changes.items()}


async def rerank(benchmark: Benchmark, strategy: Strategy, resources: Resources) -> dict[str, RerankResult]:
    """The result of every query."""
    agent = Agent(resources, strategy)
    return {query.id: await agent.rerank(query, benchmark.candidates(query.id)) for query in benchmark.queries}


def part(benchmark: Benchmark, queries: Sequence[Query]) -> Benchmark:
    """The benchmark with these queries only."""
    return replace(benchmark, queries=tuple(queries))


def value(benchmark: Benchmark, results: Mapping[str, RerankResult]) -> float:
    """The metric, in percent."""
    return 100.0 * (score(benchmark, results).means().get(METRIC) or math.nan)


async def measure(name: str, queries: int, samples: int, settings: Settings) -> list[str]:
    """A line for each mode."""
    workload = open_workload("fieldnotes-rerank", "validation", settings)
    benchmark = part(workload.benchmark, workload.benchmark.queries[:queries])
    half = len(benchmark.queries) // 2
    fitting, rest = part(benchmark, benchmark.queries[:half]), part(benchmark, benchmark.queries[half:])
    lines, reference = [], (0.0, 0.0)
    async with open_lmm(settings, benchmark.images) as bundled:
        for mode, strategy in modes(name, samples).items():
            lmm = bundled if mode == "logprobs" else WordsOnly(bundled)
            resources = Resources(benchmark.images, lmm)
            before = value(benchmark, await rerank(benchmark, strategy, resources))
            fitted: Calibration | None = None
            if strategy.fusion.method == "posterior":
                answers = await rerank(fitting, verification(strategy), resources)
                fitted = calibrate(fitting, answers, calibration_key(lmm.identity, strategy, workload.encoder))
            after = value(rest, await rerank(rest, strategy, replace(resources, calibration=fitted)))
            reference = (before, after) if mode == "logprobs" else reference
            fit = "not fitted"
            if fitted is not None:
                fit = f"temperature {fitted.temperature:.2f}, prior weight {fitted.prior_weight:.2f}"
            lines.append(
                f"{name:>14}  {mode:<12} {METRIC} {before:6.2f} ({before - reference[0]:+.2f})   fitted, second half "
                f"{after:6.2f} ({after - reference[1]:+.2f})   {fit}"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Rank FieldNotes without log-probabilities, and with them.")
    parser.add_argument("--strategy", nargs="+", default=["yes-no-fused", "predicates"])
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--cache-file", type=Path, help="where the bundled LMM's answers are kept")
    options = parser.parse_args()
    settings = Settings(cache_file=options.cache_file)
    for name in options.strategy:
        for line in asyncio.run(measure(name, options.queries, options.samples, settings)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
