"""A miniature benchmark in INQUIRE-Rerank's shape: a relevant picture is red, another one blue."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.core.types import ImageSource
from fieldscope.eval.benchmarks.inquire_rerank import load_inquire_rerank
from fieldscope.eval.types import Benchmark

Rows = list[dict[str, Any]]
TEXTS = ("a red crab on a beach", "two owls asleep", "a heron with a leaf", "a fox in the snow", "a blue frog")
GROUPS = ("Appearance", "Behavior", "Context", "Species")


def picture(red: int, blue: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (red, 0, blue)).save(buffer, "PNG")
    return buffer.getvalue()


def row(query: str, image_id: int, relevant: int, score: float, supercategory: str) -> dict[str, Any]:
    return {
        "image": picture(255 if relevant else 0, image_id % 256),
        "query": query,
        "relevant": relevant,
        "clip_score": score,
        "inat24_image_id": image_id,
        "inat24_file_name": f"train/{image_id}.jpg",
        "supercategory": supercategory,
        "category": "a category",
        "iconic_group": "Birds",
        "inat24_species_id": 7,
        "inat24_species_name": "Ardea cinerea",
        "latitude": 47.3,
        "longitude": 8.5,
        "location_uncertainty": 10.0,
        "date": "2024-01-01",
        "license": "CC0",
        "rights_holder": "nobody",
    }


@pytest.fixture
def rows() -> Rows:
    """Five queries of eight candidates each, two or three of them relevant, with scores that do not know which."""
    chance = random.Random(5)
    return [
        row(text, 100 * q + i, int(i % 3 == q % 3), round(chance.random(), 6), GROUPS[q % len(GROUPS)])
        for q, text in enumerate(TEXTS)
        for i in range(8)
    ]


WriteParquet = Callable[..., Path]


@pytest.fixture
def write_parquet(tmp_path: Path) -> WriteParquet:
    def write(rows: Rows, name: str = "set/test-00000-of-00001.parquet", **casts: pa.DataType) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(rows)
        for column, kind in casts.items():
            table = table.set_column(table.schema.get_field_index(column), column, table.column(column).cast(kind))
        pq.write_table(table, path)
        return path

    return write


@pytest.fixture
def benchmark_of(write_parquet: WriteParquet) -> Callable[[Rows], Benchmark]:
    return lambda rows: load_inquire_rerank(write_parquet(rows).parent)


@pytest.fixture
def bench(rows: Rows, benchmark_of: Callable[[Rows], Benchmark]) -> Benchmark:
    return benchmark_of(rows)


def red_is_yes(images: ImageSource) -> ScriptedLMM:
    """A model that looks: the redder the picture, the surer its yes."""

    def answer(request: LMMRequest) -> float:
        red = images.load(request.images[0].image_id).getpixel((0, 0))[0]  # type: ignore[index]
        return 0.1 + 0.8 * red / 255

    return ScriptedLMM(answer, identity="red is yes")


@pytest.fixture
def make_lmm() -> Callable[[ImageSource], ScriptedLMM]:
    return red_is_yes
