"""The check of clocks: it passes on this tree, and it catches each violation that is planted in another."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.clocks import MARKS, check_tree

ROOT = Path(__file__).resolve().parents[2]


def lines(tmp_path: Path, source: str, file: str = "tests/agent/test_a.py") -> list[int]:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return [violation.line for violation in check_tree(tmp_path)]


@pytest.mark.slow  # `make check` does it
def test_the_quick_tests_of_this_tree_depend_on_no_clock() -> None:
    assert check_tree(ROOT) == []


@pytest.mark.parametrize(
    "line",
    [
        "time.sleep(0.1)",
        "time.sleep(0)",
        "t.sleep(seconds)",
        "nap(1)",
        "threading.Timer(0.2, print).start()",
        "await asyncio.sleep(0.01)",
        "await asyncio.sleep(seconds)",
        "await asyncio.sleep(delay=1)",
        "await rest(2)",
        "began = time.monotonic()",
        "assert time.perf_counter() - began < 0.3",
        "assert now() < began + 5",
        "assert time.monotonic_ns() < 10",
        "assert time.time() < 10",
        "clock = time.process_time",
        "assert reply.elapsed.total_seconds() < 1",
        "async with asyncio.timeout(5): pass",
        "await asyncio.wait_for(task, 1)",
        "await asyncio.wait_for(task, timeout=2.5)",
        "assert begun.wait(10)",
        "thread.join(timeout=5)",
        "process.communicate(timeout=20)",
        "future.result(3)",
    ],
)
def test_what_depends_on_a_clock_is_caught(tmp_path: Path, line: str) -> None:
    imports = "import asyncio, threading, time\nimport time as t\nfrom time import perf_counter as now, sleep as nap"
    source = f"{imports}\nfrom asyncio import sleep as rest\n\nasync def test_it():\n    {line}\n"
    assert lines(tmp_path, source) == [7]


@pytest.mark.parametrize(
    "line",
    [
        "await asyncio.sleep(0)",
        "async with asyncio.timeout(PATIENCE): pass",
        "await asyncio.wait_for(task, PATIENCE)",
        "assert begun.wait(PATIENCE)",
        "thread.join()",
        "process.wait(timeout=300)",
        'text = ", ".join(parts)',
        "moment = datetime.now(UTC)",
        "run.time()",
        "lmm = OpenAILMM(url, timeout=0.4)",
        'assert text == "time.sleep(1)"',
    ],
)
def test_what_depends_on_no_clock_is_allowed(tmp_path: Path, line: str) -> None:
    assert lines(tmp_path, f"import asyncio, time\n\nasync def test_it():\n    {line}\n") == []


@pytest.mark.parametrize("mark", sorted(MARKS))
def test_what_make_test_leaves_out_may_take_its_time(tmp_path: Path, mark: str) -> None:
    slept = "def test_it():\n    time.sleep(1)\n"
    assert lines(tmp_path, f"import time\n{slept}", f"tests/{mark}/test_b.py") == []
    assert lines(tmp_path, f"import pytest, time\npytestmark = [pytest.mark.{mark}]\n{slept}") == []
    marked = f"import pytest, time\n@pytest.mark.{mark}\n{slept}\ndef test_other():\n    time.sleep(1)\n"
    assert lines(tmp_path, marked) == [7]
