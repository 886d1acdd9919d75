"""Caches and runs of an earlier version (`tests/fixtures/served_run`): they replay, they go on, they heal."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.served_run.answering import POISONED, Answering, answering
from tests.service.conftest import Run

FIXTURE = Path(__file__).parents[1] / "fixtures" / "served_run"
STRATEGIES = ("yes-no", "agent")
AGENT = FIXTURE / "agent.yaml"
"""The strategy `agent` of then: a run is gone on with under the strategy that it was begun with."""

PNG = ("--image-format", "png")
"""As images were sent then."""

VLLM = {"root": "/models/vl", "owned_by": "vllm", "created": 1, "max_model_len": 4096}
OUTS = {"vl": "runs", POISONED: "poisoned"}


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the fixture, whose cache is in use."""
    folder = tmp_path / "earlier"
    shutil.copytree(FIXTURE, folder)
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering(entry=VLLM, version="0.32.0") as made:
        yield made


def rankings(out: Path) -> dict[str, list[list[str]]]:
    """Each strategy's ranking of each query, with its scores."""
    return {
        name: [line.split()[:5] for line in (out / name / "run.trec").read_text().splitlines()] for name in STRATEGIES
    }


def models(cache: Path) -> dict[str, int]:
    with sqlite3.connect(cache / "responses.sqlite") as plain:
        rows = plain.execute("SELECT json_extract(provenance, '$.model'), count(*) FROM entries GROUP BY 1").fetchall()
    plain.close()
    return dict(rows)


Evaluate = Callable[..., Any]


@pytest.fixture
def evaluate(run: Run, earlier: Path) -> Evaluate:
    """`evaluate(server, model, out, *options)` is the command that made the fixture; what it printed for programs."""

    def invoke(server: Answering, model: str, out: Path, *options: object, agent: str | Path = "agent") -> Any:
        named = (
            "--strategy",
            "yes-no",
            agent,
            "--lmm",
            server.url,
            "--model",
            model,
            "--prompts",
            "fieldnotes",
            *PNG,
            "--out",
            out,
        )
        result = run("eval", earlier / "noise", *named, "--max-unknown", 1, "--json", *options)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)["runs"]

    return invoke


@pytest.mark.parametrize("model", OUTS)
@pytest.mark.parametrize("as_file", [False, True])
def test_a_run_and_its_export_replay_without_a_call(run: Run, earlier: Path, model: str, as_file: bool) -> None:
    out = earlier / OUTS[model]
    source = out.with_suffix(".fsr") if as_file else out
    result = run("eval", "--replay", source, "--out", "again", "--max-unknown", 1)
    assert result.exit_code == 0, result.stderr
    assert rankings(Path("again")) == rankings(out)


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
@pytest.mark.parametrize("model", OUTS)
def test_the_cache_replays_without_a_server(earlier: Path, evaluate: Evaluate, model: str, image_format: str) -> None:
    evaluate(Answering(url="http://127.0.0.1:9"), model, Path("again"), "--replay", "--image-format", image_format)
    again, before = rankings(Path("again")), rankings(earlier / OUTS[model])
    assert again["yes-no"] == before["yes-no"]
    if model != POISONED:  # a question that failed counted with what the query's other images said, and no longer does
        assert again["agent"] == before["agent"]
    assert models(earlier) == models(FIXTURE)


def test_a_server_that_tells_more_finds_what_was_kept_under_its_name(
    earlier: Path, evaluate: Evaluate, server: Answering
) -> None:
    evaluate(server, "vl", Path("again"))
    assert server.asked == []
    assert rankings(Path("again")) == rankings(earlier / "runs")
    manifest = json.loads(Path("again/agent/manifest.json").read_bytes())
    identity = manifest["configuration"]["lmm"]
    assert identity.startswith("openai:vl#png<=1024#root=") and identity.endswith(",owned_by=vllm,version=0.32.0")
    assert "/models" not in identity, "no path is shown on a page or written to a run's folder"


def test_what_a_server_found_under_its_name_is_exported_and_replayed(
    run: Run, earlier: Path, evaluate: Evaluate, server: Answering
) -> None:
    evaluate(server, "vl", Path("again"))
    assert run("cache", "export", "again", "-o", "again.fsr").exit_code == 0
    shutil.rmtree(earlier)
    assert run("eval", "--replay", "again.fsr", "--out", "replayed").exit_code == 0
    assert rankings(Path("replayed")) == rankings(FIXTURE / "runs")


def test_another_server_under_the_name_is_asked_itself(earlier: Path, evaluate: Evaluate, server: Answering) -> None:
    evaluate(server, "vl", Path("again"))
    with answering(entry=VLLM | {"root": "/models/another"}, version="0.32.0") as other:
        evaluate(other, "vl", Path("other"))
        assert len(other.asked) > 30
    with answering(entry=VLLM | {"created": 2, "max_model_len": 8192}, version="0.32.0") as restarted:
        evaluate(restarted, "vl", Path("restarted"))
        assert restarted.asked == []


def test_a_finished_run_is_gone_on_with(run: Run, earlier: Path, evaluate: Evaluate, server: Answering) -> None:
    before = rankings(earlier / "runs")
    evaluate(server, "vl", earlier / "runs", agent=AGENT)
    assert server.asked == [] and rankings(earlier / "runs") == before
    assert run("eval", "--replay", earlier / "runs", "--out", "again").exit_code == 0
    assert rankings(Path("again")) == before


def test_half_a_run_is_gone_on_with_and_replays_as_a_whole(
    run: Run, earlier: Path, evaluate: Evaluate, server: Answering
) -> None:
    before = rankings(earlier / "runs")
    for name in STRATEGIES:
        results = earlier / "runs" / name / "results.jsonl"
        results.write_bytes(results.read_bytes().splitlines(keepends=True)[0])
    evaluate(server, "vl", earlier / "runs", agent=AGENT)
    assert server.asked == [] and rankings(earlier / "runs") == before
    assert run("cache", "export", earlier / "runs", "-o", "whole.fsr").exit_code == 0
    assert run("eval", "--replay", "whole.fsr", "--out", "again").exit_code == 0
    assert rankings(Path("again")) == before


def test_a_run_of_one_server_is_not_gone_on_with_by_another(
    run: Run, earlier: Path, evaluate: Evaluate, server: Answering
) -> None:
    evaluate(server, "vl", earlier / "runs", agent=AGENT)
    with answering(entry=VLLM | {"root": "/models/another"}) as other:
        at = ("--lmm", other.url, "--model", "vl", "--prompts", "fieldnotes", *PNG, "--out", earlier / "runs")
        refused = run("eval", earlier / "noise", "--strategy", "yes-no", *at)
    assert refused.exit_code == 1
    assert "other lmm" in refused.stderr and "version=0.32.0, this is openai:vl#png<=1024#root=" in refused.stderr


def test_answers_that_were_no_answers_are_asked_for_again_once(
    run: Run, earlier: Path, evaluate: Evaluate, server: Answering
) -> None:
    told = evaluate(server, POISONED, Path("healed"))
    assert all(each["unknown"] == 0 for each in told)
    asked = len(server.asked)
    assert 10 < asked < 41, "what can't be used, and what follows from it; not what was fine"
    evaluate(server, POISONED, Path("warm"))
    assert len(server.asked) == asked
    assert rankings(Path("warm")) == rankings(Path("healed"))
    # What the run of then rests on is still there.
    assert run("eval", "--replay", earlier / "poisoned", "--out", "again", "--max-unknown", 1).exit_code == 0
    assert rankings(Path("again")) == rankings(FIXTURE / "poisoned")


def test_verify_names_what_cannot_be_used_and_prune_removes_it(run: Run, earlier: Path) -> None:
    result = run("cache", "verify", "--json")
    assert result.exit_code == 0, "they are no damage"
    found = json.loads(result.stdout)
    assert found["bad"] == {} and len(found["unusable"]) > 5
    reasons = " ".join(found["unusable"].values())
    assert "filter" in reasons and "log-probabilit" in reasons and "JSON" in reasons
    shown = run("cache", "verify")
    assert f"{len(found['unusable'])} can't be used" in shown.stdout and "asked again" in shown.stdout
    assert json.loads(run("cache", "prune", "--bad", "--yes", "--json").stdout)["removed"] == len(found["unusable"])
    # A run that rested on them replays from its own folder as before.
    assert run("eval", "--replay", earlier / "poisoned", "--out", "again", "--max-unknown", 1).exit_code == 0
    assert rankings(Path("again")) == rankings(FIXTURE / "poisoned")


def test_an_altered_answer_is_asked_for_again_and_never_replayed(
    run: Run, earlier: Path, evaluate: Evaluate, server: Answering
) -> None:
    with sqlite3.connect(earlier / "responses.sqlite") as plain:
        changed = plain.execute("UPDATE entries SET response = replace(response, 'yes', 'no ')").rowcount
    plain.close()
    assert changed
    for refused in (
        run("eval", "--replay", earlier / "runs", "--out", "again"),
        run("cache", "export", earlier / "runs", "-o", "altered.fsr"),
    ):
        assert refused.exit_code == 1 and "was altered" in refused.stderr
    evaluate(server, "vl", Path("healed"))
    assert server.asked
    asked = len(server.asked)
    evaluate(server, "vl", Path("warm"))
    assert len(server.asked) == asked


def test_a_server_that_tells_nothing_is_warned_of_once(run: Run, earlier: Path) -> None:
    with answering() as server:
        at = ("--strategy", "yes-no", "--lmm", server.url, "--model", "vl", "--prompts", "fieldnotes", *PNG)
        first, second = (run("eval", earlier / "noise", *at, "--out", name) for name in ("a", "b"))
        assert first.stderr.count("--revision") == 1 and "--revision" not in second.stderr
        assert server.asked == []
        named = run("eval", earlier / "noise", *at, "--revision", "r1", "--out", "c")
        assert "does not tell" not in named.stderr and len(server.asked) == 10


def test_a_run_with_unusable_answers_keeps_none_of_them_and_replays(
    run: Run, earlier: Path, evaluate: Evaluate, server: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDSCOPE_CACHE", "fresh")
    server.ill = True
    (yes_no, agent) = evaluate(server, POISONED, Path("ill"))
    assert yes_no["unknown"] > 3 and agent["unknown"] > 3
    assert json.loads(run("cache", "verify", "--json").stdout)["unusable"] == {}
    assert run("cache", "export", "ill", "-o", "ill.fsr").exit_code == 0
    asked = len(server.asked)
    for source in ("ill", "ill.fsr"):
        assert run("eval", "--replay", source, "--out", f"again-{source}", "--max-unknown", 1).exit_code == 0
        assert rankings(Path(f"again-{source}")) == rankings(Path("ill"))
    assert len(server.asked) == asked
