"""Results as they come out of the agent, made by hand."""

from __future__ import annotations

from typing import Any

from fieldscope.agent.types import (
    Call,
    Comparison,
    Instruction,
    Predicate,
    RankedCandidate,
    Reason,
    RerankResult,
    Synthesis,
    TraceEvent,
    Verdict,
)

RED = Predicate(id="p1", question="is the crab red?", kind="colour", words="red")
NET = Predicate(id="p2", question="is there a net?", expected="no", kind="absence", words="without a net")

# image: rank, prior rank, P(red is expected), P(net is expected), contributions of prior, p1, p2, comparisons
_ROWS = {
    "fine.png": (1, 2, 0.97, 0.96, 0.2, 2.0, 0.5, -0.4),
    "twin.png": (2, 3, 0.95, 0.94, 0.1, 1.9, 0.4, -0.2),
    "blue.png": (3, 1, 0.02, 0.9, 0.5, -4.0, 0.3, 0.0),
    "net.png": (4, 4, 0.9, None, -0.5, 1.0, 0.0, -6.0),
}


def single(text: str = "two crabs", answer: str = "Yes", prior: float = 0.5, error: str = "no server") -> RerankResult:
    """One question about each image: answered, unknown and not asked."""
    asked = {"prompt_tokens": 40, "completion_tokens": 1, "latency": 0.125, "request_key": "f" * 64, "p_yes": 0.9}
    return RerankResult(
        query_id="q1",
        query_text=text,
        strategy="yes-no",
        ranking=(
            RankedCandidate(image_id="a.png", rank=1, score=0.9, prior=prior, prior_rank=2, p_match=0.9),
            RankedCandidate(image_id="b.png", rank=2, score=0.4, prior=0.7, prior_rank=1),
            RankedCandidate(image_id="c.png", rank=3, score=0.1, prior=0.1, prior_rank=3),
        ),
        predicates=(Predicate(id="query", question=f"is it {text}?", words=text),),
        verdicts=(
            verdict("query", "a.png", 0.9, answer=answer, **asked),
            verdict("query", "b.png", None, state="unknown", error=error),
            verdict("query", "c.png", None, state="not_asked"),
        ),
        trace=(
            TraceEvent(kind="started", at=0.0, data={"model": "e" * 64, "prompts": {"match_yes_no": "d" * 64}}),
            TraceEvent(kind="verified", at=0.2, data={"image_id": "a.png", "states": {"answered": 1}, "tokens": 41}),
            TraceEvent(kind="verified", at=0.3, data={"image_id": "b.png", "states": {"unknown": 1}, "tokens": 0}),
            TraceEvent(kind="ranked", at=0.4, data={"answered": 1}),
        ),
        flags=("1 of 2 calls gave no answer",),
    )


def agentic(**changes: Any) -> RerankResult:
    """Every part of a result is there: a thought, two predicates, a pair in both orders, a reason, a budget spent."""
    ranking = tuple(
        RankedCandidate(
            image_id=image_id,
            rank=rank,
            prior_rank=prior_rank,
            prior=1.0 - prior_rank / 10,
            p_match=0.5,
            rank_low=max(rank - 1, 1),
            rank_high=min(rank + 1, 4),
            score=sum(parts) - 1.0,
            contributions=dict(zip(("prior", "p1", "p2", "comparisons"), parts, strict=True)) | {"base": -1.0},
        )
        for image_id, (rank, prior_rank, _, _, *parts) in _ROWS.items()
    )
    verdicts = []
    for image_id, (_, _, red, net, *_) in _ROWS.items():
        verdicts.append(verdict("p1", image_id, red, p_yes=red, prompt_tokens=50, completion_tokens=1, cached=True))
        verdicts.append(
            verdict("p2", image_id, net, p_yes=1 - net, answer="No", prompt_tokens=50, completion_tokens=1)
            if net
            else verdict("p2", image_id, None, state="unknown", error="timed out")
        )
    result = RerankResult(
        query_id="q7",
        query_text="a red crab without a net",
        strategy="agent",
        ranking=ranking,
        synthesis=Synthesis(
            thought="it must be red.",
            core="a crab",
            detailed="a red crab",
            comprehensive="a red crab and no net",
            instructions=(Instruction(text="the crab is red", words="red"),),
        ),
        predicates=(RED, NET),
        verdicts=tuple(verdicts),
        comparisons=(
            compared(("fine.png", "twin.png"), 0.7),
            compared(("twin.png", "fine.png"), 0.4),
            compared(("fine.png", "net.png"), 0.8),
            compared(("net.png", "fine.png"), 0.6),
            Comparison(shown=("twin.png", "net.png"), state="unknown", error="timed out"),
        ),
        reasons=(
            Reason(image_id="fine.png", text="it is red.", says="yes", agrees=True, state="answered"),
            Reason(image_id="twin.png", text="no, it is blue.", says="no", agrees=False, state="answered"),
        ),
        calls=(Call(stage="synthesize", text="...", state="answered", prompt_tokens=200, completion_tokens=90),),
        trace=(
            TraceEvent(
                kind="started",
                at=0.0,
                data={"strategy_fingerprint": "a" * 64, "model": "e" * 64, "prompts": {"ask": "1" * 64}},
            ),
            TraceEvent(kind="assessed", at=0.3, data={"wanting": "", "again": False, "separates_nothing": ["p2"]}),
        ),
        ended="compare",
    )
    return result.model_copy(update=changes)


def verdict(predicate: str, image_id: str, p_expected: float | None, **more: Any) -> Verdict:
    known: dict[str, Any] = {"state": "answered", "answer": "Yes" if p_expected else ""} | more
    return Verdict(predicate=predicate, image_id=image_id, p_expected=p_expected, **known)


def compared(shown: tuple[str, ...], p_first: float) -> Comparison:
    rest = (1.0 - p_first) / (len(shown) - 1)
    return Comparison(shown=shown, probabilities=(p_first, *[rest] * (len(shown) - 1)), answer="a", state="answered")
