"""Run folders on a full disk and on one that can't be written: nothing half, and one sentence."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.eval.runs.jsonlines import JsonLines
from fieldscope.eval.runs.runfolder import RunFolder

CONFIGURATION = {"benchmark": {"name": "birds"}, "strategy": {"name": "clip"}}

_APPEND = """
import resource, sys
from pathlib import Path
from fieldscope.core.errors import ConfigError
from fieldscope.eval.runs.jsonlines import JsonLines
lines = JsonLines(Path(sys.argv[1]))
lines.recover()
lines.append(["short"])
resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
try:
    lines.append(["x" * 200])
except ConfigError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
lines.append(["after"])
lines.close()
"""


def result(query: str) -> RerankResult:
    return RerankResult(query_id=query, query_text="a crab", strategy="clip", ranking=())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence_and_closes() -> None:
    lines = JsonLines(Path("/dev/full"))
    with pytest.raises(ConfigError, match=r"can't write /dev/full: No space left on device; free some disk space"):
        lines.append(["one", "two"])
    lines.close()  # with nothing left to write


def test_what_does_not_fit_leaves_no_half_line(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _APPEND, str(file)], env=environment, capture_output=True, text=True, check=True
    )
    assert "can't write" in done.stdout and "free some disk space" in done.stdout
    assert file.read_text().splitlines() == ["short", "after"]


def test_a_whole_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", CONFIGURATION)
    folder.commit(result("q1"), {})
    folder.write("run.trec", ["old\n"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ConfigError, match=r"can't write .*run\.trec: File too large"):
            folder.write("run.trec", ["x" * 100_000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder.path / "run.trec").read_text() == "old\n"
    assert not list(folder.path.glob(".*.part"))
    folder.close()
    assert list(RunFolder(tmp_path / "run", CONFIGURATION).results) == ["q1"]


def test_two_processes_do_not_write_one_run(tmp_path: Path) -> None:
    ours = RunFolder(tmp_path / "run", CONFIGURATION)
    begin = (
        "import sys; from pathlib import Path; from fieldscope.eval.runs.runfolder import RunFolder;"
        "RunFolder(Path(sys.argv[1]), {})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    theirs = subprocess.run(
        [sys.executable, "-c", begin, str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "another process is writing" in theirs.stderr
    ours.commit(result("q1"), {})
    assert list(ours.results) == ["q1"]
