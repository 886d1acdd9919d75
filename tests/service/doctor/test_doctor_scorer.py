"""`doctor --scorer` against a reranker on loopback: a healthy one passes, and each planted fault is found."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import pytest

from fieldscope.retrieval.served_scorer import ServedScorer
from fieldscope.retrieval.server import ModelServer
from fieldscope.service.doctor.examine import Examination
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer import batch, lists, repeats, truncation
from fieldscope.service.doctor.scorer.examine import examine_scorer
from tests.retrieval.rerankers import Reply
from tests.service.conftest import Run
from tests.service.doctor.planted import (
    IMAGE,
    MODEL,
    Alter,
    Planted,
    drawn,
    logit,
    read_jina,
    read_letters,
    relevance,
    sigmoid,
)

CHECKS = [
    "server",
    "scores of images",
    "known images",
    "query and images",
    "scores of texts",
    "known texts",
    "query and texts",
    "same on repeat",
    "every document",
    "same in a batch",
    "order of documents",
    "images as images",
    "instruction",
    "long texts",
    "reference image",
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "REPEATS", 4)
    monkeypatch.setattr(lists, "SIZES", (2, 5, 12))
    monkeypatch.setattr(batch, "CALLS", 8)
    monkeypatch.setattr(truncation, "LENGTHS", (64, 4096))


def noisy(width: float) -> Alter:
    """Noise of this much to both sides, another one with each request."""
    numbers = random.Random(0)
    return lambda scores, documents: [score + numbers.uniform(-width, width) for score in scores]


def each(change: Callable[[float], float]) -> Alter:
    return lambda scores, documents: [change(score) for score in scores]


def examined(planted: Planted, model: str = MODEL) -> tuple[Examination, dict[str, Finding]]:
    with planted.serving():
        scorer = ServedScorer.open(f"{planted.url}#{model}", load_encoder=lambda: pytest.fail("no encoder is needed"))
        examination = examine_scorer(scorer, f"{planted.url}#{model}", lambda done, total: None)
    return examination, {finding.name: finding for finding in examination.findings}


def states(findings: dict[str, Finding], *wanted: str) -> list[str]:
    return [name for name, finding in findings.items() if finding.state in wanted]


VARIANTS = frozenset(
    {
        "only /score", "no usage", "half precision", "low scores",
        "all equal but for rounding", "exactly 0.5", "near 0.5 for images", "sigmoid twice, half precision",
        "query alone", "letters, not understood or counted", "one image for all", "one machine of three",
        "batches over 64", "every place", "index from the end", "index from 1 in lists", "top 100", "documents twice",
        "NaN everywhere", "cut after 20,000 letters",
    }
)  # fmt: skip

HEALTHY: dict[str, Planted] = {
    "vLLM": Planted(),
    "Jina": Planted(read=read_jina, instructed=False),
    "only /score": Planted(paths=("/score", "/v1/score")),
    "no usage": Planted(tokens=None),
    "logits": Planted(alter=each(lambda score: 4 * logit(score))),
    "rounding": Planted(alter=noisy(1e-4)),
    "half precision": Planted(alter=each(lambda score: round(score * 256) / 256)),
    "always confident": Planted(alter=each(lambda score: 0.999 if score > 0.9 else 0.001), instructed=False),
    "low scores": Planted(alter=each(lambda score: 0.4 * score**2)),
}


def parameters(names: Iterable[str]) -> list[Any]:
    """Those that are variants of others are left to the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in VARIANTS else name for name in names]


@pytest.mark.parametrize("name", parameters(HEALTHY))
def test_a_healthy_server_passes(name: str) -> None:
    examination, findings = examined(HEALTHY[name])
    assert list(findings) == CHECKS
    assert examination.healthy
    assert states(findings, "fail", "warn") == []
    assert states(findings, "unknown") == ([] if HEALTHY[name].instructed else ["instruction"])
    assert examination.probe == "shapes"
    assert examination.calls == len(HEALTHY[name].asked)


def beyond(size: int, shift: float) -> Alter:
    return lambda scores, documents: [score - shift * (len(scores) > size) for score in scores]


def by_place(shift: Callable[[int, int], float]) -> Alter:
    return lambda scores, documents: [score + shift(place, len(scores)) for place, score in enumerate(scores)]


def of_images(change: Callable[[float], float]) -> Alter:
    return lambda scores, documents: [
        change(score) if document.startswith(IMAGE) else score
        for score, document in zip(scores, documents, strict=True)
    ]


def in_turns(first: Callable[[float], float]) -> Alter:
    """Another score with every third request, as one of three machines behind an address would give it."""
    turns = count()

    def alter(scores: list[float], documents: list[str]) -> list[Any]:
        return [first(score) for score in scores] if next(turns) % 3 == 0 else scores

    return alter


def best(number: int) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda results: results[:number]


def renumbered(index: Callable[[int, int, int], int]) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Another index: from the index itself, the rank, and the number of results."""
    return lambda results: [
        result | {"index": index(result["index"], rank, len(results))} for rank, result in enumerate(results)
    ]


def as_padded(scores: list[float], documents: list[str]) -> list[Any]:
    """Padding that is not masked: a short text scores less beside a longer one."""
    longest = max(map(len, documents))
    return [score * (1 - 0.1 * (1 - len(text) / longest)) for score, text in zip(scores, documents, strict=True)]


def scaled(scores: list[float], documents: list[str]) -> list[Any]:
    low, high = min(scores), max(scores)
    return [(score - low) / (high - low) if high > low else 1.0 for score in scores]


def lost(every: int) -> Alter:
    return lambda scores, documents: [
        float("nan") if place % every == every - 1 else score for place, score in enumerate(scores)
    ]


PLANTED: dict[str, tuple[Planted, list[str], str]] = {
    # The scores' values.
    "all equal": (Planted(alter=each(lambda score: 0.73)), ["scores of images", "scores of texts"], "are equal"),
    "all equal but for rounding": (
        Planted(alter=each(lambda score: 0.2 + 1e-3 * score)), ["scores of images", "scores of texts"], "are equal"
    ),
    "all zero": (Planted(alter=each(lambda score: 0.0)), ["scores of images", "scores of texts"], "are 0"),
    "zero for images": (Planted(alter=of_images(lambda score: 0.0)), ["scores of images"], "are 0"),
    "near 0.5": (
        Planted(alter=each(lambda score: 0.5 + 0.02 * (score - 0.5))),
        ["scores of images", "scores of texts"],
        "near 0.5.*template",
    ),
    "exactly 0.5": (
        Planted(alter=each(lambda score: 0.5)), ["scores of images", "scores of texts"], "equal and near 0.5"
    ),
    "near 0.5 for images": (
        Planted(alter=of_images(lambda score: 0.46 + 0.1 * score)), ["scores of images"], "near 0.5"
    ),
    "sigmoid twice": (Planted(alter=each(sigmoid)), ["scores of images", "scores of texts"], "sigmoid.* twice"),
    "sigmoid twice, half precision": (
        Planted(alter=each(lambda score: round(sigmoid(score) * 256) / 256)),
        ["scores of images", "scores of texts"],
        "sigmoid.* twice",
    ),
    # What scores follow.
    "reversed": (
        Planted(alter=each(lambda score: 1 - score)), ["known images", "known texts"], "reversed.*classifier_from_token"
    ),
    "query unread": (
        Planted(score=lambda query, document: drawn(document)),
        ["query and images", "query and texts"],
        "same for every query.*chat-template",
    ),
    "query alone": (
        Planted(score=lambda query, document: 0.1 + 0.8 * drawn(query) + 0.05 * drawn(document)),
        ["query and images", "query and texts"],
        "same for every query",
    ),
    "letters": (Planted(read=read_letters), ["images as images"], "scored as text"),
    "letters, not counted": (
        Planted(read=read_letters, tokens=None, score=lambda query, document: drawn(query, document)
                if document.startswith("data:") else relevance(query, document)),
        ["images as images"],
        "scored as text",
    ),
    "letters, not understood or counted": (
        Planted(read=read_letters, tokens=None), ["images as images", "known images"], "as text"
    ),
    "one image for all": (Planted(score=lambda query, document: 0.9 if document.startswith(IMAGE)
                                  else relevance(query, document)), ["scores of images"], "are equal"),
    # From call to call.
    "jitter": (Planted(alter=noisy(1e-3)), ["same on repeat"], "another score each time"),
    "one machine of three": (Planted(alter=in_turns(lambda score: score - 0.01)), ["same on repeat"], "same model"),
    # In company.
    "batches over 4": (Planted(alter=beyond(4, 0.03)), ["same in a batch"], "has 5 documents"),
    "batches over 64": (Planted(alter=beyond(64, 0.03)), ["same in a batch"], "has 120 documents"),
    "padding": (Planted(alter=as_padded), ["same in a batch"], "number of documents.*padding"),
    "scaled to the list": (Planted(alter=scaled), ["same in a batch"], "normalises"),
    "first place": (
        Planted(alter=by_place(lambda place, size: 0.02 * (place == 0))), ["order of documents"], r"place 1 .* \+0.0"
    ),
    "every place": (
        Planted(alter=by_place(lambda place, size: -0.02 * place / size)), ["order of documents"], "where its document"
    ),
    "rank as index": (Planted(results=renumbered(lambda n, rank, size: rank)), ["order of documents"], "is the rank"),
    "index from the end": (
        Planted(results=renumbered(lambda n, rank, size: size - 1 - n)), ["order of documents"], "from the end"
    ),
    "index from 1": (Planted(results=renumbered(lambda n, rank, size: n + 1)), ["server"], "document 1, but 1 doc"),
    "index from 1 in lists": (
        Planted(results=renumbered(lambda n, rank, size: n + (size > 1))), ["every document"], "document 2, but 2 doc"
    ),
    "top 3": (Planted(results=best(3)), ["every document"], "best 3 only.*top_n"),
    "top 100": (Planted(results=best(100)), ["every document"], "20 of 120 texts"),
    "documents twice": (
        Planted(results=renumbered(lambda n, rank, size: n - n % 2)), ["every document"], "2 scores for this document"
    ),
    "NaN": (Planted(alter=lost(5)), ["every document"], "no finite number.*float32"),
    "NaN everywhere": (Planted(alter=each(lambda score: float("nan"))), ["server"], "no finite number"),
    # Long texts.
    "cut after 300 letters": (Planted(cut=300), ["long texts"], "after 64 words the end"),
    "cut after 20,000 letters": (Planted(cut=20_000), ["long texts"], "after 4,096 words the end .*max-model-len"),
}  # fmt: skip


@pytest.mark.parametrize("fault", parameters(PLANTED))
def test_a_planted_fault_is_found(fault: str) -> None:
    planted, checks, words = PLANTED[fault]
    examination, findings = examined(planted)
    assert not examination.healthy
    assert set(checks) <= set(states(findings, "fail")), findings
    found = findings[checks[0]]
    assert re.search(words, f"{found.seen} {found.meaning} {found.change}"), found
    assert found.change


def test_the_command_prints_the_same_report_as_for_an_lmm(run: Run) -> None:
    with Planted().serving() as planted:
        scorer = f"{planted.url}#{MODEL}"
        table, told = run("doctor", "--scorer", scorer), run("doctor", "--scorer", scorer, "--json")
    assert (table.exit_code, told.exit_code) == (0, 0), table.output
    assert "15 of 15 checks passed" in table.stdout
    examination = json.loads(told.stdout)
    assert list(examination) == ["scorer", "healthy", "identity", "probe", "findings", "calls", "seconds"]
    assert (examination["scorer"], examination["healthy"], examination["probe"]) == (scorer, True, "shapes")
    assert [finding["name"] for finding in examination["findings"]] == CHECKS
    assert examination["identity"].startswith(f"scorer:{MODEL}")


def test_the_command_fails_where_a_check_does(run: Run) -> None:
    with Planted(alter=each(sigmoid)).serving() as planted:
        result = run("doctor", "--scorer", f"{planted.url}#{MODEL}")
    assert result.exit_code == 1
    assert "failed: scores of images, scores of texts" in result.stdout


def test_a_server_that_is_not_there_is_one_line(run: Run, nobody: str) -> None:
    result = run("doctor", "--scorer", f"{nobody}#{MODEL}")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1 and nobody in result.stderr


def test_another_model_s_name_is_one_finding(run: Run) -> None:
    with Planted().serving() as planted:
        result = run("doctor", "--scorer", f"{planted.url}#other", "--json")
    assert result.exit_code == 1
    examination = json.loads(result.stdout)
    assert [finding["name"] for finding in examination["findings"]] == ["server"]
    assert MODEL in examination["findings"][0]["seen"]
    assert examination["probe"] is None


def test_a_key_in_an_address_is_not_shown(run: Run, nobody: str) -> None:
    address = nobody.replace("http://", "http://user:secret@")
    result = run("doctor", "--scorer", f"{address}#{MODEL}", "--json")
    assert result.exit_code == 1
    assert "secret" not in result.output


def test_a_scorer_is_checked_alone(run: Run) -> None:
    for other in (("--strategy", "agent"), ("--lmm", "http://localhost:1", "--model", "vl")):
        result = run("doctor", "--scorer", "similarity", *other)
        assert result.exit_code == 2
        assert "--scorer checks a scoring model alone" in result.stderr


def test_the_server_s_last_answer_ends_a_check_with_a_finding() -> None:
    """A server that fails under way: what was found before stands, and the rest says why it could not be asked."""

    def reply(number: int, path: str, body: Any) -> Reply | None:
        return (503, {}, {"error": "out of memory"}) if number > 60 else None

    with Planted(reply=reply).serving() as planted:
        server = ModelServer(planted.url, MODEL, "--scorer", attempts=1)
        examination = examine_scorer(ServedScorer(server), MODEL, lambda done, total: None)
    findings = {finding.name: finding for finding in examination.findings}
    assert list(findings) == CHECKS
    assert findings["known images"].state == "ok"
    assert findings["long texts"].state == "fail" and "out of memory" in findings["long texts"].seen


def test_a_server_that_fails_at_once_has_a_finding_for_each_check() -> None:
    def reply(number: int, path: str, body: Any) -> Reply | None:
        return (503, {}, {"error": "out of memory"}) if number > 9 else None

    with Planted(reply=reply).serving() as planted:
        server = ModelServer(planted.url, MODEL, "--scorer", attempts=1)
        examination = examine_scorer(ServedScorer(server), MODEL, lambda done, total: None)
    assert [finding.name for finding in examination.findings] == CHECKS
    assert {finding.state for finding in examination.findings[1:]} == {"fail"}


def test_a_server_that_limits_lists_is_healthy() -> None:
    def reply(number: int, path: str, body: Any) -> Reply | None:
        return (
            (413, {}, {"error": "batch size 12 > maximum allowed batch size 8"}) if len(body["documents"]) > 8 else None
        )

    examination, findings = examined(Planted(reply=reply))
    assert examination.healthy
    assert states(findings, "warn") == ["every document"]
    assert "maximum allowed batch size" in findings["every document"].seen


@pytest.mark.parametrize(
    ("model", "state"), [("Qwen/Qwen3-VL-Reranker-2B", "warn"), ("jinaai/jina-reranker-m0", "unknown")]
)
def test_a_qwen_reranker_without_its_template_is_told_so(model: str, state: str) -> None:
    with Planted(instructed=False).serving() as planted:
        scorer = ServedScorer.open(f"{planted.url}#{MODEL}", load_encoder=lambda: pytest.fail("no encoder is needed"))
        examination = examine_scorer(scorer, f"{planted.url}#{model}", lambda done, total: None)
    found = next(finding for finding in examination.findings if finding.name == "instruction")
    assert found.state == state
    assert ("chat-template" in found.change) == (state == "warn")
    assert examination.healthy


def test_a_slow_scorer_is_not_asked_about_the_longest_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truncation, "PATIENCE", -1.0)
    planted = Planted()
    examination, findings = examined(planted)
    assert examination.healthy
    assert findings["long texts"].state == "ok"
    assert "those of 64 words took" in findings["long texts"].seen
    assert max(len(str(body)) for _, body in planted.asked if "image_url" not in str(body)) < 20_000
