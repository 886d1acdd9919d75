"""Run folders to look at: made by the agent and the harness themselves, and then damaged where a test wants it.

- `small`: three strategies over four queries, by a model that tells the truth, with a response cache;
- `hostile`: a run whose every text has HTML, scripts, right-to-left marks and 10,000 characters;
- `big`: 160 queries x 100 images x 6 predicates;
- `newer`, `half_written`, `damaged`, `bare`: what becomes of a run of `small`.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as PILImage

from fieldscope.agent.budget import Account, Budget
from fieldscope.agent.calibration import Calibration
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, LMMResponse, Message, TextPart
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import (
    Call,
    Comparison,
    Instruction,
    NothingMatches,
    Predicate,
    RankedCandidate,
    Reason,
    RerankResult,
    Synthesis,
    TraceEvent,
    Verdict,
)
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.cache.store import Entry
from fieldscope.core.types import Candidate, Query, Turn
from fieldscope.eval.harness import Reranker, evaluate
from fieldscope.eval.runs.inputs import input_lines
from fieldscope.eval.runs.ledger import Ledger
from fieldscope.eval.types import Benchmark, QueryMeta
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.service.viewer.runs.run_list import RunList
from tests.agent.oracle import draw_cases, oracle_of, paint

STRATEGIES = ("clip", "predicates", "agent")
SCRIPT = "<script>alert('owned')</script>"
MARKUP = f"\"><img src=x onerror=alert(1)>{SCRIPT}<b>bold</b> & 'quoted' {{{{ 7 * 7 }}}}"
RIGHT_TO_LEFT = "\u202egnp.exe\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627"
LONG = "abcdefghij" * 1000


@dataclass(frozen=True)
class Made:
    """Runs below `root`, the pictures they were made over, and the response cache (which need not be there)."""

    root: Path
    images: Path
    store: Path

    def shelf(self) -> RunList:
        return RunList(self.root, store=self.store)

    def run(self, name: str) -> Path:
        return self.root / name


def small(folder: Path, queries: int = 4, strategies: Sequence[str] = STRATEGIES) -> Made:
    """Text queries over painted pictures, 16 candidates each. The model is wrong about every image that shows a net."""
    made = _places(folder)
    images = paint(made.images)
    cases = draw_cases(3 * queries)[::3]
    benchmark = Benchmark(
        name="facts",
        split="test",
        queries=tuple(case.query for case in cases),
        qrels={
            case.query.id: {c.image_id: int(c.image_id in case.relevant) for c in case.candidates} for case in cases
        },
        images=images,
        candidate_sets={case.query.id: case.candidates for case in cases},
        meta={case.query.id: QueryMeta(supercategory=("Weather", "Animals")[n % 2]) for n, case in enumerate(cases)},
    )
    unsure = Calibration(spread=5.0)  # so that there is something to compare
    with closing(SqliteStore(made.store)) as store:
        lmm = CachedLMM(oracle_of(images), store)
        deps = Resources(images=images, lmm=lmm, calibration=unsure, max_concurrency=4)
        _evaluate(
            made, benchmark, [Agent(deps, load_strategy(name, prompts="fieldnotes")) for name in strategies], unsure
        )
    return made


def hostile(folder: Path) -> Made:
    """One query, three images. The ids of query and images are hostile too."""
    made = _places(folder)
    evil = f"{MARKUP} {RIGHT_TO_LEFT} {LONG}"
    ids = ['"><img src=x onerror=alert(1)>.png', "x..%2f~~ %00 #?&.png", 20 * "\u05e9\u05dc\u05d5\u05dd" + ".png"]
    for n, image_id in enumerate(ids):
        PILImage.new("RGB", (40, 30), (40 * n, 90, 160)).save(made.images / image_id)
    query = Query(id=f"q/../{MARKUP}", text=evil)
    predicates = tuple(Predicate(id=f"p{n}<b>", question=f"{n} {evil}?", kind="<i>", words=MARKUP) for n in range(3))
    key = _remember(made.store, ids[0], evil)
    result = RerankResult(
        query_id=query.id,
        query_text=query.text,
        strategy="predicates",
        ranking=tuple(
            RankedCandidate(
                image_id=image_id, rank=n + 1, score=-n, prior=n / 3, prior_rank=3 - n, p_match=0.5,
                contributions={"prior": -n - 0.5, "p0<b>": 0.5},
            )
            for n, image_id in enumerate(ids)
        ),
        synthesis=Synthesis(
            thought=evil, core=evil, detailed=MARKUP, comprehensive=RIGHT_TO_LEFT,
            instructions=(Instruction(text=evil, words=MARKUP),),
        ),
        predicates=predicates,
        verdicts=tuple(
            Verdict(
                state="answered", predicate=predicate.id, image_id=image_id, answer=evil, request_key=key,
                p_yes=0.5 + n / 10, p_expected=0.5 + n / 10,
            )
            for n, predicate in enumerate(predicates)
            for image_id in ids
        ),
        comparisons=(
            Comparison(state="answered", shown=(ids[0], ids[1]), probabilities=(0.7, 0.3), answer=evil),
            Comparison(state="unknown", shown=(ids[1], ids[0]), error=evil),
        ),
        reasons=(Reason(state="answered", image_id=ids[0], text=evil, says="no", agrees=False, request_key=key),),
        calls=(
            Call(state="answered", stage="synthesize", text=evil, request_key=key),
            Call(state="unknown", stage="decompose", text=evil, error=evil),
        ),
        trace=(TraceEvent(kind="started", at=0.0, data={"model": MARKUP, "prompts": {"<b>": MARKUP}}),),
        flags=(evil,),
        nothing=NothingMatches(statistic=0.1, threshold=0.3, judged=3, failing=("p0<b>",), nearest=tuple(ids)),
    )  # fmt: skip
    benchmark = Benchmark(
        name=f"evil {MARKUP}",
        split=MARKUP,
        queries=(query,),
        qrels={query.id: {ids[0]: 1, ids[1]: 0}},
        images=FolderCollection(made.images),
        candidate_sets={query.id: tuple(Candidate(image_id, n / 3) for n, image_id in enumerate(ids))},
        meta={query.id: QueryMeta(supercategory=MARKUP)},
    )
    _evaluate(made, benchmark, [_Prepared(load_strategy("predicates", prompts="fieldnotes"), lambda _: result)])
    return made


def dialogues(folder: Path) -> Made:
    """Two dialogues over three pictures, of two rounds (miss, hit, miss) and of none (hit)."""
    made = _places(folder)
    for name in "xyz":
        PILImage.new("RGB", (40, 30), (90, 90, 160)).save(made.images / f"{name}.png")
    turns = (Turn(question="what?", answer="a crab"), Turn(question="where?", answer="on snow"))
    queries = [Query(id=f"d0.{n}", text="a", dialogue=turns[:n]) for n in range(3)] + [Query(id="d1.0", text="b")]
    found = dict(zip((query.id for query in queries), ("yzx", "xyz", "yxz", "xyz"), strict=True))
    benchmark = Benchmark(
        name="talks",
        split="test",
        queries=tuple(queries),
        qrels={query.id: {"x.png": 1} for query in queries},
        images=FolderCollection(made.images),
    )

    def told(query: Query) -> RerankResult:
        ranking = tuple(
            RankedCandidate(image_id=f"{name}.png", rank=n, score=-n, prior=-n, prior_rank=n)
            for n, name in enumerate(found[query.id], start=1)
        )
        return RerankResult(
            query_id=query.id, query_text=query.text, dialogue=query.dialogue, strategy="clip", ranking=ranking
        )

    _evaluate(made, benchmark, [_Prepared(load_strategy("clip", prompts="fieldnotes"), told)])
    return made


def big(folder: Path, queries: int = 160, candidates: int = 100, predicates: int = 6, runs: int = 2) -> Made:
    """Runs of the `agent` strategy, the second under another name, of the size that pages must be quick with."""
    made = _places(folder)
    rng = random.Random(0)
    for n in range(2 * candidates):
        PILImage.new("RGB", (8, 8), (n % 256, 7 * n % 256, 60)).save(made.images / f"{n:05}.png")
    names = [f"{n:05}.png" for n in range(2 * candidates)]
    asked = tuple(Query(id=f"q{n:03}", text=f"query {n}: a red crab holding plastic litter") for n in range(queries))
    sets = {
        query.id: tuple(Candidate(image_id, rng.random()) for image_id in rng.sample(names, candidates))
        for query in asked
    }
    benchmark = Benchmark(
        name="large",
        split="test",
        queries=asked,
        qrels={query: {c.image_id: int(rng.random() < 0.1) for c in given} for query, given in sets.items()},
        images=FolderCollection(made.images),
        candidate_sets=sets,
        meta={
            query.id: QueryMeta(supercategory=f"group {n % 8}", category=f"kind {n % 16}")
            for n, query in enumerate(asked)
        },
    )
    agent = load_strategy("agent", prompts="fieldnotes")
    for run in range(runs):
        strategy = agent if not run else agent.model_copy(update={"name": f"agent-{run + 1}"})
        drawn = random.Random(run + 1)

        def told(query: Query, drawn: random.Random = drawn, name: str = strategy.name) -> RerankResult:
            return _drawn(query, sets[query.id], predicates, drawn, name)

        _evaluate(made, benchmark, [_Prepared(strategy, told)])
    return made


def newer(run: Path) -> None:
    """As a later version of Fieldscope might have written it."""
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))


def half_written(run: Path) -> None:
    """As it is while its third query is being written."""
    lines = (run / "results.jsonl").read_bytes().splitlines(keepends=True)
    (run / "results.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:200])
    for name in ("metrics.json", "qrels.trec", "run.trec"):
        (run / name).unlink()


def begun(run: Path) -> None:
    """As it is before its first query is finished."""
    half_written(run)
    (run / "results.jsonl").write_bytes(b"")


def damaged(run: Path) -> None:
    """Its manifest is no JSON."""
    (run / "manifest.json").write_text("{")


def bare(run: Path) -> None:
    """As runs were written before they said what they are made from and where their images lie."""
    for name in ("inputs.jsonl", "collection.json"):
        (run / name).unlink()


def copied(made: Made, name: str, new: str, change: Callable[[Path], None] = lambda _: None) -> Path:
    """A copy of a run beside it, changed."""
    shutil.copytree(made.run(name), made.run(new))
    change(made.run(new))
    return made.run(new)


class _Prepared:
    """A reranker whose results are there already."""

    account: Account | None = None

    def __init__(self, strategy: Strategy, told: Callable[[Query], RerankResult]) -> None:
        self.strategy = strategy
        self._told = told

    async def rerank(
        self, query: Query, candidates: Sequence[Candidate] | None = None, *, budget: Budget | None = None
    ) -> RerankResult:
        return self._told(query)


def _places(folder: Path) -> Made:
    made = Made(folder / "runs", folder / "images", folder / "responses.sqlite")
    made.root.mkdir(parents=True)
    made.images.mkdir()
    return made


def _evaluate(
    made: Made, benchmark: Benchmark, agents: Sequence[Reranker], calibration: Calibration | None = None
) -> None:
    lines = {a.strategy.name: input_lines(benchmark, a.strategy, calibration) for a in agents}  # type: ignore[arg-type]
    ledger = Ledger(made.root.parent / "ledger.jsonl")
    asyncio.run(evaluate(benchmark, agents, made.root, ledger=ledger, inputs=lines, provenance={"lmm": "scripted"}))


def _remember(path: Path, image_id: str, text: str) -> str:
    """A call in the response cache; its key."""
    request = LMMRequest(
        messages=(Message(content=(ImagePart(image_id=image_id, sha256="0" * 64), TextPart(text=text))),)
    )
    entry = Entry(
        key=request.key("evil"),
        request=request.model_dump_json(),
        response=LMMResponse(text=text).model_dump_json(),
        provenance=json.dumps({"model": MARKUP, "asked_at": "2026-01-01T00:00:00+00:00"}),
    )
    with closing(SqliteStore(path)) as store:
        store.put(entry)
    return entry.key


def _drawn(
    query: Query, given: Sequence[Candidate], predicates: int, rng: random.Random, strategy: str
) -> RerankResult:
    """A result as `agent` has them, with everything drawn but consistent: contributions sum to scores."""
    kinds = ("query", "subject", "colour", "count", "context", "habitat", "weather", "absence")
    asked = [
        Predicate(
            id=f"p-{n:08x}", question=f"is this picture as part {n} of the request says it is?",
            expected="no" if kinds[n % 8] == "absence" else "yes", kind=kinds[n % 8], words="a red crab",
        )
        for n in range(predicates)
    ]  # fmt: skip
    cost = {"prompt_tokens": 180, "completion_tokens": 1, "latency": 0.02}
    verdicts: list[Verdict] = []
    shares: dict[str, dict[str, float]] = {}
    for candidate in given:
        share = {"base": -2.8, "prior": 3 * candidate.prior - 1.5}
        for predicate in asked:
            if rng.random() < 0.02:
                verdicts.append(
                    Verdict(state="unknown", error="no answer", predicate=predicate.id, image_id=candidate.image_id)
                )
                continue
            p = min(max(rng.betavariate(0.7, 0.7), 0.001), 0.999)
            share[predicate.id] = 4 * p - 2
            verdicts.append(
                Verdict(
                    state="answered", predicate=predicate.id, image_id=candidate.image_id,
                    answer="Yes" if p > 0.5 else "No", p_yes=p if predicate.expected == "yes" else 1 - p, p_expected=p,
                    request_key=f"{rng.getrandbits(256):064x}", **cost,
                )
            )  # fmt: skip
        shares[candidate.image_id] = share
    by_prior = sorted(given, key=lambda c: -c.prior)
    ranked = sorted(given, key=lambda c: -sum(shares[c.image_id].values()))
    head = [c.image_id for c in ranked[:20]]
    comparisons = []
    for _ in range(8):
        one, other = rng.sample(head, 2)
        for shown, p in (((one, other), 0.6), ((other, one), 0.45)):
            comparisons.append(Comparison(state="answered", shown=shown, probabilities=(p, 1 - p), answer="A", **cost))
    before = {candidate.image_id: rank for rank, candidate in enumerate(by_prior, start=1)}
    events = [TraceEvent(kind="started", at=0.0, data={"model": "scripted", "prompts": {"ask_predicate": "d" * 64}})]
    events += [
        TraceEvent(
            kind="verified",
            at=0.01 * n,
            data={"image_id": c.image_id, "states": {"answered": predicates}, "tokens": 1000},
        )
        for n, c in enumerate(given)
    ]
    return RerankResult(
        query_id=query.id,
        query_text=query.text,
        strategy=strategy,
        ranking=tuple(
            RankedCandidate(
                image_id=c.image_id, rank=rank, score=sum(shares[c.image_id].values()), prior=c.prior,
                prior_rank=before[c.image_id], p_match=1 - rank / 101, rank_low=max(1, rank - 4),
                rank_high=min(len(ranked), rank + 4), contributions=shares[c.image_id],
            )
            for rank, c in enumerate(ranked, start=1)
        ),
        synthesis=Synthesis(
            thought="it asks for a red crab with litter.", core="a crab", detailed="a red crab",
            comprehensive="a red crab holding plastic litter",
            instructions=(Instruction(text="there is a red crab", words="a red crab"),),
        ),
        predicates=tuple(asked),
        verdicts=tuple(verdicts),
        comparisons=tuple(comparisons),
        reasons=tuple(
            Reason(state="answered", image_id=image_id, text="yes. it shows a red crab.", says="yes", agrees=True)
            for image_id in head[:3]
        ),
        calls=(Call(state="answered", stage="synthesize", text="{}", prompt_tokens=90, completion_tokens=60),),
        trace=tuple(events),
    )  # fmt: skip
