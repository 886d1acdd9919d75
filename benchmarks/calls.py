"""How many calls the agent makes, of those that asking everything takes, and what that costs in quality.

    python -m benchmarks.calls --split validation [--limit N] [-- OPTIONS OF fieldscope eval]

`exhaustive.yaml` asks every predicate about every image, and about every pair of the best twenty in both orders. Where
the model's calibration leaves comparisons out, these calls are counted and not made. Both strategies share a response
cache, so that nothing is asked twice. Exits with 1 where the agent makes more than half of the calls, or ranks
significantly worse.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measuring import arguments, report
from fieldscope.eval.runs.read import read_results

BENCHMARKS = ("fieldnotes-rerank", "fieldnotes-wild")
HEAD = 20
_EXHAUSTIVE = Path(__file__).with_name("exhaustive.yaml")
_PROGRAM = (sys.executable, "-m", "fieldscope")


def measure(benchmark: str, out: Path, options: list[str]) -> dict[str, Any]:
    """Calls a query of both strategies, and the paired test of the agent against asking everything."""
    strategies = ["--strategy", "agent", "--strategy", str(_EXHAUSTIVE)]
    runs = _asked("eval", benchmark, *strategies, "--out", str(out), *options)["runs"]
    calls = {run["strategy"]: run["cost"]["calls"] for run in runs}
    results = list(read_results(out / "exhaustive").values())
    pairs = HEAD * (HEAD - 1)
    left_out = sum(pairs for result in results if not result.comparisons)
    test = _asked("measure", "significance", str(out / "exhaustive"), str(out / "agent"))["tests"][0]
    everything = calls["exhaustive"] + left_out
    return {
        "queries": len(results),
        "agent_calls_a_query": calls["agent"] / len(results),
        "all_calls_a_query": everything / len(results),
        "of_those_not_made": left_out / len(results),
        "share": calls["agent"] / everything,
        "quality": test,
    }


def main() -> None:
    """Measure on both benchmarks."""
    parser = arguments(__doc__)
    parser.add_argument("--benchmark", action="append", choices=BENCHMARKS, help="[default: both]")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--limit", type=int, help="only the first N queries")
    parser.add_argument("options", nargs="*", metavar="OPTION", help="further options of `fieldscope eval`, after --")
    chosen = parser.parse_args()
    options = ["--split", chosen.split, *chosen.options]
    options += ["--limit", str(chosen.limit)] if chosen.limit else []
    with tempfile.TemporaryDirectory() as folder:
        names = chosen.benchmark or BENCHMARKS
        figures = {name: measure(name, Path(folder) / name, options) for name in names}
    compared = "the agent with asking every predicate about every image and all pairs of the best 20"
    report("calls", compared, figures, chosen.json)
    broken = [name for name, found in figures.items() if found["share"] > 0.5 or _worse(found["quality"])]
    if broken:
        sys.exit(f"more than half of the calls, or a worse ranking, on: {', '.join(broken)}")


def _worse(test: dict[str, Any]) -> bool:
    return bool(test["difference"] < 0 and test["p"] < 0.05)


def _asked(*words: str) -> dict[str, Any]:
    """What a command prints as JSON."""
    done = subprocess.run([*_PROGRAM, *words, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    data: dict[str, Any] = json.loads(done.stdout)
    return data


if __name__ == "__main__":
    main()
