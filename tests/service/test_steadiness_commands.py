"""`fieldscope measure repeat` and `measure paraphrase`, with a server that draws its answers, and with FieldNotes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

import fieldscope.service.wiring.models
from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.trace import result_from_json
from fieldscope.core.types import ImageSource
from fieldscope.fieldnotes.rerank import SCHEMA
from tests.service.conftest import CRABS, FOX, RELEVANT, Run, Server, World, completion
from tests.service.conftest import Answer as Reply

STEADY = ("--strategy", "yes-no", "--json")


@pytest.fixture
def files(world: World, tmp_path: Path) -> Path:
    """FieldNotes' dozen pictures as another benchmark, for two queries."""
    rows = [
        {
            **{field.name: "" if pa.types.is_string(field.type) else 0 for field in SCHEMA},
            "image": {"bytes": path.read_bytes(), "path": path.name},
            "query": text,
            "relevant": int(str(int(path.stem)) in RELEVANT[text]),
            "clip_score": -number / 10,
            "inat24_image_id": number,
        }
        for text in (CRABS, FOX)
        for number, path in enumerate(sorted(world.pictures.glob("*.png")), start=1)
    ]
    folder = tmp_path / "files"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "test-00000-of-00001.parquet")
    return folder


def drawn(body: dict[str, Any]) -> Reply:
    """An answer that the seed decides: every other seed says no."""
    likely, other = ("Yes", "No") if (body["seed"] >> 16) % 2 == 0 else ("No", "Yes")
    top = [{"token": likely, "logprob": -0.1}, {"token": other, "logprob": -2.4}]
    return 200, completion(likely, {"content": [{**top[0], "top_logprobs": top}]})


def payload(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def test_every_draw_asks_under_its_own_seed_and_is_remembered_by_it(run: Run, files: Path, server: Server) -> None:
    server.answer = drawn
    asking = ("measure", "repeat", files, *STEADY, "--lmm", server.url, "--model", "vl", "--draws", 3, "--out", "out")
    told = payload(run(*asking))
    asked = [body for body in server.bodies if body["messages"]]
    assert {body["seed"] for body in asked} >= {0, 1 << 16, 2 << 16}
    by_seed = [sum(body["seed"] == seed << 16 for body in asked) for seed in range(3)]
    assert by_seed[1] == by_seed[2] == 24  # all pairs again; the first draw has the probes beside them
    # The second draw says the other of every verdict, the third the same again.
    assert told["flips"]["value"] == 0.5 and told["flips"]["of"] == 48
    assert told["first_place"]["value"] == 0  # all verdicts alike, so the prior decides
    before = len(server.bodies)
    assert payload(run(*asking)) == told
    assert not [body for body in server.bodies[before:] if body["seed"] >> 16]  # continued, not asked again
    manifest = json.loads(Path("out/draw-3/yes-no/manifest.json").read_text())
    assert manifest["configuration"]["seed"] == 2
    with Path("out/repeat.csv").open() as stream:
        assert [row["number"] for row in csv.DictReader(stream)] == ["1", "2", "3"] * 2


def test_a_draw_is_replayed_under_its_seed(run: Run, files: Path, server: Server) -> None:
    server.answer = drawn
    asking = ("--lmm", server.url, "--model", "vl", "--draws", 2, "--out", "out")
    payload(run("measure", "repeat", files, *STEADY, *asking))
    before = len(server.bodies)
    payload(run("eval", "--replay", "out/draw-2/yes-no", "--json", "--out", "again"))
    assert len(server.bodies) == before
    own, again = (
        [result_from_json(line) for line in (Path(folder) / "yes-no" / "results.jsonl").read_text().splitlines()]
        for folder in ("out/draw-2", "again")
    )
    assert {r.query_id: r.ranking for r in own} == {r.query_id: r.ranking for r in again}


def test_a_model_that_answers_alike_flips_nothing_and_the_table_fits(run: Run, files: Path, world: World) -> None:
    result = run("measure", "repeat", "fieldnotes-rerank", "--strategy", "yes-no", "--draws", 2, "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 100
    flips = next(line.split() for line in result.stdout.splitlines() if "change sides" in line)
    assert flips[-5:-3] == ["0.0", "%"] and float(flips[-1]) > 0  # four queries can't rule a flip out
    assert "AP@50, best less worst of a query: mean" in result.stdout


def test_what_asks_nothing_is_not_repeated(run: Run, world: World) -> None:
    result = run("measure", "repeat", "fieldnotes-rerank", "--strategy", "clip", "--out", "out")
    assert result.exit_code == 1
    assert "'clip' asks no model, so every draw is the same; name one that asks" in result.stderr


def test_fieldnotes_queries_are_ranked_in_other_words(run: Run, world: World) -> None:
    told = payload(run("measure", "paraphrase", "fieldnotes-rerank", *STEADY, "--number", 2, "--out", "out"))
    assert told["queries"] == 3 and told["rankings"] == 3 and told["flips"] is None  # one is not of the grammar
    texts = told["per_query"]["q000"]["texts"]
    assert texts[0] == CRABS and len(set(texts)) == 3
    for text in texts:
        assert sum(text in request.text for request in world.asked) == 12  # about every picture
    assert len(told["per_query"]["q000"]["values"]) == 3
    assert told["spread"]["lowest"] <= told["spread"]["first"] == 1
    # The first stage reads the other words, too.
    own = [Path(f"out/wording-{n}/yes-no/inputs.jsonl").read_text().splitlines()[2] for n in (1, 2)]
    assert json.loads(own[0])["priors"] != json.loads(own[1])["priors"]


def test_full_retrieval_is_searched_in_other_words(run: Run, world: World) -> None:
    told = payload(run("measure", "paraphrase", "fieldnotes", "--strategy", "clip", "--json", "--out", "out"))
    assert told["queries"] == 3 and told["rankings"] > 2


def test_wordings_come_from_a_file(run: Run, files: Path, world: World, tmp_path: Path) -> None:
    file = tmp_path / "wordings.yaml"
    file.write_text(f"q000: [a pair of red crabs]\n{FOX}:\n- a fox on snow\n- {FOX}\n")
    asking = ("measure", "paraphrase", files, "--strategy", "clip", "--json", "--out", "out", "--wordings", file)
    result = run(*asking)
    told = payload(result)
    assert {q: own["texts"] for q, own in told["per_query"].items()} == {
        "q000": [CRABS, "a pair of red crabs"], "q001": [FOX, "a fox on snow"],
    }  # fmt: skip
    assert told["places"]["value"] == 0  # the files' scores stay
    assert "first stage's scores stay those of the first wording; name its encoder with --encoder" in result.stderr
    for text, said in (
        ("q000: a crab", "has no list of texts"),
        ("q9: [a crab]", "names none of the queries"),
        ("- a crab", "must be a YAML mapping"),
    ):
        file.write_text(text)
        refused = run(*asking)
        assert refused.exit_code == 1 and said in refused.stderr


def test_other_benchmarks_are_described_by_the_model(
    run: Run, files: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: LMMRequest) -> Answer:
        if request.images:
            return 0.5
        if FOX in request.text:
            return "?"  # it can't think about this one
        told = dict.fromkeys(("thought", "core", "detailed"), CRABS) | {"comprehensive": "a red crab and a red crab"}
        fact = {"text": "a crab", "words": "crabs", "type": "addition"}
        return LMMResponse(text=json.dumps(told | {"instructions": [fact]}))

    def writer(images: ImageSource) -> LMM:
        return ScriptedLMM(answer, identity="a writer")

    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", writer)
    result = run("measure", "paraphrase", files, *STEADY, "--out", "out")
    told = payload(result)
    assert told["queries"] == 1 and told["per_query"]["q000"]["texts"] == [CRABS, "a red crab and a red crab"]
    assert "nothing checks that they mean the same" in result.stderr
    assert "1 of 2 queries have no other wording and are left out" in result.stderr


def test_a_change_to_a_reference_needs_a_file(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldscope.service.workflows.wordings.scenes_of", lambda benchmark, split: {})
    monkeypatch.setattr("fieldscope.fieldnotes.paraphrases.read_query", lambda text: None)
    result = run("measure", "paraphrase", "fieldnotes-rerank", "--strategy", "clip", "--out", "out")
    assert result.exit_code == 1
    assert "no query of fieldnotes-rerank has another wording; give some with --wordings FILE" in result.stderr
