"""What the benchmarks share: times, memory, the machine, and results as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

OUT = Path("build/benchmarks")


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """The median time of a call, in seconds."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return median(taken)


def memory() -> dict[str, float]:
    """What this process holds, in MB: memory of its own (`anonymous`), and pages of files, which the system can drop
    (`files`). From Linux's /proc."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return {
        name: int(status[field].split()[0]) / 1024 for name, field in (("anonymous", "RssAnon"), ("files", "RssFile"))
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = "unknown"
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    threads = os.environ.get("OMP_NUM_THREADS")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": int(threads) if threads else os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the option that all benchmarks have."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help=f"where to write the figures [default: {OUT}/NAME.json]")
    return parser


def report(name: str, compared: str, figures: Mapping[str, Any], path: Path | None = None) -> None:
    """Print figures with what they compare, and write them as JSON, beside the machine."""
    path = path or OUT / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, "compares": compared, "machine": machine(), "figures": figures}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {compared}")
    for label, value in _flat(figures):
        print(f"  {label:48} {value:,.4g}" if isinstance(value, float) else f"  {label:48} {value}")
    print(f"written to {path}", file=sys.stderr)


def _flat(figures: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in figures.items():
        label = f"{above}{name.replace('_', ' ')}"
        rows += _flat(value, f"{label}: ") if isinstance(value, Mapping) else [(label, value)]
    return rows
