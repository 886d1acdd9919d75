"""A small subject in a photograph of 50 megapixels, found among 200 by `fieldscope search --rerank`.

    python -m checks.large_photographs FOLDER [--strategy NAME|FILE] [--others MEGAPIXELS]

makes a collection of 200 photographs of FieldNotes' animals in FOLDER, unless it is there: one of 50 megapixels for
each target, whose subject takes 8, 4 or 2 % of its width, the others smaller ones of other animals. It then indexes
them with their tiles and searches for each target with the bundled models, each command in a process of its own, and
prints the target's rank before and after reranking, the time, and the peak of memory.
It ends with status 1 where the target of 8 % is not first or a process took more than 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from fieldscope.fieldnotes.habitats import paint_background
from fieldscope.fieldnotes.layout import CANVAS, Layout
from fieldscope.fieldnotes.scene import COLOURS, HABITATS, SPECIES, Group, Scene
from fieldscope.fieldnotes.wild.animals import NOMINAL, SHEET, animal_sheet

PHOTOGRAPHS = 200
TARGET_SIZE = (8660, 5774)  # 50 megapixels
MOST_MEMORY = 1_500_000_000  # bytes

TARGETS = {0.08: Group("fox", "red"), 0.04: Group("duck", "blue"), 0.02: Group("owl", "white")}
"""The share of the photograph's width that a target's subject takes, and the subject."""


@dataclass(frozen=True)
class Photograph:
    """What to draw: the animal, the share of the width that it takes, and the picture's size in pixels."""

    name: str
    group: Group
    share: float
    size: tuple[int, int]


def collection(others_megapixels: float) -> list[Photograph]:
    """The targets, and other animals of all sizes in their own photographs."""
    rng = Random(17)
    kinds = [Group(species, colour) for species in SPECIES for colour in COLOURS]
    kinds = [kind for kind in kinds if kind not in TARGETS.values()]
    side = int((others_megapixels * 1e6 / 12) ** 0.5)
    made = [Photograph(f"target-{share:.0%}.jpg", group, share, TARGET_SIZE) for share, group in TARGETS.items()]
    while len(made) < PHOTOGRAPHS:
        share = rng.choice((0.02, 0.04, 0.08, 0.16, 0.3))
        made.append(Photograph(f"{len(made):03}.jpg", rng.choice(kinds), share, (4 * side, 3 * side)))
    return made


def draw(photograph: Photograph, seed: int) -> Image.Image:
    """One animal somewhere in its habitat, with the camera's grain."""
    rng = Random(seed)
    width, height = photograph.size
    scene = Scene(rng.choice(HABITATS), "clear", (photograph.group,), seed)
    backdrop = Layout((), rng.randint(CANVAS // 4, CANVAS // 3), 0, 0)
    picture = paint_background(scene, backdrop).resize(photograph.size, Image.Resampling.BICUBIC)
    side = int(photograph.share * width * SHEET / NOMINAL)
    sheet = animal_sheet(photograph.group, rng.random() < 0.5).resize((side, side), Image.Resampling.BICUBIC)
    left, top = rng.randint(0, width - side), rng.randint(min(height // 4, height - side), height - side)
    picture.paste(sheet, (left, top), sheet)
    grain = np.random.default_rng(seed).normal(0, 6, (512, 512, 3))
    for row in range(0, height, 512):
        for column in range(0, width, 512):
            tile = picture.crop((column, row, min(column + 512, width), min(row + 512, height)))
            pixels = np.asarray(tile) + grain[: tile.height, : tile.width]
            picture.paste(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), (column, row))
    return picture


def make(folder: Path, photographs: list[Photograph]) -> None:
    """Draw what is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, photograph in enumerate(photographs):
        path = folder / photograph.name
        if not path.is_file():
            draw(photograph, seed).save(path.with_suffix(".part"), "JPEG", quality=88)
            path.with_suffix(".part").rename(path)


def run(*arguments: object) -> tuple[str, float, int]:
    """One command in a process of its own: its output, seconds, and the peak of its memory in bytes."""
    measured = (
        "import resource, runpy, sys; sys.argv[0] = 'fieldscope'\n"
        "try: runpy.run_module('fieldscope', run_name='__main__', alter_sys=True)\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", measured, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    kilobytes = int(done.stderr.strip().rsplit("\n", 1)[-1])
    return done.stdout, time.perf_counter() - began, kilobytes * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--strategy", default="agent")
    parser.add_argument("--others", type=float, default=12.0, metavar="MEGAPIXELS")
    options = parser.parse_args()
    photographs = collection(options.others)
    make(options.folder / "photographs", photographs)
    index = options.folder / "index"
    _, seconds, memory = run("index", options.folder / "photographs", "-o", index, "--tiles")
    print(f"index --tiles: {seconds:.0f} s, {memory / 1e9:.2f} GB at most")
    peaks, ranks = [memory], {}
    for target in photographs[: len(TARGETS)]:
        query = f"a {target.group.colour} {target.group.species}"
        found, _, _ = run("search", "--index", index, "--query", query, "-k", PHOTOGRAPHS, "--json")
        before = _rank(json.loads(found), target.name)
        given = ("--index", index, "--query", query, "--strategy", options.strategy)
        reranked, seconds, memory = run("search", *given, "--rerank", "--json")
        ranks[target.share] = rank = _rank(json.loads(reranked), target.name)
        peaks.append(memory)
        print(f"{target.share:.0%} of the width, {query!r}: rank {before} before, {rank or 'none'} after;", end=" ")
        print(f"{seconds:.0f} s, {memory / 1e9:.2f} GB at most")
    sys.exit(max(peaks) > MOST_MEMORY or ranks[max(TARGETS)] != 1)


def _rank(said: dict[str, list[dict[str, object]]], name: str) -> int | None:
    """The image's rank in what a search wrote, None where it is not there."""
    return next((at for at, row in enumerate(said["ranking"], start=1) if row["image"] == name), None)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
