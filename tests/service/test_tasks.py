"""Composed and dialogue tasks, and captions, from the command line, with the bundled CLIP over a dozen pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fieldscope.fieldnotes.collection
import fieldscope.fieldnotes.rerank
import fieldscope.retrieval.background
import fieldscope.service.wiring.bundled
import fieldscope.service.wiring.models
from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.trace import result_from_json
from fieldscope.core.errors import ConfigError, LMMServerError
from fieldscope.core.types import ImageSource, Search, Turn
from fieldscope.eval.runs.inputs import QueryLine, benchmark_lines
from fieldscope.fieldnotes.facts import Spec, describe
from fieldscope.fieldnotes.queries import BenchmarkQuery, Split
from fieldscope.fieldnotes.wild.queries import WildQuery
from fieldscope.fieldnotes.wild.scene import Conditions
from fieldscope.retrieval.library import open_library
from fieldscope.service.wiring.benchmarks import NAMES, open_workload
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.reports import load_run
from tests.service.conftest import SCENES, Run, World


def query(id: str, text: str, spec: Spec, **more: Any) -> BenchmarkQuery:
    return BenchmarkQuery(id, text, spec, "Context", "Weather", **more)


ROUNDS = (Turn(question="what is the weather?", answer="at night"), Turn(question="where is it?", answer="in a forest"))
CLEAR = replace(describe(SCENES["1"]), weather="clear")
NIGHT = replace(describe(SCENES["5"]), weather="night")
COMPOSED = Split(
    "composed-test",
    SCENES,
    (
        query("c000", "now in clear weather", CLEAR, reference_image="1"),
        query("c001", "the same, but at night", NIGHT, reference_image="5"),
    ),
    {"c000": frozenset("4"), "c001": frozenset("6")},
)
DIALOGUE = Split(
    "dialogue-test",
    SCENES,
    tuple(query(f"d000.{n}", "a sleeping owl", NIGHT, dialogue=ROUNDS[:n]) for n in range(3)),
    {f"d000.{n}": frozenset("6") for n in range(3)},
)


# The collection of this one is "test", whose pictures are there anyhow.
UNMATCHED = Split(
    "test",
    SCENES,
    (query("u000", "a white fox in the snow", replace(describe(SCENES["8"]), habitat="reef")),),
    {"u000": frozenset()},
)
SEEN = (Conditions("small", "day", "none"), Conditions("large", "dusk", "much"))


def wild_query(id: str, text: str, scene: str, seen: Conditions) -> WildQuery:
    return WildQuery(id, text, describe(SCENES[scene]), "Context", "Weather", conditions=seen)


WILD = Split(
    "wild-test",
    SCENES,
    (
        wild_query("tw000", "a yellow duck", "8", SEEN[0]),
        wild_query("tw001", "an owl", "5", SEEN[1]),
        wild_query("tx000", "a fish", "8", SEEN[0]),
    ),
    {"tw000": frozenset("8"), "tw001": frozenset(("5", "6")), "tx000": frozenset()},
)


@pytest.fixture
def tasks(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, and two tasks over its pictures, verified as they are."""
    checksum = fieldscope.fieldnotes.collection.published_checksums()["test"]
    for split in (COMPOSED, DIALOGUE, WILD):
        shutil.copytree(world.pictures, world.pictures.parent / split.name)
    names = ("test", COMPOSED.name, DIALOGUE.name, WILD.name)
    monkeypatch.setattr(fieldscope.fieldnotes.collection, "published_checksums", lambda: dict.fromkeys(names, checksum))
    monkeypatch.setattr(fieldscope.fieldnotes.collection, "load_composed", lambda name: COMPOSED)
    monkeypatch.setattr(fieldscope.fieldnotes.collection, "load_dialogue", lambda name: DIALOGUE)
    monkeypatch.setattr(fieldscope.fieldnotes.collection, "load_unmatched", lambda name: UNMATCHED)
    monkeypatch.setattr(fieldscope.fieldnotes.collection, "load_wild", lambda name: WILD)
    return world


def test_a_composed_task_is_full_retrieval_with_reference_images(tasks: World) -> None:
    workload = open_workload("fieldnotes-composed", None, Settings())
    bench = workload.benchmark
    assert (bench.name, bench.split, workload.own) == ("fieldnotes-composed", "test", True)
    assert bench.candidate_sets is None and workload.retriever is not None
    assert [(q.text, q.reference_image) for q in bench.queries] == [
        ("now in clear weather", "1"), ("the same, but at night", "5"),
    ]  # fmt: skip
    assert bench.qrels == {"c000": {"4": 1}, "c001": {"6": 1}}
    assert bench.meta["c000"].supercategory == "Context"
    for asked in bench.queries:
        found = [candidate.image_id for candidate in workload.retriever.search(Search(asked, 100))]
        assert set(found) == set(SCENES) - {asked.reference_image}
        # The reference's likes come first, whichever of them is right.
        alike = {i for i, s in SCENES.items() if s.groups == SCENES[asked.reference_image or ""].groups}
        assert found[0] in alike
        assert bench.images.pixel_hash(asked.reference_image or "")


def test_a_dialogue_task_has_a_query_for_every_round(tasks: World) -> None:
    workload = open_workload("fieldnotes-dialogue", "test", Settings())
    bench = workload.benchmark
    assert bench.rounds == {"d000.0": 0, "d000.1": 1, "d000.2": 2}
    assert [len(q.dialogue) for q in bench.queries] == [0, 1, 2]
    assert workload.retriever is not None
    ranks = [
        [candidate.image_id for candidate in workload.retriever.search(Search(asked, 100))].index("6")
        for asked in bench.queries
    ]
    assert ranks[-1] <= ranks[0] < 3


def test_a_composed_task_is_evaluated(run: Run, tasks: World) -> None:
    result = run("eval", "fieldnotes-composed", "--strategy", "clip", "--json")
    assert result.exit_code == 0, result.stderr
    (told,) = json.loads(result.stdout)["runs"]
    assert {"recall@1", "recall@5", "recall@10", "recall@50", "mAP@5", "mAP@10", "mAP@25"} < set(told["metrics"])
    assert told["metrics"]["recall@50"] == told["metrics"]["first-stage recall@100"] == 1
    assert Path(told["out"]) == Path("runs/fieldnotes-composed-test/clip")
    lines = (Path(told["out"]) / "results.jsonl").read_text().splitlines()
    rankings = {r.query_id: [c.image_id for c in r.ranking] for r in map(result_from_json, lines)}
    assert {query_id: len(ranking) for query_id, ranking in rankings.items()} == {"c000": 11, "c001": 11}
    assert "1" not in rankings["c000"] and "5" not in rankings["c001"]


def test_a_dialogue_task_is_evaluated_by_round(run: Run, tasks: World) -> None:
    result = run("eval", "fieldnotes-dialogue", "--strategy", "clip", "--json")
    assert result.exit_code == 0, result.stderr
    (told,) = json.loads(result.stdout)["runs"]
    assert {"hits@1", "hits@5", "hits@10"} < set(told["metrics"])
    written = json.loads((Path(told["out"]) / "metrics.json").read_text())
    assert list(written["by_round"]) == ["0", "1", "2"]
    for means in written["by_round"].values():
        assert means["hits@10"] == 1
        assert means["hits@1"] in {0, 1}


def test_queries_without_a_match_are_reranked_and_have_no_average_precision(run: Run, tasks: World) -> None:
    bench = open_workload("fieldnotes-unmatched", None, Settings()).benchmark
    assert (bench.name, bench.split) == ("fieldnotes-unmatched", "test")
    assert bench.candidate_ids("u000") == tuple(SCENES)
    assert set(bench.judgments("u000").values()) == {0}
    result = run("eval", "fieldnotes-unmatched", "--strategy", "clip", "yes-no")
    assert result.exit_code == 0, result.stderr
    assert "clip" in result.stdout and "mAP" not in result.stdout and "0.0" not in result.stdout.split("cost")[0]
    assert "queries has a relevant image among its judgments, so AP, nDCG and MRR are undefined" in result.stderr
    (told, _) = json.loads(run("eval", "fieldnotes-unmatched", "--strategy", "clip", "yes-no", "--json").stdout)["runs"]
    assert told["metrics"].pop("near-misses@10") == 0.1  # the black fox in the snow
    assert set(told["metrics"].values()) == {None}
    loaded = load_run(told["out"])
    assert list(loaded) == ["u000"] and "mAP" not in loaded._repr_html_()
    with pytest.raises(ConfigError, match="no query has anything to find"):
        loaded.metric("AP@50")


def test_how_often_a_run_says_that_nothing_matches_is_in_tables_and_comparisons(run: Run, tasks: World) -> None:
    line = ("eval", "fieldnotes-unmatched", "--strategy", "clip", "yes-no", "yes-no-fused")
    result = run(*line)
    assert result.exit_code == 0, result.stderr
    assert "nothing is said to match" in result.stdout and "of 1 without a match" in result.stdout
    runs = {told["strategy"]: told for told in json.loads(run(*line, "--json").stdout)["runs"]}
    shares = {name: told["metrics"]["rightly nothing"] for name, told in runs.items()}
    assert shares == {"clip": None, "yes-no": 1.0, "yes-no-fused": 1.0}
    assert {told["metrics"]["wrongly nothing"] for told in runs.values()} == {None}
    loaded = load_run(runs["yes-no"]["out"])
    assert loaded.metric("rightly nothing").mean == 1.0
    assert loaded["u000"].nothing is not None
    assert "rightly nothing" in loaded._repr_html_()
    both = [runs[name]["out"] for name in ("yes-no", "yes-no-fused")]
    result = run("compare", *both, "--json")
    assert result.exit_code == 0, result.stderr
    compared = json.loads(result.stdout)
    assert compared["metrics"] == ["rightly nothing"]
    assert [told["nothing"] for told in compared["runs"]] == [{"rightly nothing": 1.0}] * 2
    assert "Nothing is said to match" in run("compare", *both).stdout
    refused = run("compare", runs["clip"]["out"], *both)
    assert refused.exit_code == 1
    assert "the run does not say whether anything matches" in refused.stderr


def test_wild_queries_are_broken_down_by_how_their_matches_are_seen(run: Run, tasks: World) -> None:
    result = run("eval", "fieldnotes-wild", "--strategy", "clip", "--json")
    assert result.exit_code == 0, result.stderr
    (told,) = json.loads(result.stdout)["runs"]
    groups = {kind: set(told["breakdowns"][kind]) for kind in ("subject_size", "light", "occlusion")}
    assert groups == {"subject_size": {"large", "small"}, "light": {"day", "dusk"}, "occlusion": {"much", "none"}}
    assert load_run(told["out"]).scored.groups["tw001"]["occlusion"] == "much"


def test_a_wild_query_with_a_match_has_one_among_its_candidates(tasks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fieldscope.fieldnotes.rerank, "TOP", 1)
    bench = open_workload("fieldnotes-wild", None, Settings()).benchmark
    assert {q: len(bench.candidate_ids(q)) for q in bench.qrels} == {"tw000": 1, "tw001": 1, "tx000": 1}
    assert bench.candidate_ids("tw001")[0] in {"5", "6"} and bench.candidate_ids("tw000") == ("8",)
    assert set(bench.judgments("tx000").values()) == {0}


@pytest.mark.parametrize("name", ["fieldnotes-unmatched", "fieldnotes-wild"])
def test_a_run_records_the_background_of_found_candidates(
    tasks: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(fieldscope.retrieval.background, "SMALLEST", 1)
    bench = open_workload(name, None, Settings()).benchmark
    recorded = {line.id: line.background for line in benchmark_lines(bench) if isinstance(line, QueryLine)}
    assert recorded.keys() == bench.qrels.keys()
    for query_id, background in recorded.items():
        assert background is not None
        for candidate in bench.candidates(query_id) or ():
            assert candidate.standing == pytest.approx(background.standing(candidate.prior))


def test_wild_full_retrieval_searches_the_whole_collection(tasks: World) -> None:
    workload = open_workload("fieldnotes-wild-fullrank", None, Settings())
    assert (workload.benchmark.candidate_sets, workload.retriever is not None) == (None, True)
    assert workload.benchmark.qrels["tw001"] == {"5": 1, "6": 1}
    assert workload.benchmark.meta["tw000"].groups["subject_size"] == "small"


def test_a_dry_run_counts_the_candidates_of_queries_without_a_match(run: Run, tasks: World) -> None:
    result = run("eval", "fieldnotes-unmatched", "--strategy", "yes-no", "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["runs"][0]["calls"] == len(SCENES)


@pytest.mark.parametrize("task", [name for name in NAMES if name != "fieldnotes-rerank"])
def test_an_unknown_split_is_said(run: Run, tasks: World, task: str) -> None:
    result = run("eval", task, "--split", "composed-test")
    assert result.exit_code == 1
    assert "no split 'composed-test'. Use one of " in result.stderr


def test_an_unknown_task_is_said(run: Run, tasks: World) -> None:
    result = run("eval", "fieldnotes-compose")
    assert result.exit_code == 1
    assert "did you mean 'fieldnotes-composed'?" in result.stderr


@pytest.fixture
def describing(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], list[LMMRequest]]:
    """Let the bundled LMM caption by pixel hash, else say "a crab"; the list grows with what it is asked."""

    def install(answers: dict[str, Any]) -> list[LMMRequest]:
        asked: list[LMMRequest] = []

        def caption(request: LMMRequest) -> LMMResponse | str | Exception:
            asked.append(request)
            found = answers.get(request.images[0].sha256, "a crab")
            assert isinstance(found, str | Exception)
            return found

        def model(images: ImageSource) -> LMM:
            return ScriptedLMM(caption, identity="describing")

        monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", model)
        return asked

    return install


Describing = Callable[[dict[str, Any]], list[LMMRequest]]


@pytest.fixture
def index(run: Run, world: World, tmp_path: Path) -> Path:
    result = run("index", world.pictures, "-o", tmp_path / "index")
    assert result.exit_code == 0, result.stderr
    return tmp_path / "index"


def hash_of(index: Path, image_id: str) -> str:
    return open_library(index, load_encoder(Settings())).collection.pixel_hash(image_id)


def test_captions_are_asked_for_once_and_kept(run: Run, index: Path, describing: Describing) -> None:
    asked = describing({hash_of(index, "000005.png"): "  a sleeping white\nowl "})
    result = run("caption", index)
    assert result.exit_code == 0, result.stderr
    assert "12 of 12 images" in result.stdout and result.stderr == ""
    assert len(asked) == 12
    assert {request.text for request in asked} == {"describe the image."}
    library = open_library(index, load_encoder(Settings()))
    assert library.captions is not None
    expected = {**dict.fromkeys(library.index.ids, "a crab"), "000005.png": "a sleeping white owl"}
    assert library.captions.texts == expected
    again = run("caption", index, "--json")
    assert json.loads(again.stdout) == {"index": str(index), "captioned": 12, "failed": [], "flags": []}
    assert len(asked) == 12


def test_an_image_that_gets_no_caption_is_listed(run: Run, index: Path, describing: Describing) -> None:
    one, other = hash_of(index, "000002.png"), hash_of(index, "000003.png")
    asked = describing({one: LMMServerError("the server failed"), other: " \n"})
    failed = json.loads(run("caption", index, "--json").stdout)["failed"]
    assert {entry["image"]: entry["reason"] for entry in failed} == {
        "000002.png": "the server failed", "000003.png": "the answer is empty",
    }  # fmt: skip
    captions = open_library(index, load_encoder(Settings())).captions
    assert captions is not None and len(captions.texts) == 10
    again = run("caption", index)
    assert "10 of 12 images" in again.stdout and "000002.png: the server failed" in again.stdout
    assert len(asked) == 14  # what failed is asked again, and so is what got no answer


def test_a_model_that_captions_nothing_is_an_error(run: Run, index: Path, describing: Describing) -> None:
    hashes = {hash_of(index, f"{n:06d}.png"): LMMServerError("down") for n in range(1, 13)}
    describing(hashes)
    result = run("caption", index)
    assert result.exit_code == 1
    assert result.stderr == (
        "error: none of 12 images got a caption (the first: down); check the model and its server\n"
    )
    assert open_library(index, load_encoder(Settings())).captions is None


def test_foreign_pictures_are_flagged(run: Run, photos: Path, tmp_path: Path, describing: Describing) -> None:
    describing({})
    assert run("index", photos, "-o", tmp_path / "mine").exit_code == 0
    result = run("caption", tmp_path / "mine", "--json")
    assert json.loads(result.stdout)["flags"] == [fieldscope.service.wiring.bundled.FOREIGN]
    assert result.stderr.count("warning:") == 1
    assert run("caption", tmp_path / "nothing").exit_code == 1
