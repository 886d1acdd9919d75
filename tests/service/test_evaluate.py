"""`fieldscope eval` and `fieldscope demo`: benchmarks by name and by path, the bundled models and a server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

import fieldscope.fieldnotes.vocabulary
import fieldscope.service.wiring.bundled
import fieldscope.service.wiring.models
from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.agent.trace import result_from_json
from fieldscope.eval.measures.scoring import HEADLINE
from fieldscope.fieldnotes.rerank import SCHEMA
from fieldscope.service.cli.commands.demo import FULL_STRATEGIES
from tests.service.conftest import BUNDLED_LMM, CRABS, MODELS, OWL, Run, Server, World, completion, redness
from tests.service.test_cli import PROGRAM
from tests.waiting import PATIENCE

COST = ["calls", "prompt_tokens", "completion_tokens", "cache_hits", "seconds"]


def payload(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def parquet(folder: Path, images: dict[str, bytes], queries: dict[str, list[str]]) -> Path:
    """A file of INQUIRE-Rerank's shape: every query over all images, relevant those that are named."""
    rows = [
        {
            **{field.name: "" if pa.types.is_string(field.type) else 0 for field in SCHEMA},
            "image": {"bytes": data, "path": name},
            "query": text,
            "relevant": int(name in relevant),
            "clip_score": -number / 10,
            "inat24_image_id": number,
            "supercategory": "Species",
        }
        for text, relevant in queries.items()
        for number, (name, data) in enumerate(images.items())
    ]
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "test-00000-of-00001.parquet")
    return folder


@pytest.fixture
def foreign(photos: Path, tmp_path: Path) -> Path:
    """Photographs in INQUIRE-Rerank's shape; the first stage likes the blue one best."""
    images = {name: (photos / name).read_bytes() for name in ("blue.png", "red.png", "below/red.png")}
    return parquet(tmp_path / "mine", images, {"a red crab": ["red.png", "below/red.png"], "a red fish": ["red.png"]})


@pytest.fixture
def own(world: World, tmp_path: Path) -> Path:
    """FieldNotes' own pictures in INQUIRE-Rerank's shape."""
    images = {path.name: path.read_bytes() for path in sorted(world.pictures.glob("*.png"))}
    return parquet(tmp_path / "own", images, {CRABS: ["000001.png", "000002.png"], OWL: ["000005.png", "000006.png"]})


def test_the_model_that_looks_is_better(run: Run, world: World) -> None:
    result = run("eval", "fieldnotes-rerank", "--strategy", "clip", "yes-no", "--json")
    told = payload(result)
    assert list(told) == ["benchmark", "split", "runs"]
    assert (told["benchmark"], told["split"]) == ("fieldnotes-rerank", "test")
    assert [r["strategy"] for r in told["runs"]] == ["clip", "yes-no"]
    for each in told["runs"]:
        against = [] if each is told["runs"][0] else ["against_first"]
        assert list(each) == [
            "strategy", "prior", "metrics", "by_supercategory", "intervals", *against, "breakdowns", "cost", "unknown",
            "ended", "scored_on_test", "out",
        ]  # fmt: skip
        assert tuple(each["metrics"])[: len(HEADLINE)] == HEADLINE and "near-misses@10" in each["metrics"]
        assert list(each["by_supercategory"]) == ["Appearance", "Behavior", "Context", "Species"]
        assert list(each["cost"]) == COST
        assert (Path(each["out"]) / "run.trec").is_file()
    clip, yes_no = told["runs"]
    assert 0 < clip["metrics"]["mAP@50"] <= 1
    assert yes_no["metrics"]["mAP@50"] == 1
    assert (clip["cost"]["calls"], yes_no["cost"]["calls"]) == (0, 48)
    assert Path(yes_no["out"]) == Path("runs/fieldnotes-rerank-test/yes-no")
    assert len(world.asked) == 48
    assert result.stderr == ""


def test_the_same_again_asks_nothing(run: Run, world: World) -> None:
    first = payload(run("eval", "fieldnotes-rerank", "--strategy", "yes-no", "--json", "--out", "a"))["runs"][0]
    again = payload(run("eval", "fieldnotes-rerank", "--strategy", "yes-no", "--json", "--out", "a"))["runs"][0]
    other = payload(run("eval", "fieldnotes-rerank", "--strategy", "yes-no-fused", "--json", "--out", "b"))["runs"][0]
    assert len(world.asked) == 48
    assert first["metrics"] == again["metrics"]
    assert [r["cost"]["cache_hits"] for r in (first, again, other)] == [0, 48, 48]
    payload(run("eval", "fieldnotes-rerank", "--strategy", "yes-no", "--json", "--out", "c", "--cache", "refresh"))
    assert len(world.asked) == 96


def test_a_strategy_alone_or_beside_others_is_the_same_run(run: Run, world: World) -> None:
    payload(run("eval", "fieldnotes-rerank", "--strategy", "clip", "--json", "--out", "a"))
    told = payload(
        run("eval", "fieldnotes-rerank", "--strategy", "yes-no", "--strategy", "clip", "--json", "--out", "a")
    )
    assert [r["strategy"] for r in told["runs"]] == ["yes-no", "clip"]


def test_full_retrieval_says_what_the_first_stage_found(run: Run, world: World) -> None:
    told = payload(run("eval", "fieldnotes", "--strategy", "clip", "yes-no-fused", "--json"))
    assert [r["metrics"]["first-stage recall@100"] for r in told["runs"]] == [1, 1]
    table = run("eval", "fieldnotes", "--strategy", "clip", "yes-no-fused")
    assert table.exit_code == 0
    assert "first-stage recall@100: 100.0" in table.stdout
    assert "runs/fieldnotes-test" in table.stdout


def test_a_part_of_the_queries(run: Run, world: World) -> None:
    payload(run("eval", "fieldnotes-rerank", "--strategy", "yes-no", "--limit", "1", "--json"))
    assert len(world.asked) == 12


def test_ones_own_parquet_files_of_fieldnotes_pictures(run: Run, own: Path, world: World) -> None:
    result = run("eval", own, "--strategy", "clip", "yes-no", "--json")
    told = payload(result)
    assert told["runs"][1]["metrics"]["mAP@50"] == 1
    assert "flags" not in told
    assert result.stderr == ""


def test_foreign_pictures_are_flagged_once(run: Run, foreign: Path, world: World) -> None:
    result = run("eval", foreign, "--strategy", "clip", "yes-no", "--json")
    told = payload(result)
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["warning"]
    assert "FieldNotes" in result.stderr
    assert told["flags"] == [fieldscope.service.wiring.bundled.FOREIGN]
    for each in told["runs"]:
        lines = (Path(each["out"]) / "results.jsonl").read_text().splitlines()
        wanted = (fieldscope.service.wiring.bundled.FOREIGN,) if each["strategy"] == "yes-no" else ()
        assert {result_from_json(line).flags for line in lines} == {wanted}


def test_the_prior_alone_needs_no_model_and_no_warning(run: Run, foreign: Path, world: World) -> None:
    result = run("eval", foreign, "--strategy", "clip", "--json")
    assert payload(result)["runs"][0]["cost"]["calls"] == 0
    assert result.stderr == ""


def test_words_that_the_bundled_model_never_saw(
    run: Run, photos: Path, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(fieldscope.service.wiring.models, "bundled_lmm")
    path = parquet(
        tmp_path / "p", {"a.png": (photos / "red.png").read_bytes()}, {"a hermit crab": [], "a purple hermit": []}
    )
    result = run("eval", path, "--strategy", "yes-no")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "'hermit', 'purple'" in result.stderr and "'crab'" not in result.stderr
    assert "--lmm" in result.stderr


def test_a_server_of_ones_own(run: Run, foreign: Path, server: Server, world: World) -> None:
    at = ("--lmm", server.url, "--model", "vl")
    result = run("eval", foreign, "--strategy", "clip", "yes-no", *at, "--json")
    clip, yes_no = payload(result)["runs"]
    assert result.stderr == ""
    assert yes_no["metrics"]["mAP@50"] > clip["metrics"]["mAP@50"]
    assert yes_no["metrics"]["MRR"] == 1
    assert yes_no["cost"]["prompt_tokens"] == 6 * 70
    assert len(server.bodies) == 6


def test_a_server_without_a_list_of_models_will_do(run: Run, foreign: Path, server: Server, world: World) -> None:
    server.models = (404, "{}")
    assert payload(run("eval", foreign, "--strategy", "yes-no", "--lmm", server.url, "--model", "any", "--json"))


def test_the_key_comes_from_the_environment(
    run: Run, foreign: Path, server: Server, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDSCOPE_API_KEY", "secret")
    payload(run("eval", foreign, "--strategy", "yes-no", "--lmm", server.url, "--model", "vl", "--json"))
    assert {headers["authorization"] for headers in server.headers} == {"Bearer secret"}


@pytest.mark.parametrize("command", ["eval", "rerank"])
def test_a_server_that_is_not_there_is_said_at_once(
    run: Run, foreign: Path, photos: Path, nobody: str, world: World, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = {
        "eval": ("eval", foreign, "--strategy", "clip", "yes-no"),
        "rerank": ("rerank", "--query", "anything", "--images", photos),
    }

    async def ask(self: OpenAILMM, request: LMMRequest) -> tuple[float, str]:
        raise AssertionError("a question was put to a server that is not there")

    monkeypatch.setattr(OpenAILMM, "exchange", ask)
    result = run(*lines[command], "--lmm", nobody, "--model", "vl")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: can't reach {nobody}")
    assert result.stderr.count("\n") == 1
    assert not Path("runs").exists()


def test_a_server_that_serves_another_model(run: Run, foreign: Path, server: Server, world: World) -> None:
    result = run("eval", foreign, "--lmm", server.url, "--model", "lv")
    assert result.exit_code == 1
    assert "serves vl, not lv" in result.stderr


@pytest.mark.parametrize(
    ("reply", "hint"),
    [
        ((200, "<html>welcome</html>"), "no chat completion"),
        ((200, completion("Yes")), "no log-probabilities"),
        ((400, '{"error": {"message": "too many images"}}'), "too many images"),
    ],
)
def test_a_server_whose_answers_are_of_no_use(
    run: Run, foreign: Path, server: Server, world: World, reply: tuple[int, str], hint: str
) -> None:
    server.answer = lambda body: reply
    result = run("eval", foreign, "--strategy", "clip", "yes-no", "--lmm", server.url, "--model", "vl", "--out", "o")
    assert result.exit_code == 1
    assert hint in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: yes-no: ")
    assert (Path("o") / "clip" / "metrics.json").is_file()  # what was done is kept
    server.answer = redness
    told = payload(
        run("eval", foreign, "--strategy", "yes-no", "--lmm", server.url, "--model", "vl", "--out", "o", "--json")
    )
    assert told["runs"][0]["metrics"]["MRR"] == 1


def test_replay_needs_no_server(run: Run, foreign: Path, server: Server, nobody: str, world: World) -> None:
    payload(run("eval", foreign, "--strategy", "yes-no", "--lmm", server.url, "--model", "vl", "--json"))
    again = ("eval", foreign, "--lmm", nobody, "--model", "vl", "--cache", "replay")
    told = payload(run(*again, "--strategy", "yes-no-fused", "--out", "other", "--json"))
    assert told["runs"][0]["cost"]["cache_hits"] == 6
    missing = run("eval", foreign, "--lmm", nobody, "--model", "unheard", "--cache", "replay", "--out", "third")
    assert missing.exit_code == 1
    assert "never recorded" in missing.stderr


@pytest.mark.parametrize(("share", "code"), [(None, 1), ("0.33", 1), ("0.34", 0)])
def test_unknown_answers_are_counted_and_too_many_are_an_error(
    run: Run, foreign: Path, server: Server, world: World, share: str | None, code: int
) -> None:
    replies = iter([(400, "{}"), (400, "{}")])
    server.answer = lambda body: next(replies, None) or redness(body)
    allowed = ("--max-unknown", share) if share else ()
    result = run("eval", foreign, "--strategy", "yes-no", "--lmm", server.url, "--model", "vl", "--json", *allowed)
    assert result.exit_code == code
    told = json.loads(result.stdout)["runs"][0]
    assert told["unknown"] == 2
    assert (Path(told["out"]) / "metrics.json").is_file()
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{'error' if code else 'warning'}: yes-no: 2 of 6 calls failed (33.3 %)")
    assert ("--max-unknown" in line) == bool(code)
    again = run("eval", foreign, "--strategy", "yes-no", "--lmm", server.url, "--model", "vl", "--json", *allowed)
    assert payload(again)["runs"][0]["unknown"] == 0


def test_two_strategies_of_one_name(run: Run, tmp_path: Path, world: World) -> None:
    (tmp_path / "mine.yaml").write_text("name: clip\nfusion: {method: prior}\n")
    result = run("eval", "fieldnotes-rerank", "--strategy", "clip", tmp_path / "mine.yaml")
    assert result.exit_code == 1
    assert "2 strategies have the name 'clip'" in result.stderr


def test_files_of_another_shape(run: Run, tmp_path: Path, world: World) -> None:
    pq.write_table(pa.table({"query": ["a crab"]}), tmp_path / "wrong.parquet")
    result = run("eval", tmp_path / "wrong.parquet")
    assert result.exit_code == 1
    assert "lacks image" in result.stderr


@pytest.mark.slow  # two processes
def test_a_stopped_evaluation_goes_on(foreign: Path, server: Server, tmp_path: Path) -> None:
    in_the_middle, interrupted = threading.Event(), threading.Event()

    def slowly(body: dict[str, Any]) -> tuple[int, str]:
        if len(server.bodies) == 2:
            in_the_middle.set()
            interrupted.wait(PATIENCE)
        return redness(body)

    server.answer = slowly
    line = [*PROGRAM, "eval", str(foreign), "--strategy", "yes-no", "--lmm", server.url, "--model", "vl", "--json"]
    line += ["--concurrency", "1", "--out", str(tmp_path / "o")]
    environment = {**os.environ, "FIELDSCOPE_CACHE": str(tmp_path / "cache")}
    # A test run that was started in the background ignores SIGINT, and so would its children.
    process = subprocess.Popen(
        line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    assert in_the_middle.wait(PATIENCE)
    process.send_signal(signal.SIGINT)
    interrupted.set()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    kept = f"finished queries are kept in {tmp_path / 'o'}; rerun this command to continue"
    assert err.startswith(f"error: interrupted; {kept}. ")
    assert err.count("\n") == 1
    assert out == ""
    server.answer = redness
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["runs"][0]["metrics"]["MRR"] == 1
    asked = [json.dumps(body["messages"]) for body in server.bodies]
    assert len(asked) == len(set(asked)) == 6


@pytest.fixture
def real_models(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled LMM in the place of the truthful one: it can think, compare and give reasons."""
    monkeypatch.setattr(fieldscope.fieldnotes.vocabulary, "MODELS", MODELS)
    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", BUNDLED_LMM)
    fieldscope.fieldnotes.vocabulary.known_words.cache_clear()


@pytest.mark.usefixtures("real_models")
def test_the_demo_shows_reasons_the_gain_and_where_to_read_on(run: Run) -> None:
    first = run("demo")
    assert first.exit_code == 0, first.stderr
    assert " rose from rank " in first.stdout
    assert " sank from rank " in first.stdout
    assert "gain in points [95 % interval]" in first.stdout
    assert "The agent took mAP@50 from" in first.stdout
    assert "fieldscope view runs/demo" in first.stdout
    assert "http://127.0.0.1:8600" in first.stdout
    read_on = first.stdout.splitlines()[-1].split()
    assert read_on[:3] == ["fieldscope", "trace", "runs/demo/agent"]
    trace = run(*read_on[1:])
    assert trace.exit_code == 0
    again = run("demo")
    calls, of = re.search(r"([\d,]+) of ([\d,]+) answers came from the cache", again.stdout).groups()
    assert calls == of
    numbers = [re.sub("This took.*", "", result.stdout) for result in (first, again)]
    assert numbers[0] == numbers[1]


@pytest.mark.usefixtures("real_models")
def test_the_full_demo_has_every_strategy_and_the_first_stage_alone(run: Run) -> None:
    full = run("demo", "--full", "--limit", 2)
    assert full.exit_code == 0, full.stderr
    assert {path.name for path in Path("runs/demo").iterdir()} == {*FULL_STRATEGIES, "fieldnotes"}
    assert "The first stage alone, over the whole collection: mAP@50" in full.stdout


def test_the_demo_writes_pictures_that_the_bundled_models_know(run: Run, world: World, tmp_path: Path) -> None:
    written = run("demo", "--pictures", tmp_path / "pictures")
    assert written.exit_code == 0, written.stderr
    assert written.stdout == f"12 pictures are in {tmp_path / 'pictures'}.\n"
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 12
    assert world.asked == []
