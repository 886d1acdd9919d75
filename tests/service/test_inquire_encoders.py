"""INQUIRE under several encoders: whose the priors are, one run for each, and nothing encoded twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fieldscope.agent.strategies
from fieldscope.agent.trace import result_from_json
from fieldscope.core.errors import BenchmarkError
from fieldscope.eval.benchmarks.embedding_folders import encoder_of, find_embeddings
from fieldscope.eval.benchmarks.inquire_models import PUBLISHED, query_encoder
from fieldscope.fieldnotes.rerank import SCHEMA
from fieldscope.retrieval.clip import ClipEncoder
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.service.wiring.benchmarks import Workload, open_workload
from fieldscope.service.wiring.priors import with_prior_encoder
from fieldscope.service.wiring.settings import Settings
from tests.service.conftest import CRABS, FOX, OWL, SCENES, Run, World
from tests.service.inquire_files import fullrank, parquet, publish, vectors_of
from tests.service.seeded_encoders import SeededEncoder
from tests.service.test_inquire_whole import payload

A, B, C = "ViT-B-32:openai", "ViT-L-14:openai", "ViT-H-14-378-quickgelu:dfn5b"
FOLDERS = {A: "vit-b-32", B: "vit-l-14", C: "vit-h-14-378"}
SLUGS = {A: "ViT-B-32-openai", B: "ViT-L-14-openai", C: "ViT-H-14-378-quickgelu-dfn5b"}

Loaded = dict[str, list[SeededEncoder]]


@pytest.fixture
def loaded(world: World, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """The encoders that were loaded, by the names that open_clip has for them; other names are open_clip's own."""
    made: Loaded = {}
    load = ClipEncoder.load

    def open_seeded(name: str) -> Any:
        if not any(name in model.names for model in PUBLISHED.values()):
            return load(name)
        made.setdefault(name, []).append(SeededEncoder(name))
        return made[name][-1]

    monkeypatch.setattr(ClipEncoder, "load", staticmethod(open_seeded))
    return made


def seen(loaded: Loaded) -> dict[str, int]:
    return {name: sum(encoder.seen for encoder in encoders) for name, encoders in loaded.items()}


@pytest.fixture
def rerank(world: World, tmp_path: Path) -> Path:
    return parquet(tmp_path / "INQUIRE-Rerank", world)


def ranked_by(name: str, text: str, world: World) -> list[str]:
    """The images' ids by their similarity to a query, computed here."""
    scores = vectors_of(name, world, list(SCENES)) @ SeededEncoder(name).encode_query(QueryInputs(text))
    return [str(9000 + int(i)) for _, i in sorted(zip(-scores, SCENES, strict=True))]


def rankings(folder: Path) -> dict[str, list[str]]:
    results = map(result_from_json, (folder / "results.jsonl").read_text().splitlines())
    return {result.query_text: [ranked.image_id for ranked in result.ranking] for result in results}


def configuration(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["configuration"]
    return content


@pytest.fixture
def data(world: World, tmp_path: Path) -> Path:
    folder = fullrank(tmp_path / "data", world)
    publish(folder, world, {folder_name: name for name, folder_name in FOLDERS.items()})
    return folder


def test_three_encoders_are_three_runs_of_the_task_of_the_files(
    run: Run, world: World, loaded: Loaded, rerank: Path
) -> None:
    own = payload(run("eval", rerank, "--strategy", "clip", "--json"))["runs"]
    told = payload(run("eval", rerank, "--strategy", "clip", "--encoder", A, B, C, "--json"))["runs"]
    assert [(each["strategy"], each["prior"]) for each in (*own, *told)] == [
        ("clip", "clip_score of the files"),
        *((f"clip~encoder={SLUGS[name]}", name) for name in (A, B, C)),
    ]
    assert [each["scored_on_test"] for each in (*own, *told)] == [1, 1, 1, 1]
    said = [configuration(Path(each["out"])) for each in (*own, *told)]
    assert [each["prior"] for each in said] == ["clip_score of the files", A, B, C]
    assert [each["encoder"] for each in said] == [None, *(SeededEncoder(name).fingerprint for name in (A, B, C))]
    assert len({each["benchmark"]["fingerprint"] for each in said}) == 1
    for name, each in zip((A, B, C), told, strict=True):
        assert rankings(Path(each["out"])) == {text: ranked_by(name, text, world) for text in (CRABS, OWL, FOX)}
    compared = run("compare", *(each["out"] for each in (*own, *told)), "--json")
    assert compared.exit_code == 0, compared.output


def test_every_image_is_encoded_once_and_never_again(run: Run, loaded: Loaded, rerank: Path, tmp_path: Path) -> None:
    asked = ("eval", rerank, "--strategy", "clip", "yes-no", "--json", "--encoder", A, B)
    first = payload(run(*asked))
    assert seen(loaded) == {A: len(SCENES), B: len(SCENES)}  # each stands under three queries
    again = payload(run(*asked, "--out", "elsewhere"))
    assert seen(loaded) == {A: len(SCENES), B: len(SCENES)}
    assert [each["metrics"] for each in again["runs"]] == [each["metrics"] for each in first["runs"]]


def test_an_encoder_that_is_not_there_ends_the_command_before_anything_is_encoded(
    run: Run, loaded: Loaded, rerank: Path, data: Path
) -> None:
    for benchmark in (rerank, data, "fieldnotes-rerank", "fieldnotes"):
        for encoders in (("nonsense",), (A, "nonsense")):
            result = run("eval", benchmark, "--strategy", "clip", "--encoder", *encoders)
            assert result.exit_code != 0 and result.stdout == ""
            assert result.stderr.count("\n") == 1 and "nonsense" in result.stderr, result.stderr
    assert not any(seen(loaded).values())
    assert not Path("runs").exists()


def test_the_table_says_whose_the_prior_is(run: Run, loaded: Loaded, rerank: Path) -> None:
    assert "prior: clip_score of the files" in run("eval", rerank, "--strategy", "clip").stdout
    assert f"prior: {A}" in run("eval", rerank, "--strategy", "clip", "--encoder", A).stdout
    assert f"priors: {A}, {B}" in run("eval", rerank, "--strategy", "clip", "--encoder", A, B).stdout
    assert "prior: bundled" in run("eval", "fieldnotes-rerank", "--strategy", "clip").stdout


def test_one_encoder_stands_apart_from_the_files_and_joins_several(run: Run, loaded: Loaded, rerank: Path) -> None:
    run("eval", rerank, "--strategy", "clip")
    (alone,) = payload(run("eval", rerank, "--strategy", "clip", "--clip", A, "--json"))["runs"]
    assert Path(alone["out"]).name == f"clip~encoder={SLUGS[A]}"
    several = payload(run("eval", rerank, "--strategy", "clip", "--encoder", A, B, "--json"))["runs"]
    assert several[0]["out"] == alone["out"]


def test_the_bundled_encoder_by_its_name(run: Run, world: World, rerank: Path) -> None:
    (told,) = payload(run("eval", rerank, "--strategy", "clip", "--encoder", "bundled", "--json"))["runs"]
    assert (told["strategy"], told["prior"]) == ("clip~encoder=bundled", "bundled")
    assert told["metrics"]["mAP@100"] > 0.9  # it knows these pictures
    unknown = pq.read_table(rerank).to_pylist()
    for row in unknown:
        row["query"] = f"{row['query']} in a spaceship"
    pq.write_table(pa.Table.from_pylist(unknown, schema=SCHEMA), rerank / "test-00000-of-00001.parquet")
    result = run("eval", rerank, "--strategy", "clip", "--encoder", "bundled")
    assert result.exit_code != 0 and "spaceship" in result.stderr


@pytest.fixture
def apart(world: World, tmp_path: Path) -> Path:
    """Three queries of four candidates each, no image under two of them."""
    folder = parquet(tmp_path / "apart", world)
    path = folder / "test-00000-of-00001.parquet"
    rows = pq.read_table(path).to_pylist()
    own = {CRABS: range(9001, 9005), OWL: range(9005, 9009), FOX: range(9008, 9013)}
    kept = [row for row in rows if row["inat24_image_id"] in own[row["query"]]]
    pq.write_table(pa.Table.from_pylist(kept, schema=SCHEMA), path)
    return folder


def test_a_limit_encodes_what_it_needs_and_a_replay_needs_no_encoder(
    run: Run, world: World, loaded: Loaded, apart: Path
) -> None:
    asked = ("eval", apart, "--strategy", "yes-no-fused", "--encoder", A, "--json")
    (first,) = payload(run(*asked, "--limit", "1"))["runs"]
    assert seen(loaded) == {A: 4}
    out = Path(first["out"])
    (whole,) = payload(run(*asked))["runs"]
    assert whole["out"] == first["out"] and seen(loaded) == {A: len(SCENES)}
    payload(run(*asked, "--limit", "1"))  # which forgets no other query's priors
    before, calls = rankings(out), len(world.asked)
    (replayed,) = payload(run("eval", "--replay", out, "--json"))["runs"]
    assert rankings(Path(replayed["out"])) == before
    assert replayed["prior"] == A
    assert len(world.asked) == calls and len(loaded[A]) == 3


def test_a_run_from_before_priors_were_named_goes_on(run: Run, rerank: Path) -> None:
    (made,) = payload(run("eval", rerank, "--strategy", "clip", "--json"))["runs"]
    path = Path(made["out"]) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["configuration"]["prior"]
    path.write_text(json.dumps(manifest))
    (again,) = payload(run("eval", rerank, "--strategy", "clip", "--json"))["runs"]
    assert again["metrics"] == made["metrics"]
    assert configuration(Path(made["out"]))["prior"] == "clip_score of the files"


def test_fieldnotes_says_that_each_encoder_chose_its_candidates(run: Run, loaded: Loaded, world: World) -> None:
    result = run("eval", "fieldnotes-rerank", "--strategy", "clip", "--encoder", A, "bundled", "--json")
    assert [each["prior"] for each in payload(result)["runs"]] == [A, "bundled"]
    # All twelve images are candidates of every query here, with other scores.
    assert "each encoder chose candidates of its own for fieldnotes-rerank" in result.stderr


def test_a_benchmark_that_searches_by_itself_says_so(loaded: Loaded, rerank: Path, terminal: None, capsys: Any) -> None:
    given = open_workload(str(rerank), None, Settings()).benchmark
    workload = Workload(replace(given, name="own", candidate_sets=None))
    assert with_prior_encoder(workload, Settings()) is workload
    assert capsys.readouterr().err == ""
    assert with_prior_encoder(workload, Settings(encoder=A)) is workload
    assert "own has a first stage of its own, and --encoder is not used" in capsys.readouterr().err


def test_three_models_search_their_own_embeddings(run: Run, world: World, loaded: Loaded, data: Path) -> None:
    told = payload(run("eval", data, "--strategy", "clip", "--encoder", A, B, C, "--json"))["runs"]
    assert [(each["strategy"], each["prior"]) for each in told] == [
        (f"clip~encoder={SLUGS[name]}", name) for name in (A, B, C)
    ]
    names = {f"{int(i):06}-903be103": str(9000 + int(i)) for i in SCENES}
    for name, each in zip((A, B, C), told, strict=True):
        found = {text: [names[i] for i in images] for text, images in rankings(Path(each["out"])).items()}
        assert found == {text: ranked_by(name, text, world) for text in (CRABS, OWL, FOX)}
    assert seen(loaded) == dict.fromkeys((A, B, C), 0)  # queries alone
    again = run("eval", data, "--strategy", "clip", "--encoder", A, B)
    assert f"first-stage recall@100: {A} 100.0, {B} 100.0" in again.stdout
    assert [each["scored_on_test"] for each in told] == [1, 1, 1]


def test_a_folder_of_vectors_by_its_name(run: Run, world: World, loaded: Loaded, data: Path, tmp_path: Path) -> None:
    elsewhere = (data / "inat24" / "embs").rename(tmp_path / "vectors")
    asked = ("eval", data, "--strategy", "clip", "--json")
    (one,) = payload(run(*asked, "--encoder", B, "--embeddings", elsewhere / "vit-l-14", "--out", "a"))["runs"]
    (root,) = payload(run(*asked, "--encoder", B, "--embeddings", elsewhere, "--out", "b"))["runs"]
    result = run(*asked, "--embeddings", elsewhere / "vit-l-14", "--out", "c")
    (known,) = payload(result)["runs"]
    assert f"Queries are encoded with {B}, to be compared with the embeddings in" in result.stderr
    assert one["metrics"] == root["metrics"] == known["metrics"]
    assert one["prior"] == root["prior"] == known["prior"] == B
    several = payload(run(*asked, "--encoder", A, B, C, "--embeddings", elsewhere, "--out", "d"))["runs"]
    assert [each["prior"] for each in several] == [A, B, C]


def test_wildclip_is_searched_with_the_text_tower_that_it_has(
    run: Run, world: World, loaded: Loaded, data: Path
) -> None:
    tower = "ViT-B-16:openai"
    publish(data, world, {"vit-b-16": tower, "wildclip-t1": tower})
    result = run("eval", data, "--strategy", "clip", "--encoder", tower, "wildclip-t1", "--json")
    told = payload(result)["runs"]
    assert [each["prior"] for each in told] == [tower, "wildclip-t1"]
    assert told[0]["metrics"] == told[1]["metrics"]  # of vectors that are equal here
    assert "WildCLIP's training left the text tower" in result.stderr


def test_inquires_own_names_of_models_on_given_candidates(run: Run, loaded: Loaded, rerank: Path) -> None:
    (told,) = payload(run("eval", rerank, "--strategy", "clip", "--encoder", "vit-l-14", "--json"))["runs"]
    assert (told["strategy"], told["prior"]) == ("clip~encoder=vit-l-14", "vit-l-14")
    assert seen(loaded) == {B: len(SCENES)}
    for encoders in (("wildclip-t1",), (A, "wildclip-t1t7-lwf")):
        result = run("eval", rerank, "--strategy", "clip", "--encoder", *encoders)
        assert result.exit_code != 0 and result.stderr.count("\n") == 1
        assert "is a pickled checkpoint, which Fieldscope does not read" in result.stderr
    assert seen(loaded) == {B: len(SCENES), A: 0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("--encoder", "RN50:openai", "--embeddings", "data/inat24/embs/vit-l-14"), "are those of ViT-L-14:openai"),
        (("--encoder", A, B, "--embeddings", "data/inat24/embs/vit-l-14"), "are those of ViT-L-14:openai"),
        (("--embeddings", "data/inat24/train"), "has no embeddings. Name a folder with embeddings.npy and ids.csv"),
        ((), "embeddings of several models (vit-b-32, vit-h-14-378, vit-l-14)"),
    ],
)
def test_embeddings_that_are_not_the_encoders(
    run: Run, loaded: Loaded, data: Path, line: Sequence[str], message: str
) -> None:
    result = run("eval", data, "--strategy", "clip", *line)
    assert result.exit_code != 0
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_two_encoders_do_not_search_the_same_vectors(run: Run, world: World, loaded: Loaded, tmp_path: Path) -> None:
    data = fullrank(tmp_path / "data", world)
    publish(data, world, {"mine": A})
    result = run("eval", data, "--strategy", "clip", "--encoder", A, B)
    assert result.exit_code != 0
    assert f"{A} and {B} would both search" in result.stderr
    assert run("eval", data, "--strategy", "clip", "--encoder", A).exit_code == 0


def test_embeddings_are_for_full_retrieval(run: Run, rerank: Path, data: Path) -> None:
    result = run("eval", rerank, "--strategy", "clip", "--embeddings", data / "inat24" / "embs" / "vit-l-14")
    assert result.exit_code != 0
    assert "--embeddings is for inquire-fullrank" in result.stderr


def test_encoders_that_would_share_a_name_are_refused(run: Run, rerank: Path, tmp_path: Path) -> None:
    for above in ("a", "b"):
        (tmp_path / above / "model").mkdir(parents=True)
    result = run("eval", rerank, "--strategy", "clip", "--encoder", tmp_path / "a/model", tmp_path / "b/model")
    assert result.exit_code != 0
    assert "would both name their runs 'model'" in result.stderr


@pytest.mark.parametrize("folder", PUBLISHED)
def test_every_published_folder_resolves(tmp_path: Path, folder: str) -> None:
    for name in PUBLISHED:
        (tmp_path / "inat24" / "embs" / name / "img_emb").mkdir(parents=True)
        (tmp_path / "inat24" / "embs" / name / "img_emb" / "img_emb_0.npy").touch()
    own = tmp_path / "inat24" / "embs" / folder
    assert find_embeddings([tmp_path], folder) == own
    model = PUBLISHED[folder]
    assert query_encoder(folder) == encoder_of(own) == model.names[0]
    if not model.text_tower:
        for name in model.names:
            assert find_embeddings([tmp_path], name) == own
    for name in model.names:
        assert find_embeddings([tmp_path], name, own) == own
    with pytest.raises(BenchmarkError, match=f"are those of {model.names[0]}"):
        find_embeddings([tmp_path], "rn50" if folder != "rn50" else "bioclip", own)


@pytest.mark.parametrize(
    ("encoder", "folder"),
    [
        ("path:/models/tiny-clip", "tiny-clip"),
        ("/models/tiny-clip", "tiny-clip"),
        ("http://localhost:8000#Qwen/Qwen3-VL-Embedding-2B", "qwen3-vl-embedding-2b"),
        ("ViT-B-16-SigLIP2:webli", "ViT-B-16-SigLIP2_webli"),
    ],
)
def test_a_folder_that_is_named_after_its_encoder(tmp_path: Path, encoder: str, folder: str) -> None:
    for name in (folder, "another"):
        (tmp_path / "embs" / name).mkdir(parents=True)
        (tmp_path / "embs" / name / "embeddings.npy").touch()
    assert find_embeddings([tmp_path], encoder) == tmp_path / "embs" / folder


@pytest.fixture
def told_what_matches(tmp_path: Path) -> Path:
    """The strategy `clip` with an instruction for the first stage."""
    path = tmp_path / "told.yaml"
    shipped = Path(fieldscope.agent.strategies.__file__).with_name("clip.yaml").read_text(encoding="utf-8")
    path.write_text(f"{shipped.replace('name: clip', 'name: told')}\nretrieve:\n  instruction: find animals\n")
    return path


def test_an_instruction_is_read_by_an_encoder_that_takes_one(
    run: Run, world: World, loaded: Loaded, rerank: Path, told_what_matches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored = run("eval", rerank, "--strategy", told_what_matches, "--encoder", A, "--out", "a")
    assert "the encoder reads no instruction" in ignored.stderr
    monkeypatch.setattr(SeededEncoder, "uses", frozenset({"text", "instruction"}))
    heard: list[str | None] = []
    encode = SeededEncoder.encode_query

    def encode_query(self: SeededEncoder, inputs: QueryInputs) -> Any:
        heard.append(inputs.instruction)
        return encode(self, inputs)

    monkeypatch.setattr(SeededEncoder, "encode_query", encode_query)
    assert run("eval", rerank, "--strategy", told_what_matches, "--encoder", A, "--out", "b").exit_code == 0
    assert set(heard) == {"find animals"}
    refused = run("eval", rerank, "--strategy", "clip", told_what_matches, "--encoder", A, "--out", "c")
    assert refused.exit_code != 0 and "different values of `retrieve.instruction`" in refused.stderr


def test_prompt_sets_and_dry_runs_go_with_several_encoders(run: Run, loaded: Loaded, rerank: Path) -> None:
    asked = ("eval", rerank, "--strategy", "clip", "yes-no", "--encoder", A, B, "--json")
    names = [
        each["strategy"] for each in payload(run(*asked, "--prompts", "fieldnotes", "instruct", "--dry-run"))["runs"]
    ]
    assert names == [
        name
        for slug in (SLUGS[A], SLUGS[B])
        for name in (
            f"clip~encoder={slug}",
            f"yes-no~prompts=fieldnotes,encoder={slug}",
            f"yes-no~prompts=instruct,encoder={slug}",
        )
    ]
    assert not any(seen(loaded).values())
    one = run("eval", rerank, "--strategy", "yes-no", "--encoder", A, B, "--replay", "somewhere.fsr")
    assert one.exit_code == 2 and "go with one --encoder" in one.stderr
