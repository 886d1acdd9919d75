"""INQUIRE whole: a Fullrank folder and a Parquet folder as somebody who has the real ones would have them, made of
FieldNotes' pictures, through the commands that one would type."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from PIL import Image

from fieldscope.agent.trace import result_from_json
from fieldscope.core.errors import BenchmarkError
from fieldscope.eval.benchmarks.inquire_hub import fetch_inquire_rerank
from fieldscope.fieldnotes.rerank import SCHEMA
from fieldscope.fieldnotes.scene import SPECIES
from fieldscope.retrieval import index_plan
from fieldscope.retrieval.index_plan import IndexPlan
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.settings import Settings
from tests.service.conftest import CRABS, FOX, OWL, SCENES, Run, World
from tests.service.inquire_files import FILE, GROUPS, PATHS, QUERY_IDS, fullrank, parquet, write_csv

SECRETS = (
    *{word for groups in GROUPS.values() for word in groups},
    *{species.scientific for species in SPECIES.values()},
    *{name.partition(" ")[0] for name in (species.scientific for species in SPECIES.values())},
    "Animalia", "train/", ".png", ".jpg", FILE, "48.8584", "2.2945", "rights holder's name", "2024-02-29",
)  # fmt: skip
"""What people know of queries and images, and no prompt may say."""


def payload(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


@pytest.fixture
def data(world: World, tmp_path: Path) -> Path:
    """`data/inquire` with the tables, `data/inat24/train` with the images, and no embeddings yet."""
    return fullrank(tmp_path / "data", world)


def encoded(data: Path, ids: Sequence[str]) -> Any:
    encoder = load_encoder(Settings())
    return encoder.encode_images([Image.open(data / "inat24" / PATHS[i]).convert("RGB") for i in ids])


@pytest.fixture
def published(data: Path) -> Path:
    """Embeddings in two pieces of half precision, as INQUIRE has them on offer."""
    folder = data / "inat24" / "embs" / "bundled"
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for number, ids in enumerate((list(SCENES)[:8], list(SCENES)[8:])):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", encoded(data, ids).astype(np.float16))
        table = pa.table({"image_path": [PATHS[i] for i in ids]})
        pq.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")
    return data / "inquire"


def embed(data: Path, ids: Sequence[str]) -> Path:
    """One's own embeddings: an array, and a line for each of its rows."""
    folder = data / "inquire" / "embeddings"
    folder.mkdir(exist_ok=True)
    np.save(folder / "embeddings.npy", encoded(data, ids))
    write_csv(folder / "ids.csv", [["image_id", "image_path"], *([str(9000 + int(i)), PATHS[i]] for i in ids)])
    return data / "inquire"


def test_fullrank_in_one_and_in_two_stages(run: Run, published: Path, world: World) -> None:
    result = run("eval", published, "--strategy", "clip", "yes-no", "--json")
    told = payload(result)
    assert (told["benchmark"], told["split"]) == ("inquire-fullrank", "test")
    clip, yes_no = told["runs"]
    assert clip["metrics"]["first-stage recall@100"] == 1
    assert 0 < clip["metrics"]["mAP@50"] <= 1
    assert (yes_no["metrics"]["mAP@50"], yes_no["metrics"]["nDCG@50"], yes_no["metrics"]["MRR"]) == (1, 1, 1)
    assert clip["cost"]["calls"] == 0
    assert yes_no["cost"]["calls"] == len(world.asked) == 3 * len(SCENES)
    assert list(yes_no["by_supercategory"]) == ["Appearance", "Behavior", "Species"]
    assert list(yes_no["breakdowns"]["category"]) == ["Health and Disease", "Miscellaneous Behavior", "Species ID"]
    assert list(yes_no["breakdowns"]["iconic_group"]) == ["Birds", "Crustaceans", "Mammals"]
    assert result.stderr == ""


def test_the_same_in_every_layout(run: Run, published: Path, data: Path, world: World) -> None:
    asked = ("--strategy", "clip", "--json")
    first = payload(run("eval", published, *asked, "--out", "a"))["runs"][0]["metrics"]
    shutil.rmtree(data / "inat24" / "embs")
    embed(data, list(SCENES))
    assert payload(run("eval", data, *asked, "--out", "b"))["runs"][0]["metrics"] == first
    shutil.rmtree(data / "inquire" / "embeddings")
    indexed = run("index", data / "inat24", "-o", data / "inquire" / "embeddings")
    assert indexed.exit_code == 0, indexed.output
    assert payload(run("eval", data, *asked, "--out", "c"))["runs"][0]["metrics"] == first


def test_embeddings_beyond_the_memory_are_searched_through_a_large_index(
    run: Run, published: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--strategy", "clip", "--json")
    first = payload(run("eval", published, *asked, "--out", "a"))["runs"][0]["metrics"]
    monkeypatch.setattr(index_plan, "plan_index", lambda *_: IndexPlan("sq", 0, lists=2))
    for out in ("b", "c"):
        result = run("eval", published, *asked, "--out", out)
        assert payload(result)["runs"][0]["metrics"] == first
        assert "Of the exact 12 nearest a search finds 100.0% (measured with 3 queries" in result.stderr
    (folder,) = (world.cache / "large-indexes").iterdir()
    assert (folder / "vectors.f16").stat().st_size == 2 * 12 * load_encoder(Settings()).dim


def test_the_other_split(run: Run, published: Path, world: World) -> None:
    told = payload(run("eval", published, "--split", "val", "--strategy", "yes-no", "--json"))
    assert told["split"] == "validation"
    assert told["runs"][0]["metrics"]["MRR"] == 1


def test_all_positives_count_also_those_that_no_search_can_find(run: Run, data: Path, world: World) -> None:
    """The crabs' two positives and the owl's two, of which one each has no embedding; the fox has its own."""
    result = run("eval", embed(data, [i for i in SCENES if i not in {"2", "6"}]), "--strategy", "yes-no", "--json")
    metrics = payload(result)["runs"][0]["metrics"]
    assert "2 relevant images have no embedding" in result.stderr
    assert metrics["mAP@50"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    padded = 1 / (1 + 1 / math.log2(3))
    assert metrics["nDCG@50"] == pytest.approx((padded + padded + 1) / 3)
    assert metrics["first-stage recall@100"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)


def test_other_embeddings_are_another_run(run: Run, data: Path, world: World) -> None:
    embed(data, list(SCENES))
    payload(run("eval", data, "--strategy", "clip", "--json", "--out", "a"))
    folder = data / "inquire" / "embeddings"
    np.save(folder / "embeddings.npy", np.load(folder / "embeddings.npy")[::-1])
    result = run("eval", data, "--strategy", "clip", "--out", "a")
    assert result.exit_code != 0
    assert "holds a run of another configuration (other encoder)" in result.stderr


def test_without_images_one_stage_goes_and_two_say_what_is_missing(run: Run, data: Path, world: World) -> None:
    embed(data, list(SCENES))
    shutil.rmtree(data / "inat24")
    assert payload(run("eval", data, "--strategy", "clip", "--json"))["runs"][0]["metrics"]["MRR"] > 0
    result = run("eval", data, "--strategy", "clip", "yes-no", "--out", "b")
    assert result.exit_code != 0
    assert "no images for a model to look at" in result.stderr
    assert not world.asked


def test_embeddings_of_another_clip(run: Run, data: Path, world: World) -> None:
    embed(data, list(SCENES))
    np.save(data / "inquire" / "embeddings" / "embeddings.npy", np.ones((len(SCENES), 7), dtype=np.float32))
    result = run("eval", data, "--strategy", "clip")
    assert result.exit_code != 0
    assert "Name the model that made them with --encoder" in result.stderr


def test_foreign_pictures_are_flagged(run: Run, data: Path, world: World) -> None:
    embed(data, list(SCENES))
    Image.new("RGB", (20, 20), "red").save(data / "inat24" / PATHS["12"])
    result = run("eval", data, "--strategy", "yes-no", "--json")
    assert len(payload(result)["flags"]) == 1
    assert "FieldNotes" in result.stderr


def test_a_dry_run_reads_no_embeddings(run: Run, data: Path, world: World) -> None:
    embed(data, list(SCENES))
    array = data / "inquire" / "embeddings" / "embeddings.npy"
    np.save(array, np.full_like(np.load(array), np.nan))
    told = payload(run("eval", data, "--strategy", "clip", "yes-no", "--dry-run", "--json"))
    assert [each["calls"] for each in told["runs"]] == [0, 3 * len(SCENES)]


@pytest.mark.parametrize("strategy", ["yes-no-fused", "agent"])
@pytest.mark.parametrize("kind", ["fullrank", "rerank"])
def test_no_metadata_reaches_a_prompt(
    run: Run, published: Path, world: World, tmp_path: Path, kind: str, strategy: str
) -> None:
    benchmark = published if kind == "fullrank" else parquet(tmp_path / "rerank", world)
    payload(run("eval", benchmark, "--strategy", strategy, "--json", "--max-unknown", "1"))
    prompts: list[str] = []
    for request in world.asked:
        prompt = json.dumps([without_image_ids(part) for part in json.loads(request.model_dump_json())["messages"]])
        prompts.append(prompt)
        for secret in (*SECRETS, *QUERY_IDS.values()):
            assert not re.search(rf"(?<![0-9a-z]){re.escape(secret.casefold())}", prompt.casefold()), secret
        # Ids do not travel to a model; they go no further than traces, and tell nothing there either.
        for image in request.images:
            assert not [s for s in SECRETS if s != FILE and s.casefold() in image.image_id.casefold()]
    assert all(sum(query in prompt for prompt in prompts) >= len(SCENES) for query in (CRABS, OWL, FOX))


def without_image_ids(value: Any) -> Any:
    """A request's messages without what names an image in the books."""
    if isinstance(value, dict):
        return {key: without_image_ids(each) for key, each in value.items() if key not in {"image_id", "sha256"}}
    return [without_image_ids(each) for each in value] if isinstance(value, list) else value


def test_lists_of_queries(run: Run, published: Path, world: World, tmp_path: Path) -> None:
    chosen = tmp_path / "mine.txt"
    chosen.write_text(f"{OWL.upper()}\n7\n", encoding="utf-8")
    asked = ("eval", published, "--strategy", "yes-no", "--json")
    kept = payload(run(*asked, "--only", chosen))["runs"][0]
    left = payload(run(*asked, "--without", chosen))["runs"][0]
    assert Path(kept["out"]) == Path("runs/inquire-fullrank-test-only-mine/yes-no")
    assert Path(left["out"]) == Path("runs/inquire-fullrank-test-without-mine/yes-no")
    for run_of, ids in ((kept, {"139", "7"}), (left, {"109"})):
        lines = (Path(run_of["out"]) / "results.jsonl").read_text().splitlines()
        assert {result_from_json(line).query_id for line in lines} == ids
    told = payload(run(*asked, "--only", chosen, "--dry-run"))
    assert told["runs"][0]["calls"] == 2 * len(SCENES)
    chosen.write_text("t000", encoding="utf-8")
    told = payload(run("eval", "fieldnotes", "--strategy", "yes-no", "--json", "--without", chosen, "--dry-run"))
    assert told["runs"][0]["calls"] == 3 * len(SCENES)
    chosen.write_text("two red crabs on the moon\n", encoding="utf-8")
    result = run(*asked, "--only", chosen)
    assert result.exit_code != 0
    assert "line 1" in result.stderr
    assert CRABS in result.stderr


def test_a_parquet_folder(run: Run, world: World, tmp_path: Path) -> None:
    told = payload(run("eval", parquet(tmp_path / "INQUIRE-Rerank", world), "--strategy", "clip", "yes-no", "--json"))
    clip, yes_no = told["runs"]
    assert yes_no["metrics"]["mAP@100"] == 1
    # The prior is in order of id: crabs at ranks 1 and 2, owls at 5 and 6, the fox at 8.
    assert clip["metrics"]["mAP@100"] == pytest.approx((1 + (1 / 5 + 2 / 6) / 2 + 1 / 8) / 3)
    assert clip["breakdowns"]["category"]["Species ID"]["MRR"] == pytest.approx(1 / 8)


def test_a_folder_may_have_the_name_of_its_kind(
    run: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("eval", "inquire-rerank", "--strategy", "clip")
    assert result.exit_code == 1 and "give inquire-rerank:PATH" in result.stderr
    parquet(tmp_path / "inquire-rerank", world)
    runs = [
        payload(run("eval", name, "--strategy", "clip", "--out", out, "--json"))["runs"][0]["metrics"]
        for name, out in (("inquire-rerank", "a"), ("inquire-rerank:inquire-rerank", "b"), ("./inquire-rerank", "c"))
    ]
    assert runs[0] == runs[1] == runs[2]


def test_queries_with_a_scientific_name_are_apart(run: Run, world: World, tmp_path: Path) -> None:
    folder = parquet(tmp_path / "INQUIRE-Rerank", world)
    path = folder / "test-00000-of-00001.parquet"
    table = pq.read_table(path).to_pylist()
    name = SPECIES["fox"].scientific
    for row in table:
        row["query"] = f"{row['query']} ({name})" if row["query"] == FOX else row["query"]
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), path)
    (clip,) = payload(run("eval", folder, "--strategy", "clip", "--json"))["runs"]
    assert clip["breakdowns"]["scientific_name"]["yes"]["MRR"] == pytest.approx(1 / 8)
    assert clip["breakdowns"]["scientific_name"]["no"]["MRR"] == pytest.approx((1 + 1 / 5) / 2)
    whole = json.loads((Path(clip["out"]) / "metrics.json").read_text())
    assert whole["breakdowns"]["scientific_name"]["yes"]["MRR"] == pytest.approx(1 / 8)


def test_the_hubs_data_set_is_copied_once_and_then_read_from_disk(run: Run, world: World, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    source = parquet(tmp_path / "source", world)
    seen: list[tuple[int, int]] = []
    folder = fetch_inquire_rerank(
        world.cache / "inquire-rerank", "test", lambda done, total: seen.append((done, total)), source=str(source)
    )
    assert seen[-1][0] == 3 * len(SCENES)
    assert [path.name for path in folder.iterdir()] == ["test-00000-of-00001.parquet"]
    shutil.rmtree(source)
    told = payload(run("eval", "evendrow/INQUIRE-Rerank", "--strategy", "yes-no", "--json"))
    assert told["benchmark"] == "inquire-rerank"
    assert told["runs"][0]["metrics"]["mAP@100"] == 1


def test_a_fetch_that_fails_leaves_nothing(world: World, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(BenchmarkError, match="can't be fetched"):
        fetch_inquire_rerank(tmp_path / "copy", "test", source=str(tmp_path / "nowhere"))
    assert not list((tmp_path / "copy").glob("*.parquet"))


def test_without_the_library_one_line_says_what_to_install(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    result = run("eval", "evendrow/INQUIRE-Rerank", "--strategy", "clip")
    assert result.exit_code != 0
    assert result.stderr.count("\n") == 1
    assert "pip install datasets" in result.stderr
