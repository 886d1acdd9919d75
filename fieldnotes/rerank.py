"""FieldNotes-Rerank: each query's top 100 by a CLIP, as Parquet files of exactly INQUIRE-Rerank's columns."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fieldscope.core.files import replacing
from fieldscope.core.paths import cache_folder
from fieldscope.core.types import Scale
from fieldscope.fieldnotes.collection import ensure_pictures, read_split
from fieldscope.fieldnotes.scene import SPECIES, Scene
from fieldscope.retrieval.background import background, sampled
from fieldscope.retrieval.encoder import Encoder, QueryInputs, Vectors
from fieldscope.retrieval.progress import Report

TOP = 100
_BATCH = 128
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("query", pa.string()),
        ("relevant", pa.int64()),
        ("clip_score", pa.float64()),
        ("inat24_image_id", pa.int64()),
        ("inat24_file_name", pa.string()),
        ("supercategory", pa.string()),
        ("category", pa.string()),
        ("iconic_group", pa.string()),
        ("inat24_species_id", pa.int64()),
        ("inat24_species_name", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("location_uncertainty", pa.float64()),
        ("date", pa.string()),
        ("license", pa.string()),
        ("rights_holder", pa.string()),
    ]
)


def ensure_rerank(split: str, encoder: Encoder, folder: Path | None = None, progress: Report | None = None) -> Path:
    """The folder with the Parquet file of a split under this encoder, written on first use.

    It lies in the cache folder under the encoder's fingerprint, so that another CLIP's candidates never mix in.
    """
    folder = folder or cache_folder() / "fieldnotes" / f"rerank-{encoder.fingerprint[:16]}"
    path = folder / f"{split}-00000-of-00001.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(split, encoder, path, progress)
    return folder


def ensure_backgrounds(
    split: str, encoder: Encoder, texts: Sequence[str], folder: Path, progress: Report | None = None
) -> list[Scale | None]:
    """How similar a sample of the split's pictures is to each text. The sample's vectors are kept in the folder of
    `ensure_rerank`."""
    path = folder / f"{split}-sample.npy"
    if not path.exists():
        files = ensure_pictures(split)
        paths = [files[name] for name in sampled(list(files))]
        with replacing(path) as partial, partial.open("wb") as stream:
            np.save(stream, _encoded(paths, encoder, progress), allow_pickle=False)
    vectors = np.load(path, allow_pickle=False)
    return [background(vectors, encoder.encode_query(QueryInputs(text))) for text in texts]


def _encoded(paths: Sequence[Path], encoder: Encoder, progress: Report | None) -> Vectors:
    """The vectors of pictures, shape (n, dim)."""
    vectors: list[Vectors] = []

    def encoded(start: int) -> Vectors:
        return encoder.encode_images([_open(path) for path in paths[start : start + _BATCH]])

    with ThreadPoolExecutor(2) as pool:  # one batch is read and scaled while the model has another
        for number, batch in enumerate(pool.map(encoded, range(0, len(paths), _BATCH)), 1):
            vectors.append(batch)
            if progress is not None:
                progress(min(number * _BATCH, len(paths)), len(paths))
    return np.concatenate(vectors) if vectors else np.empty((0, 0), dtype=np.float32)


def _write(split: str, encoder: Encoder, path: Path, progress: Report | None) -> None:
    data = read_split(split)
    files = ensure_pictures(split, progress=progress)
    ids = list(files)
    matrix = _encoded(list(files.values()), encoder, progress)

    @cache  # most images are candidates of several queries
    def columns(image_id: str) -> dict[str, object]:
        return _image_columns(image_id, data.scenes[image_id], files[image_id])

    options = {"compression": {"image.bytes": "none"}, "use_dictionary": False}
    with replacing(path) as partial, pq.ParquetWriter(partial, SCHEMA, **options) as writer:
        for query in data.queries:
            scores = matrix @ encoder.encode_query(QueryInputs(query.text))
            best = np.argsort(-scores, kind="stable")[:TOP]
            rows = [
                {
                    **columns(ids[i]),
                    "query": query.text,
                    "relevant": int(ids[i] in data.relevant[query.id]),
                    "clip_score": float(scores[i]),
                    "supercategory": query.supercategory,
                    "category": query.category,
                    "iconic_group": query.iconic_group,
                }
                for i in best.tolist()
            ]
            # In order of id: a reader that trusts the rows' order must not find the ranking there.
            rows.sort(key=lambda row: int(str(row["inat24_image_id"])))
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _image_columns(image_id: str, scene: Scene, path: Path) -> dict[str, object]:
    """What a row says of its image, whatever the query."""
    species = SPECIES[scene.groups[0].species]
    place = random.Random(f"place-{scene.key()}")
    return {
        "image": {"bytes": path.read_bytes(), "path": path.name},
        "inat24_image_id": int(image_id),
        "inat24_file_name": f"fieldnotes/{species.scientific.replace(' ', '_')}/{path.name}",
        "inat24_species_id": list(SPECIES).index(species.name),
        "inat24_species_name": species.scientific,
        "latitude": round(place.uniform(-60, 70), 4),
        "longitude": round(place.uniform(-180, 180), 4),
        "location_uncertainty": float(place.choice((5, 20, 100, 1000))),
        "date": f"2024-{place.randint(1, 12):02d}-{place.randint(1, 28):02d}",
        "license": "CC0",
        "rights_holder": "Fieldscope",
    }
