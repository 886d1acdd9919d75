"""Renders the training pictures once: pixels as the models see them, and what each patch shows.

    python -m fieldscope.fieldnotes.training.pictures [--families N] [--folder DIR]

Resumable: shards that are there are kept.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from fieldscope.core.files import replacing
from fieldscope.core.paths import cache_folder
from fieldscope.fieldnotes.render import patch_labels, render
from fieldscope.fieldnotes.sampling import FAMILY, training_family
from fieldscope.fieldnotes.scene import Scene

PIXELS = 112
GRID = 8
SHARD = 500


@dataclass(frozen=True)
class Pictures:
    """Training pictures and their truth, family by family: `pixels` (n, 112, 112, 3) uint8, `group` and `item`
    (n, 64) as in `PatchLabels`, `scenes` of length n."""

    pixels: NDArray[np.uint8]
    group: NDArray[np.int8]
    item: NDArray[np.uint8]
    scenes: list[Scene]


def as_seen(scene: Scene) -> NDArray[np.uint8]:
    """The pixels that reach a model: rendered at 224, then resized as both models' preprocessing does."""
    return np.asarray(render(scene).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC))


def render_shard(path: Path, first: int) -> None:
    """Render `SHARD` families from number `first` on, and write them at once or not at all."""
    scenes = [scene for i in range(first, first + SHARD) for scene in training_family(i)]
    labels = [patch_labels(scene, GRID) for scene in scenes]
    with replacing(path) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            pixels=np.stack([as_seen(scene) for scene in scenes]),
            group=np.array([label.group for label in labels], np.int8),
            item=np.array([label.item for label in labels], np.uint8),
        )


def load_pictures(folder: Path, families: int) -> Pictures:
    """All training pictures in memory, rendering those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = {folder / f"{first:06d}.npz": first for first in range(0, families, SHARD)}
    missing = {path: first for path, first in shards.items() if not path.exists()}
    with ProcessPoolExecutor() as pool:
        jobs = [pool.submit(render_shard, path, first) for path, first in missing.items()]
        for job in track(jobs, "rendering training pictures", disable=not jobs):
            job.result()
    n = len(shards) * SHARD * FAMILY
    pictures = Pictures(
        np.empty((n, PIXELS, PIXELS, 3), np.uint8),
        np.empty((n, GRID * GRID), np.int8),
        np.empty((n, GRID * GRID), np.uint8),
        [scene for i in range(len(shards) * SHARD) for scene in training_family(i)],
    )
    for i, path in enumerate(sorted(shards)):
        rows = slice(i * SHARD * FAMILY, (i + 1) * SHARD * FAMILY)
        with np.load(path, allow_pickle=False) as shard:
            pictures.pixels[rows] = shard["pixels"]
            pictures.group[rows] = shard["group"]
            pictures.item[rows] = shard["item"]
    return pictures


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every training script shares."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--families", type=int, default=20_000, help="families of four pictures each")
    parser.add_argument("--folder", type=Path, default=cache_folder() / "training", help="pictures and checkpoints")
    return parser


def main() -> None:
    options = arguments("Render the training pictures.").parse_args()
    load_pictures(options.folder / "pictures", options.families)


if __name__ == "__main__":
    main()
