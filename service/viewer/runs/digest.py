"""Scores and cost of each query, for the lists of a run. Worked out once from `results.jsonl`."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from fieldscope.agent.usage import Usage
from fieldscope.core.files import replace_file
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.paths import cache_folder
from fieldscope.core.reading import load_json
from fieldscope.eval.measures.scoring import METRICS
from fieldscope.eval.protocol import PLAIN, Protocol
from fieldscope.eval.reported import GENERAL, REPORTED, Reported, reported_as

FORMAT = 5

_SCORED = tuple(dict.fromkeys(name for each in REPORTED.values() for name in each.values if name in METRICS))
_HUGE = re.compile(rb"[:\[,]\s*-?[0-9]{40}")  # a number that no run writes and no chart can draw


class QueryDigest(BaseModel):
    """One query of a run.

    `start` and `size` are the bytes of its line in `results.jsonl`, `sha256` is their hash. `scores` and `prior_scores`
    are metrics of the ranking and of the first stage's order, among them those that the benchmark's results are
    reported in (`reported` is their name); empty where no judgment of the query is known, or none is positive. `calls`,
    tokens, `seconds` and `cached` count every question asked, `unknown` those of them without an answer. `moved` sums
    by how many ranks images moved. `nothing` is whether no image was said to match, None where that was not decided.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_id: str
    text: str
    start: int
    size: int
    sha256: str
    candidates: int
    positives: int | None
    scores: dict[str, float]
    prior_scores: dict[str, float]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cached: int
    unknown: int
    not_asked: int
    moved: int
    ended: str | None
    nothing: bool | None = None
    reported: str = GENERAL.name

    @property
    def usage(self) -> Usage:
        """What the query's questions cost."""
        return Usage(**{field.name: getattr(self, field.name) for field in fields(Usage) if field.name != "wall"})

    @property
    def before(self) -> float | None:
        """The headline in the first stage's order; None if the query could not be scored."""
        return self.prior_scores.get(reported_as(self.reported).headline)

    @property
    def after(self) -> float | None:
        """The headline in the run's order; None if the query could not be scored."""
        return self.scores.get(reported_as(self.reported).headline)

    @property
    def gain(self) -> float | None:
        """The change of the headline from the first stage's order; None if the query could not be scored."""
        return None if self.before is None or self.after is None else self.after - self.before


class _Hash(typing.Protocol):
    def update(self, data: bytes, /) -> None: ...


class _Digests(BaseModel):
    format: int
    queries: list[QueryDigest]


def digests(
    folder: Path,
    judgments: Mapping[str, Mapping[str, int]] | None,
    reported: Reported = GENERAL,
    protocol: Protocol = PLAIN,
) -> dict[str, QueryDigest]:
    """Query id -> digest, sorted by id; the last one of a repeated query. Damaged and incomplete lines are left out.
    Digests are kept in the user's cache folder under a hash of results and judgments. `reported` are the metrics in
    which the benchmark's results are reported, under its `protocol`.

    Raises `OSError` where `results.jsonl` can't be read.
    """
    with (folder / "results.jsonl").open("rb") as stream:
        kept = _kept_at(file_digest(stream, "sha256").hexdigest(), judgments, reported, protocol)
        try:
            known = _Digests.model_validate_json(kept.read_bytes())
            if known.format == FORMAT:
                return {query.query_id: query for query in known.queries}
        except (OSError, ValidationError):
            pass
        stream.seek(0)
        content = sha256()
        read = {query.query_id: query for query in _read(stream, content, judgments, reported, protocol)}
    found = {query_id: read[query_id] for query_id in sorted(read, key=_in_order)}
    # A run that is being written may have grown since its content was looked up.
    _keep(
        _kept_at(content.hexdigest(), judgments, reported, protocol),
        _Digests(format=FORMAT, queries=list(found.values())),
    )
    return found


def _read(
    stream: BinaryIO,
    content: _Hash,
    judgments: Mapping[str, Mapping[str, int]] | None,
    reported: Reported,
    protocol: Protocol,
) -> Iterator[QueryDigest]:
    start = 0
    for line in stream:
        content.update(line)
        try:
            if line.endswith(b"\n") and not _HUGE.search(line):
                yield _digest(line, start, judgments, reported, protocol)
        except (ValueError, OverflowError, LookupError, TypeError, AttributeError):
            pass  # not a result of this version; opening the query says so
        start += len(line)


def _digest(
    line: bytes,
    start: int,
    judgments: Mapping[str, Mapping[str, int]] | None,
    reported: Reported,
    protocol: Protocol,
) -> QueryDigest:
    result: Mapping[str, Any] = load_json(line)
    verdicts = [verdict for verdict in result["verdicts"] if not verdict["joint"]]
    questions = [*result["calls"], *verdicts, *result["comparisons"], *result["reasons"]]
    asked = [question for question in questions if question["state"] != "not_asked"]
    judged = None if judgments is None else judgments.get(result["query_id"], {})
    ranking = result["ranking"]
    left_out = None if protocol.keeps_reference else result.get("reference_image")
    scored = [ranked for ranked in ranking if ranked["image_id"] != left_out]
    credits = protocol.credits.get(result["query_id"], {})
    return QueryDigest(
        query_id=result["query_id"],
        text=result["query_text"],
        start=start,
        size=len(line),
        sha256=sha256(line).hexdigest(),
        candidates=len(ranking),
        positives=None if judged is None else sum(judged.values()),
        scores=_scores([ranked["image_id"] for ranked in scored], judged, credits),
        prior_scores=_scores(
            [r["image_id"] for r in sorted(scored, key=lambda r: int(r["prior_rank"]))], judged, credits
        ),
        calls=len(asked),
        prompt_tokens=sum(question["prompt_tokens"] for question in asked),
        completion_tokens=sum(question["completion_tokens"] for question in asked),
        seconds=sum(question["latency"] for question in asked),
        cached=sum(question["cached"] for question in asked),
        unknown=sum(question["state"] == "unknown" for question in asked),
        not_asked=len(questions) - len(asked),
        moved=sum(abs(ranked["prior_rank"] - ranked["rank"]) for ranked in ranking),
        ended=result["ended"],
        nothing=next((event["data"].get("nothing") for event in result["trace"] if event["kind"] == "ranked"), None),
        reported=reported.name,
    )


def _scores(order: list[str], judged: Mapping[str, int] | None, credits: Mapping[str, float]) -> dict[str, float]:
    """Of `credits` recall is the greatest among the best k; where there are none, all relevant images count."""
    if not judged or not any(judged.values()):
        return {}
    relevance = np.array([[judged.get(image_id, 0) > 0 for image_id in order]], dtype=np.uint8)
    positives = np.array([sum(grade > 0 for grade in judged.values())])
    scores = {name: float(METRICS[name](relevance, positives)[0]) for name in _SCORED}
    for name in _SCORED if credits else ():
        if name.startswith("recall@"):
            best = order[: int(name.removeprefix("recall@"))]
            scores[name] = max([0.0, *(credits.get(image_id, 0.0) for image_id in best)])
    return scores


def _in_order(query_id: str) -> list[str | int]:
    """The sort key of a query id: its numbers count as numbers."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", query_id))]


def _kept_at(
    results: str, judgments: Mapping[str, Mapping[str, int]] | None, reported: Reported, protocol: Protocol
) -> Path:
    """The file for digests of results with this hash, scored against these judgments."""
    own = {"protocol": protocol.entry()} if protocol != PLAIN else {}
    name = fingerprint({"results": results, "judgments": judgments, "reported": reported.name, **own})
    return cache_folder() / "viewer" / "digests" / f"{name[:32]}.json"


def _keep(path: Path, found: _Digests) -> None:
    """Remember, if the disk lets us: what is kept only saves time."""
    with suppress(OSError):
        replace_file(path, found.model_dump_json(), private=True)
