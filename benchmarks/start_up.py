"""What a search costs that was made before, and one that has to load the models.

    python -m benchmarks.start_up

A dozen made pictures are indexed in a cache folder of its own. The same `search --rerank` is then run twice, each in a
process of its own: the first loads the encoder and the bundled LMM, the second is answered from the caches.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measuring import arguments, report
from fieldscope.fieldnotes.render import render
from fieldscope.fieldnotes.sampling import random_scene

_HEAVY = ("torch", "open_clip", "transformers")
_CODE = (
    "import json, sys\n"
    "from fieldscope.service.cli.main import cli\n"
    "cli(sys.argv[1:], standalone_mode=False)\n"
    f"print(json.dumps([name for name in {_HEAVY} if name in sys.modules]), file=sys.stderr)\n"
)


def measure() -> dict[str, Any]:
    """Seconds of processor time, and the heavy libraries that were imported."""
    with tempfile.TemporaryDirectory() as folder:
        images, index = Path(folder) / "images", Path(folder) / "index"
        images.mkdir()
        chance = random.Random(0)
        for number in range(12):
            render(random_scene(chance)).save(images / f"{number}.png")
        environment = {**os.environ, "FIELDSCOPE_CACHE": str(Path(folder) / "cache")}
        _run(["index", str(images), "-o", str(index)], environment)
        search = ["search", "--index", str(index), "--query", "a red fox in the snow", "--rerank"]
        first, again = _run(search, environment), _run(search, environment)
    return {"first": first, "again": again, "times_less_cpu": first["cpu_seconds"] / again["cpu_seconds"]}


def _run(words: list[str], environment: dict[str, str]) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", _CODE, *words]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_seconds": cpu, "imported": json.loads(done.stderr.strip().splitlines()[-1])}


def main() -> None:
    """Measure, and exit with 1 where a cached search loads a model."""
    chosen = arguments(__doc__).parse_args()
    figures = measure()
    report("start-up", "a search that was made before with the first one, which loads the models", figures, chosen.json)
    if figures["again"]["imported"]:
        sys.exit("a cached search imports what only a model needs")


if __name__ == "__main__":
    main()
