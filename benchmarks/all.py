"""All benchmarks, one after the other: `make bench`, or `python -m benchmarks.all [--quick]`.

Each runs in a process of its own, and writes its figures to build/benchmarks. One that fails does not keep the others
from running; the exit status says that one did.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measuring import OUT, arguments

_OWN = {
    "start_up": ([], []),
    "growth": ([], ["--quick"]),
    "replay": ([], ["--queries", "20"]),
    "five_million": (["--vectors", "1000000"], ["--vectors", "50000", "--dim", "256"]),
    "calls": ([], ["--limit", "10"]),
}
"""The options of each, and those of a quick run."""

_CHECKS = {
    "client_speed": ["--without-vllm"],
    "local_speed": [],
    "service_latency": [],
    "service_load": [],
    "viewer_speed": [],
}
"""Scripts in checks/ that measure speed; what they print is kept as text."""


def main() -> None:
    """Run all."""
    parser = arguments(__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, which show that everything runs")
    chosen = parser.parse_args()
    failed = []
    for name, (whole, quick) in _OWN.items():
        command = [sys.executable, "-m", f"benchmarks.{name}", *(quick if chosen.quick else whole)]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    OUT.mkdir(parents=True, exist_ok=True)
    for name, options in {}.items() if chosen.quick else _CHECKS.items():
        command = [sys.executable, "-m", f"checks.{name}", *options]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        (OUT / f"{name}.txt").write_text(done.stdout, encoding="utf-8")
        print(done.stdout)
        if done.returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
