"""Pictures encoded by one process, and by the workers of a Ray cluster of two nodes on this machine.

    python -m benchmarks.two_nodes [--pictures 20000]

Needs Ray (`make test-ray` makes an environment with it). Both sides have one thread a process.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import arguments, report, seconds
from fieldscope.fieldnotes.render import render
from fieldscope.fieldnotes.sampling import random_scene
from fieldscope.retrieval.manifest import read_index
from fieldscope.service.wiring.bundled import open_encoder
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.index import index_folder

_STORE_BYTES = 200_000_000


def measure(pictures: int, folder: Path) -> dict[str, Any]:
    """Seconds of both ways, and whether the vectors are the same to the bit."""
    from ray.cluster_utils import Cluster

    images = folder / "images"
    images.mkdir()
    chance = random.Random(0)
    for number in range(pictures):
        render(random_scene(chance)).save(images / f"{number:05}.png")
    node = {"num_cpus": 1, "object_store_memory": _STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    try:
        here = seconds(lambda: index_folder(images, folder / "here", Settings(), "faiss"))
        there = seconds(lambda: index_folder(images, folder / "there", Settings(), "faiss", ray=cluster.address))
    finally:
        cluster.shutdown()
    (_, expected), (_, vectors) = (read_index(folder / name, open_encoder("")) for name in ("here", "there"))
    return {
        "pictures": pictures,
        "one_process": here,
        "two_nodes": there,
        "times_faster": here / there,
        "same_vectors": bool(np.array_equal(expected, vectors)),
    }


def main() -> None:
    """Measure, and exit with 1 where the vectors differ."""
    os.environ.update(OMP_NUM_THREADS="1", RAY_USAGE_STATS_ENABLED="0")
    parser = arguments(__doc__)
    parser.add_argument("--pictures", type=int, default=20_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(chosen.pictures, Path(folder))
    report("two-nodes", "pictures encoded by two Ray nodes with one process, in seconds", figures, chosen.json)
    if not figures["same_vectors"]:
        sys.exit("the vectors differ")


if __name__ == "__main__":
    main()
