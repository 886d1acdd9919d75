"""Served results on disk: found again by their ids, opened by the viewer, and kept within bounds."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.calibration import Calibration
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import RankedCandidate, RerankResult
from fieldscope.eval.runs.inputs import read_inputs
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.service.server.api import servedrun
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.servedrun import ServedRun, Setting
from fieldscope.service.server.api.traces import TraceStore
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.site import Site
from tests.agent.oracle import paint
from tests.waiting import PATIENCE

YES_NO = Setting(load_strategy("yes-no", prompts="fieldnotes"), lmm="oracle")
AGENT = Setting(load_strategy("agent", prompts="fieldnotes"), lmm="oracle", calibration=Calibration(spread=2.0))


def result(trace_id: str, strategy: str = "yes-no", text: str = "a crab") -> RerankResult:
    ranking = (RankedCandidate(image_id="00.png", rank=1, score=1.0, prior=0.5, prior_rank=1),)
    return RerankResult(query_id=trace_id, query_text=text, strategy=strategy, ranking=ranking)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    opened = TraceStore(tmp_path / "traces")
    yield opened
    opened.close()


def runs_in(folder: Path) -> list[Run]:
    return RunList(folder).runs()


def test_a_trace_is_found_at_once_and_after_a_restart(tmp_path: Path) -> None:
    store = TraceStore(tmp_path)
    kept = [result(f"t{n}", text=f"number {n} \n\u2028é") for n in range(20)]
    for each in kept:
        store.keep(each, YES_NO)
        assert store.find(each.query_id) == each
    store.close()
    again = TraceStore(tmp_path)
    assert [again.find(each.query_id) for each in kept] == kept
    again.keep(result("later"), YES_NO)
    assert again.find("t3") == kept[3]
    again.close()
    assert len(runs_in(tmp_path)) == 1  # of one day and one setting


@pytest.mark.parametrize("trace_id", ["nothing", "", "'; DROP TABLE traces; --", "../../index.sqlite", "\ud800"])
def test_what_was_never_kept_is_not_found(store: TraceStore, trace_id: str) -> None:
    store.keep(result("t"), YES_NO)
    with pytest.raises(ApiError) as caught:
        store.find(trace_id)
    assert (caught.value.status, caught.value.code) == (404, "unknown_trace")
    assert store.find("t").query_id == "t"


def test_the_viewer_opens_a_trace_and_does_not_pretend_to_know_the_truth(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    images = paint(tmp_path / "pictures")
    store = TraceStore(tmp_path / "traces", images.locator())
    store.keep(result("t1"), YES_NO)
    store.keep(result("t2", "agent"), AGENT)
    address = store.page("t1")
    store.close()
    runs = {run.strategy: run for run in runs_in(tmp_path / "traces")}
    assert runs.keys() == {"yes-no", "agent"}
    run = runs["yes-no"]
    assert run.problem is None and not run.finished
    assert run.relevant("t1") is None
    assert isinstance(run.collection, FolderCollection) and run.collection.root == images.root
    assert read_inputs(run.folder).strategy.strategy() == YES_NO.strategy
    assert read_inputs(runs["agent"].folder).strategy.calibration == AGENT.calibration
    site = Site(RunList(tmp_path / "traces"), live=True)
    assert "a crab" in site.render(site.page(address))


def test_other_models_and_strategies_lie_apart(store: TraceStore) -> None:
    settings = [YES_NO, AGENT, Setting(YES_NO.strategy, lmm="another"), Setting(YES_NO.strategy, "oracle", "clip")]
    for number, setting in enumerate(settings):
        store.keep(result(f"t{number}", setting.strategy.name), setting)
    pages = {store.page(f"t{number}").split("/")[1] for number in range(len(settings))}
    assert len(pages) == len(settings)
    today = datetime.now(UTC).date().isoformat()
    assert all(page.startswith(today) for page in pages)


def test_keeping_does_not_wait_for_the_disk(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, written = threading.Event(), threading.Event()
    append = ServedRun.append

    def slow(self: ServedRun, lines: Any) -> list[tuple[int, int]]:
        gate.wait(PATIENCE)
        written.set()
        return append(self, lines)

    monkeypatch.setattr(ServedRun, "append", slow)
    for number in range(100):
        store.keep(result(f"t{number}"), YES_NO)
    assert not written.is_set()
    assert store.find("t99").query_id == "t99"
    gate.set()
    assert store.page("t99")


def test_a_disk_that_fails_is_logged_and_the_service_goes_on(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    append = ServedRun.append

    def full(self: ServedRun, lines: Any) -> list[tuple[int, int]]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ServedRun, "append", full)
    store.keep(result("lost"), YES_NO)
    with pytest.raises(ApiError):
        store.page("lost")
    assert "were lost" in caplog.text
    monkeypatch.setattr(ServedRun, "append", append)
    store.keep(result("kept"), YES_NO)
    assert store.page("kept")


def test_a_full_folder_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servedrun, "LARGEST", 2_000)
    store = TraceStore(tmp_path)
    for number in range(20):
        store.keep(result(f"t{number}"), YES_NO)
        store.settle(f"t{number}")  # before the next one comes
    assert all(store.find(f"t{number}").query_id == f"t{number}" for number in range(20))
    store.close()
    sizes = [(run.folder / "results.jsonl").stat().st_size for run in runs_in(tmp_path)]
    assert len(sizes) > 2 and max(sizes) < 3_000


def test_the_oldest_go_where_there_is_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servedrun, "LARGEST", 10_000)
    store = TraceStore(tmp_path, max_bytes=60_000)
    for number in range(150):
        store.keep(result(f"t{number}", text="a crab " * 50), YES_NO)
        if number % 10 == 9:
            store.settle(f"t{number}")
    assert store.find("t149").query_id == "t149"
    with pytest.raises(ApiError):
        store.find("t0")
    store.close()
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*/*")) < 80_000


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    first = TraceStore(tmp_path)
    first.keep(result("old"), YES_NO)
    first.close()
    (today,) = tmp_path.glob("2*")
    today.rename(tmp_path / "2001-02-03")
    (tmp_path / "somebody's").mkdir()
    (tmp_path / "somebody's" / "letter").write_text("dear")
    again = TraceStore(tmp_path, max_days=7)
    again.keep(result("new"), YES_NO)
    assert again.page("new")
    again.close()
    assert not (tmp_path / "2001-02-03").exists()
    assert (tmp_path / "somebody's" / "letter").exists()
    with pytest.raises(ApiError):
        TraceStore(tmp_path).find("old")


def test_a_line_that_was_cut_off_by_a_kill_does_not_spoil_the_next(tmp_path: Path) -> None:
    first = TraceStore(tmp_path)
    first.keep(result("whole"), YES_NO)
    first.close()
    (file,) = tmp_path.glob("*/*/results.jsonl")
    with file.open("ab") as stream:
        stream.write(b'{"query_id": "half')
    again = TraceStore(tmp_path)
    again.keep(result("next"), YES_NO)
    again.close()
    assert [json.loads(line)["query_id"] for line in file.read_bytes().splitlines()] == ["whole", "next"]


def test_two_services_on_one_folder_write_side_by_side(tmp_path: Path) -> None:
    day = tmp_path / "2026-01-01"
    one, other = ServedRun(day, YES_NO, None), ServedRun(day, YES_NO, None)
    assert one.path != other.path
    one.close()
    other.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_can_not_be_written_is_refused_at_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(Exception, match="can't write traces"):
        TraceStore(tmp_path / "traces")
