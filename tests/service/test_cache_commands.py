"""`fieldscope cache`, `eval --replay` and `rescore`: runs carried to a machine that has neither models nor pictures."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import fieldscope.service.wiring.bundled
import fieldscope.service.wiring.fieldnotes
import fieldscope.service.wiring.models
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.cache.store import Entry
from fieldscope.service.cli.main import cli
from fieldscope.service.workflows.cache import age_of, parse_age
from tests.service.conftest import BUNDLED_LMM, Run, Server, World
from tests.service.test_evaluate import parquet, payload

RANKINGS = ("run.trec", "qrels.trec")
ANY = ("--max-unknown", "1")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first test made, for the others."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def exported(run: Run, world: World, kept: Path) -> Path:
    """Three runs of FieldNotes-Rerank in one file, with a user's own strategy among them. Of the agent's calls those
    that should think gave no answer."""
    if (kept / "made").exists():
        shutil.copytree(kept, ".", dirs_exist_ok=True)
        shutil.move("responses.sqlite", world.cache / "responses.sqlite")
        return Path("runs.fsr")
    mine = load_strategy("yes-no-fused", prompts="fieldnotes").model_dump(mode="json", exclude_none=True)
    told = {"name": "mine", "fusion": {**mine["fusion"], "prior_weight": 0.9}, "verify": {"prompt": "match_yes_no"}}
    Path("mine.yaml").write_text(json.dumps(told))  # JSON is YAML
    strategies = ("--strategy", "clip", "agent", "mine.yaml")
    payload(run("eval", "fieldnotes-rerank", *strategies, *ANY, "--json", "--out", "made"))
    told = payload(run("cache", "export", "made", "-o", "runs.fsr", "--json"))
    assert told["model"] == "truthful" and told["counts"]["run"] == 3 and told["counts"]["query"] == 4
    assert told["counts"]["response"] > 48 and told["file_bytes"] == Path("runs.fsr").stat().st_size
    shutil.copytree("made", kept / "made")
    for file in (world.cache / "responses.sqlite", Path("runs.fsr"), Path("mine.yaml")):
        shutil.copy(file, kept)
    return Path("runs.fsr")


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("a replay loads no model and opens no picture")


@pytest.fixture
def elsewhere(exported: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file alone: no cache, no pictures, no model, and whoever would load one fails."""
    Path("mine.yaml").unlink()
    shutil.rmtree(world.cache)
    shutil.rmtree("models")
    for name in ("bundled_lmm", "load_encoder"):
        monkeypatch.setattr(fieldscope.service.wiring.models, name, refuse)
    monkeypatch.setattr(fieldscope.service.wiring.fieldnotes, "load_encoder", refuse)
    monkeypatch.setattr("fieldscope.retrieval.images.open_image", refuse)
    monkeypatch.setattr("fieldscope.retrieval.collection.open_image", refuse)
    world.asked.clear()
    return exported


def lines_of(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def write(file: Path, lines: list[dict[str, Any]]) -> Path:
    """A file whose header fits its lines, as somebody who means harm can make it."""
    body = "".join(json.dumps(line) + "\n" for line in lines[1:]).encode()
    header = {**lines[0], "size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    file.write_bytes(gzip.compress(json.dumps(header).encode() + b"\n" + body))
    return file


def failed(result: Result) -> str:
    """The one line of an error."""
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("note:")]
    assert line.startswith("error: ")
    return line


def test_a_file_alone_ranks_the_same(run: Run, elsewhere: Path, world: World) -> None:
    told = payload(run("eval", "--replay", elsewhere, *ANY, "--json", "--out", "again"))
    assert [each["strategy"] for each in told["runs"]] == ["agent", "clip", "mine"]
    for each in told["runs"]:
        for name in RANKINGS:
            again, made = (Path(out) / each["strategy"] / name for out in ("again", "made"))
            assert again.read_bytes() == made.read_bytes()
        assert each["cost"]["calls"] == each["cost"]["cache_hits"]
    assert world.asked == [] and told["runs"][0]["cost"]["calls"] > 48
    table = run("eval", f"--replay={elsewhere}", "--strategy", "mine", "yes-no")
    assert table.exit_code == 0 and "runs/replayed/fieldnotes-rerank-test" in table.stdout
    assert Path("runs/replayed/fieldnotes-rerank-test/yes-no/run.trec").is_file()


def test_one_response_less(run: Run, elsewhere: Path) -> None:
    lines = lines_of(elsewhere)
    gone = [line for line in lines if line["kind" if "kind" in line else "format"] == "response"][30]
    request = json.loads(gone["request"])
    write(elsewhere, [line for line in lines if line is not gone])
    line = failed(run("eval", "--replay", elsewhere, "--out", "again"))
    assert gone["key"] in line and "was never recorded" in line and "model truthful" in line
    image, question = request["messages"][-1]["content"]
    assert f"images {image['image_id']};" in line and question["text"][-60:] in line
    assert Path("again/clip/metrics.json").is_file(), "what was done before is kept"
    assert "never recorded" in failed(run("eval", "--replay", elsewhere, "--strategy", "true-false"))
    Path("mine.yaml").write_text("name: mine\nverify: {prompt: match_yes_no}\nfusion: {method: p_yes}\n")
    twice = run("eval", "--replay", elsewhere, "--strategy", "mine.yaml", "mine")
    assert "has the same name as a recorded one" in failed(twice)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda content: content[: len(content) // 2], "cut off"),
        *(
            (
                lambda content, at=at: content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :],
                "damaged|altered|cut off",
            )
            for at in (60, 400, 3000)
        ),
        (lambda content: b"\x80\x04cposix\nsystem\n(S'true'\ntR.", "damaged or is not an export"),
        (lambda content: b"", "damaged or is not an export|cut off"),
        (lambda content: gzip.compress(b"0" * 10_000_000), "damaged or is not an export"),
    ],
)
def test_a_file_that_was_harmed(
    run: Run, elsewhere: Path, harm: Callable[[bytes], bytes], words: str, world: World
) -> None:
    elsewhere.write_bytes(harm(elsewhere.read_bytes()))
    for command in (("eval", f"--replay={elsewhere}"), ("cache", "import", elsewhere)):
        line = failed(run(*command))
        assert any(word in line for word in words.split("|")) and "runs.fsr" in line
    assert not (world.cache / "responses.sqlite").exists()


def test_a_file_that_means_harm(run: Run, elsewhere: Path, world: World, tmp_path: Path) -> None:
    lines = lines_of(elsewhere)
    first = next(n for n, line in enumerate(lines) if line.get("kind") == "response")
    other = next(line for line in lines[first:] if line["response"] != lines[first]["response"])
    forged = [*lines[:first], {**lines[first], "key": other["key"]}, *lines[first + 1 :]]
    write(elsewhere, forged)
    assert "was altered (its key is not that of its request)" in failed(run("cache", "import", elsewhere))
    assert not (world.cache / "responses.sqlite").exists()

    def changed(kind: str, **values: Any) -> list[dict[str, Any]]:
        return [{**line, **values} if line.get("kind") == kind else line for line in lines]

    write(elsewhere, changed("benchmark", name="../../up", fingerprint="0" * 64))
    assert "altered" in failed(run("eval", "--replay", elsewhere))
    write(elsewhere, changed("benchmark", rerank="\x1b[2J"))
    assert "not a line of a recording" in failed(run("eval", "--replay", elsewhere))
    definitions = [line["strategy"]["definition"] for line in lines if line.get("kind") == "run"]
    up = {"definition": {**definitions[0], "name": "../up"}}
    write(elsewhere, changed("run", strategy=up))
    assert "can't be read by this version" in failed(run("eval", "--replay", elsewhere))
    write(elsewhere, [*lines, {"kind": "run", "surprise": "\n" * 1000}])
    assert "not a line of a recording" in failed(run("eval", "--replay", elsewhere))
    assert not (tmp_path.parent / "up").exists()


def test_a_run_and_the_cache_replay_too(
    run: Run, exported: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bundled_lmm", "load_encoder"):
        monkeypatch.setattr(fieldscope.service.wiring.models, name, refuse)
    told = payload(run("eval", "--replay", "made", "--strategy", "yes-no", "--json", "--out", "again"))
    assert told["runs"][0]["cost"]["cache_hits"] == 48
    payload(run("eval", "--replay", "made/agent", *ANY, "--json", "--out", "again"))
    assert Path("again/agent/run.trec").read_bytes() == Path("made/agent/run.trec").read_bytes()
    (world.cache / "responses.sqlite").unlink()
    line = failed(run("eval", "--replay", "made/agent"))
    assert "responses are no longer in the response cache" in line and "FIELDSCOPE_CACHE" in line


def test_replay_alone_is_the_cache_without_the_model(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    payload(run("eval", "fieldnotes-rerank", "--strategy", "yes-no", "--json", "--out", "a"))
    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", refuse)
    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_identity", lambda: "truthful")
    for order in (("--replay", "fieldnotes-rerank"), ("fieldnotes-rerank", "--replay")):
        told = payload(run("eval", *order, "--strategy", "yes-no-fused", "--json", "--out", f"b{order[0]}"))
        assert told["runs"][0]["cost"]["cache_hits"] == 48
    assert "never recorded" in failed(run("eval", "fieldnotes-rerank", "--replay", "--strategy", "true-false"))


def test_the_bundled_model_has_its_name_without_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldscope.agent.lmm.local.LocalLMM.from_path", refuse)
    identity = fieldscope.service.wiring.models.bundled_identity()
    assert identity.startswith("local:") and identity.endswith(":float32")
    calibration = json.loads(
        (fieldscope.service.wiring.bundled.bundled_folder("lmm").parent / "calibration.json").read_bytes()
    )
    assert identity in {each["key"]["model"] for each in calibration}, "it is the one that was fitted"
    assert BUNDLED_LMM is not refuse


def test_a_server_is_replayed_elsewhere(
    run: Run, photos: Path, world: World, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {name: (photos / name).read_bytes() for name in ("blue.png", "red.png", "below/red.png")}
    mine = parquet(tmp_path / "my own & pictures", images, {"a red crab": ["red.png", "below/red.png"]})
    payload(run("eval", mine, "--strategy", "yes-no", "--lmm", server.url, "--model", "vl", "--json", "--out", "o"))
    payload(run("cache", "export", "o/yes-no", "-o", "deep/down/x.fsr", "--json"))
    shutil.rmtree(mine)
    asked = len(server.bodies)
    told = payload(run("eval", "--replay", "deep/down/x.fsr", "--json"))
    assert told["runs"][0]["metrics"]["MRR"] == 1 and len(server.bodies) == asked
    out = Path(told["runs"][0]["out"])
    assert out == Path("runs/replayed/my-own-pictures-test/yes-no")
    assert (out / "run.trec").read_bytes() == Path("o/yes-no/run.trec").read_bytes()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("eval", "--replay", "made", "fieldnotes"), "has its own benchmark; leave 'fieldnotes' out"),
        (("eval", "--replay", "made", "--split", "validation"), "has the split 'test'"),
        (("eval", "--replay", "made", "--dry-run"), "asks no model"),
        (("eval", "--replay", "made", "--cache", "refresh"), "leave --cache refresh out"),
        (("eval", "--replay", "made", "--lmm", "http://localhost:1", "--model", "m"), "leave --lmm, --encoder and --scorer out"),
        (("eval", "--replay"), "Missing argument 'BENCHMARK'"),
        (("eval", "--strategy", "clip"), "Missing argument 'BENCHMARK'"),
        (("cache", "prune"), "not clear what to remove"),
        (("cache", "prune", "--bad", "--older-than", "1d"), "not clear what to remove"),
        (("cache", "prune", "--older-than", "soon"), "write hours, days or weeks"),
        (("cache", "prune", "--older-than", "1d", "--json"), "can't ask"),
    ],
)
def test_what_does_not_go_together(run: Run, exported: Path, args: tuple[str, ...], words: str) -> None:
    result = run(*args)
    assert result.exit_code == 2 and words in " ".join(result.stderr.split())


def test_what_is_not_there(run: Run, world: World) -> None:
    assert "nowhere.fsr does not exist" in failed(run("eval", "--replay", "nowhere.fsr"))
    assert "holds no run" in failed(run("cache", "export", "nowhere", "-o", "x.fsr"))
    assert "can't read nowhere.fsr" in failed(run("cache", "import", "nowhere.fsr"))


def test_import_and_replay_from_the_cache(run: Run, exported: Path, world: World) -> None:
    before = payload(run("cache", "stats", "--json"))["entries"]
    store = SqliteStore(world.cache / "responses.sqlite")
    store.remove([entry.key for entry in store.entries()][::2])
    store.close()
    told = payload(run("cache", "import", exported, "--json"))
    assert told["responses"] == before and told["new"] == (before + 1) // 2
    assert "0 of them new" in run("cache", "import", exported).stdout
    assert payload(run("cache", "stats", "--json"))["entries"] == before
    assert "0 bad" in run("cache", "verify").stdout


def test_only_a_file_with_answers_is_imported(run: Run, world: World) -> None:
    payload(run("eval", "fieldnotes-rerank", "--strategy", "clip", "--json", "--out", "made"))
    payload(run("cache", "export", "made", "-o", "x.fsr", "--json"))
    assert "holds no responses" in failed(run("cache", "import", "x.fsr"))
    payload(run("eval", "--replay", "x.fsr", "--json", "--out", "again"))
    line = failed(run("eval", "--replay", "x.fsr", "--strategy", "yes-no"))
    assert "the recorded runs asked no model" in line


def test_rescore(run: Run, exported: Path, world: World) -> None:
    Path("half.yaml").write_text(
        "name: half\nverify: {prompt: match_yes_no}\nfusion: {method: log_odds, prior_weight: 0.5}\n"
    )
    asked = len(world.asked)
    told = payload(run("rescore", "made/mine", "--strategy", "half.yaml", "yes-no", "-o", "new", "--json"))
    assert [each["strategy"] for each in told["runs"]] == ["half", "yes-no"]
    assert told["runs"][0]["cost"]["calls"] == 48 and len(world.asked) == asked
    payload(run("eval", "fieldnotes-rerank", "--strategy", "half.yaml", "--json", "--out", "run"))
    assert Path("new/half/run.trec").read_bytes() == Path("run/half/run.trec").read_bytes()
    shown = run("rescore", "made/agent", "-o", "same", "--reread")
    assert shown.exit_code == 0 and "Runs are in same" in shown.stdout
    assert Path("same/agent/run.trec").read_bytes() == Path("made/agent/run.trec").read_bytes()
    assert "another configuration" in failed(run("rescore", "made/agent", "-o", "same"))
    assert "asks with the prompt 'match_true_false'" in failed(
        run("rescore", "made/mine", "--strategy", "true-false", "-o", "new")
    )
    assert "is not a run's folder" in failed(run("rescore", "made", "-o", "new"))
    assert run("trace", "new/half", "q000").exit_code == 0
    (world.cache / "responses.sqlite").unlink()
    assert "leave --reread out" in failed(run("rescore", "made/agent", "-o", "more", "--reread"))


def test_rescore_with_another_calibration(run: Run, exported: Path) -> None:
    from fieldscope.agent.calibration import Calibration, calibration_key

    encoder = json.loads(Path("made/agent/manifest.json").read_text())["configuration"]["encoder"]
    key = calibration_key("truthful", load_strategy("agent", prompts="fieldnotes"), encoder)
    fit = Calibration(key=key, prior_weight=9.0, split="validation")
    Path("fit.json").write_text(json.dumps([fit.model_dump(mode="json")]))
    payload(run("rescore", "made/agent", "--calibration", "fit.json", "-o", "new", "--json"))
    assert Path("new/agent/run.trec").read_bytes() != Path("made/agent/run.trec").read_bytes()
    Path("fit.json").write_text("[]")
    assert "has no calibration for" in failed(run("rescore", "made/agent", "--calibration", "fit.json", "-o", "no"))


def aged(world: World, **ages: int) -> Path:
    """A cache with an answer of each model, so many days old."""
    path = world.cache / "responses.sqlite"
    store = SqliteStore(path)
    for model, days in ages.items():
        date = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
        store.put(Entry(model, "{}", "{}" * 1000, json.dumps({"model": model, "asked_at": date})))
    store.put(Entry("undated", "{}", "{}", '{"model":"undated"}'))
    store.close()
    return path


def left(run: Run) -> set[str]:
    return set(payload(run("cache", "stats", "--json"))["by_model"])


def test_stats_tell_sizes_and_ages(run: Run, world: World) -> None:
    aged(world, new=0, old=40)
    told = payload(run("cache", "stats", "--json"))
    assert told["entries"] == 3 and told["models"]["old"]["entries"] == 1
    assert 2000 < told["models"]["old"]["size_bytes"] < 2200
    assert told["models"]["old"]["oldest"] == told["models"]["old"]["newest"] < told["models"]["new"]["oldest"]
    assert told["models"]["undated"]["oldest"] is None
    shown = run("cache", "stats").stdout
    assert "40 d" in shown and "0 min" in shown


def test_prune_by_age_and_model(run: Run, world: World) -> None:
    aged(world, new=0, old=40, older=80, other=80)
    told = payload(run("cache", "prune", "--older-than", "60d", "--dry-run", "--json"))
    assert told == {"matching": 3, "removed": 0, "freed_bytes": 0}
    assert "nothing was removed" in run("cache", "prune", "--older-than", "60d", "--dry-run").stderr
    assert len(left(run)) == 5
    assert payload(run("cache", "prune", "--older-than", "60d", "--model", "old", "--yes", "--json"))["removed"] == 1
    assert left(run) == {"new", "old", "other", "undated"}
    assert payload(run("cache", "prune", "--older-than", "6w", "--yes", "--json"))["removed"] == 2
    assert left(run) == {"new", "old"}, "what says no date counts as old"
    assert "nothing to remove" in run("cache", "prune", "--model", "nobody", "--yes").stdout
    assert "removed 1 answers" in run("cache", "prune", "--model", "old", "--yes").stdout
    assert left(run) == {"new"}


def test_prune_asks_first(world: World) -> None:
    path = aged(world, old=40)
    for answer in ("n\n", ""):
        result = CliRunner().invoke(cli, ["cache", "prune", "--older-than", "1d"], input=answer)
        assert result.exit_code == 1 and "Remove them?" in result.output
    store = SqliteStore(path)
    assert store.stats().entries == 2
    store.close()
    result = CliRunner().invoke(cli, ["cache", "prune", "--older-than", "1d"], input="y\n")
    assert result.exit_code == 0 and "removed 2 answers" in result.output


def test_verify_finds_what_is_bad_and_prune_removes_it(run: Run, exported: Path, world: World) -> None:
    path = world.cache / "responses.sqlite"
    store = SqliteStore(path)
    one, two, three, four = list(store.entries())[:4]
    store.put(Entry(one.key, one.request, '{"txt":', one.provenance), replace=True)
    store.put(Entry(two.key, three.request, two.response, two.provenance), replace=True)
    store.put(Entry(three.key, three.request, three.response.replace("0.", "0.0"), three.provenance), replace=True)
    store.put(Entry(four.key, four.request, four.response, '{"model":"another"}'), replace=True)
    total = store.stats().entries
    store.close()
    result = run("cache", "verify", "--json")
    assert result.exit_code == 1 and "cache prune --bad" in result.stderr
    told = json.loads(result.stdout)
    assert told["entries"] == total and told["file"] == []
    assert told["bad"] == {
        one.key: "it can't be read",
        two.key: "its key is not that of its request",
        three.key: "its response was altered",
        four.key: "its key is not that of its request",
    }
    assert f"{one.key[:12]}: it can't be read" in run("cache", "verify").stdout
    assert payload(run("cache", "prune", "--bad", "--yes", "--json"))["removed"] == 4
    assert payload(run("cache", "verify", "--json"))["entries"] == total - 4
    payload(run("cache", "import", exported, "--json"))
    assert payload(run("cache", "verify", "--json"))["entries"] == total


def test_a_cache_that_is_not_there(run: Run, world: World) -> None:
    assert payload(run("cache", "verify", "--json"))["entries"] == 0
    assert payload(run("cache", "prune", "--older-than", "1h", "--yes", "--json"))["removed"] == 0
    assert not (world.cache / "responses.sqlite").exists()


def test_ages() -> None:
    assert [parse_age(text) for text in ("12h", "30d", "8w")] == [
        timedelta(hours=12),
        timedelta(days=30),
        timedelta(weeks=8),
    ]
    for text in ("", "3", "d", "-1d", "1y", "1.5d", "9999999d"):
        with pytest.raises(ValueError, match="no age"):
            parse_age(text)
    now = datetime(2026, 3, 1, tzinfo=UTC)
    for date, age in (("02-01T00:00:00", "28 d"), ("02-28T20:30:00", "3 h"), ("02-28T23:59:30", "0 min")):
        assert age_of(f"2026-{date}+00:00", now) == age
    assert [age_of(date, now) for date in (None, "soon", "2026-01-01")] == ["-", "-", "-"]
