"""Files for the servers of CIRR and CIRCO, against checkers written from the servers' rules."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import RankedCandidate, RerankResult
from fieldscope.agent.usage import Usage
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Query
from fieldscope.eval.conclusion import conclude
from fieldscope.eval.datasets.submission import QUERIES, write_submission
from fieldscope.eval.protocol import Protocol
from fieldscope.eval.runs.inputs import NAME, input_lines
from fieldscope.eval.runs.runfolder import RunFolder
from fieldscope.eval.types import Benchmark
from fieldscope.prompts.prompt_set import open_prompt_set
from fieldscope.retrieval.collection import FilesCollection

FEW = 4
"""So many queries the servers of these tests want, so that no run has thousands."""


def check_cirr(path: Path, metric: str, references: Mapping[str, str]) -> None:
    """What CIRR's server says of a file: its head, all pairs, so many names each, no reference, at most 5 MB."""
    content: dict[str, Any] = json.loads(path.read_text())
    assert path.stat().st_size <= 5_000_000
    assert (content.pop("version"), content.pop("metric")) == ("rc2", metric)
    assert content.keys() == references.keys()
    many = 50 if metric == "recall" else 3
    for pair, names in content.items():
        assert re.fullmatch(r"\d+", pair)
        assert len(names) == len(set(names)) == many
        assert references[pair] not in names
        assert all(isinstance(name, str) and "." not in name for name in names)


def check_circo(path: Path, many: int) -> None:
    """What CIRCO's script says of a file: consecutive queries, each with 50 numbers of which none is there twice."""
    content = json.loads(path.read_text())
    assert list(content) == [str(number) for number in range(many)]
    for ids in content.values():
        assert len(ids) == len(set(ids)) == 50
        assert all(type(image) is int for image in ids)


def finished(folder: Path, name: str, split: str, many: int, ranked: int = 60, first: int = 0) -> dict[str, str]:
    """A run of many queries, each with so many ranked images, its reference among them; the references by query."""
    images = [f"test1-{n}-0-img0" if name == "cirr" else str(n) for n in range(70)]
    queries = [
        Query(id=str(number + first), text="a change", reference_image=images[number % 70]) for number in range(many)
    ]
    subsets = {q.id: tuple(images[(n + step) % 70] for step in range(1, 6)) for n, q in enumerate(queries)}
    protocol = Protocol(subsets=subsets if name == "cirr" else {}, keeps_reference=name == "circo")
    qrels: dict[str, dict[str, int]] = {query.id: {} for query in queries}
    benchmark = Benchmark(
        name, split, tuple(queries), qrels, FilesCollection({}), protocol=protocol, beyond=lambda query: images
    )
    strategy = load_strategy("clip", prompts=open_prompt_set("fieldnotes"))
    configuration = {
        "benchmark": {"name": name, "split": split, "fingerprint": benchmark.fingerprint},
        "strategy": {"name": "clip", "fingerprint": strategy.fingerprint},
    }
    run = RunFolder(folder, configuration)
    run.keep(NAME, input_lines(benchmark, strategy, None))
    results = {}
    for number, query in enumerate(queries):
        order = [images[(number + step) % 70] for step in range(ranked)]
        results[query.id] = RerankResult(
            query_id=query.id,
            query_text=query.text,
            reference_image=query.reference_image,
            strategy="clip",
            ranking=tuple(
                RankedCandidate(image_id=image, rank=rank, score=-rank, prior=-rank, prior_rank=rank)
                for rank, image in enumerate(order, start=1)
            ),
        )
    conclude(benchmark, "clip", run, results, Usage(), {})
    run.close()
    lines = (result.model_dump_json(exclude_defaults=True) for result in results.values())
    (folder / "results.jsonl").write_text("\n".join(lines))
    return {query.id: query.reference_image or "" for query in queries}


@pytest.mark.usefixtures("few")
def test_cirr_s_files_pass_the_server_s_rules(tmp_path: Path) -> None:
    references = finished(tmp_path / "run", "cirr", "test1", FEW, first=12063)
    recall, subset = write_submission(tmp_path / "run", tmp_path / "files")
    check_cirr(recall, "recall", references)
    check_cirr(subset, "recall_subset", references)


@pytest.mark.usefixtures("few")
def test_circo_s_file_passes_the_server_s_rules(tmp_path: Path) -> None:
    finished(tmp_path / "run", "circo", "test", FEW)
    (file,) = write_submission(tmp_path / "run", tmp_path / "files")
    check_circo(file, FEW)


def test_the_servers_counts_are_the_published_ones() -> None:
    assert QUERIES == {("cirr", "test1"): 4148, ("circo", "test"): 800}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that want few queries."""
    for served in list(QUERIES):
        monkeypatch.setitem(QUERIES, served, FEW)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("name", "split", "many", "more", "message"),
    [
        ("cirr", "test1", 3, {}, "3 queries, and the server of cirr wants 4"),
        ("cirr", "test1", 4, {"ranked": 50}, "49 images are ranked, and the server needs 50"),
        ("circo", "test", 4, {"ranked": 20}, "20 images are ranked, and the server needs 50"),
        ("circo", "test", 4, {"first": 1}, "numbered from 0 to 3, and these are not"),
        ("cirr", "validation", 4, {}, "which no server scores"),
        ("fashioniq", "test", 4, {}, "which no server scores"),
    ],
)
def test_what_a_server_would_refuse_is_not_written(
    tmp_path: Path, name: str, split: str, many: int, more: Mapping[str, int], message: str
) -> None:
    finished(tmp_path / "run", name, split, many, **more)
    with pytest.raises(ConfigError, match=message):
        write_submission(tmp_path / "run", tmp_path / "files")
    assert not (tmp_path / "files").exists()


def drop(run: Path, name: str, keep: Sequence[int]) -> None:
    lines = (run / name).read_text().splitlines()
    (run / name).write_text("\n".join(lines[number] for number in keep))


@pytest.mark.usefixtures("few")
def test_a_run_of_a_part_of_the_queries_is_refused(tmp_path: Path) -> None:
    finished(tmp_path / "run", "cirr", "test1", 4)
    drop(tmp_path / "run", "results.jsonl", (0, 1, 3))
    with pytest.raises(ConfigError, match="has 3 of 4 queries; 2 is not among them"):
        write_submission(tmp_path / "run", tmp_path / "files")


@pytest.mark.usefixtures("few")
def test_images_without_a_number_and_images_twice_are_refused(tmp_path: Path) -> None:
    finished(tmp_path / "run", "circo", "test", 4)
    results = tmp_path / "run" / "results.jsonl"
    text = results.read_text()
    results.write_text(text.replace('"image_id":"5"', '"image_id":"five"'))
    with pytest.raises(ConfigError, match="the image 'five' has no number"):
        write_submission(tmp_path / "run", tmp_path / "files")
    results.write_text(text.replace('"image_id":"5"', '"image_id":"6"'))
    with pytest.raises(ConfigError, match="an image is ranked twice"):
        write_submission(tmp_path / "run", tmp_path / "files")


@pytest.mark.usefixtures("few")
def test_an_unknown_order_of_a_small_gallery_is_refused(tmp_path: Path) -> None:
    finished(tmp_path / "run", "cirr", "test1", 4)
    subsets = tmp_path / "run" / "subsets.json"
    known = json.loads(subsets.read_text())
    subsets.write_text(json.dumps({**known, "1": known["1"][:2]}))
    with pytest.raises(ConfigError, match="query 1: the order of only 2 images"):
        write_submission(tmp_path / "run", tmp_path / "files")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run's folder"):
        write_submission(tmp_path, tmp_path / "files")
