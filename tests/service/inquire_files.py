"""INQUIRE's files as it publishes them, made of FieldNotes' pictures."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fieldscope.fieldnotes.rerank import SCHEMA
from fieldscope.fieldnotes.scene import SPECIES
from fieldscope.retrieval.encoder import Vectors
from tests.service.conftest import CRABS, FOX, OWL, RELEVANT, SCENES, TURTLE, World
from tests.service.seeded_encoders import SeededEncoder

GROUPS = {
    CRABS: ("Appearance", "Health and Disease", "Crustaceans"),
    OWL: ("Behavior", "Miscellaneous Behavior", "Birds"),
    FOX: ("Species", "Species ID", "Mammals"),
    TURTLE: ("Context", "Human Impact", "Reptiles"),
}
QUERY_IDS = {CRABS: "109", OWL: "139", FOX: "7", TURTLE: "268"}
FILE = "903be103"
PATHS = {
    image_id: (
        f"train/{int(image_id):05}_Animalia_{SPECIES[scene.groups[0].species].scientific.replace(' ', '_')}"
        f"/{int(image_id):06}-{FILE}.jpg"
    )
    for image_id, scene in SCENES.items()
}


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


def fullrank(folder: Path, world: World) -> Path:
    """A folder `data` as INQUIRE's scripts have it: `inquire` with the tables, `inat24/train` with the images, and no
    embeddings yet."""
    tables = folder / "inquire"
    tables.mkdir(parents=True)
    heading = ["", "query_id", "query_text", "supercategory", "category", "iconic group"]
    rows = [[str(n), QUERY_IDS[text], text, *GROUPS[text]] for n, text in enumerate(GROUPS)]
    write_csv(tables / "inquire_queries_test.csv", [heading, *rows[:3]])
    write_csv(tables / "inquire_queries_val.csv", [heading, rows[3]])
    pairs = [[QUERY_IDS[text], str(9000 + int(i)), PATHS[i]] for text in GROUPS for i in sorted(RELEVANT[text])]
    write_csv(tables / "inquire_annotations.csv", [["query_id", "image_id", "image_path"], *pairs])
    for image_id, path in PATHS.items():
        (folder / "inat24" / path).parent.mkdir(parents=True)
        shutil.copy(world.pictures / f"{int(image_id):06}.png", folder / "inat24" / path)
    return folder


def parquet(folder: Path, world: World) -> Path:
    """INQUIRE-Rerank's shape, all columns filled."""
    rows = [
        {
            "image": {"bytes": (world.pictures / f"{int(i):06}.png").read_bytes(), "path": PATHS[i]},
            "query": text,
            "relevant": int(i in RELEVANT[text]),
            "clip_score": -int(i) / 10,
            "inat24_image_id": 9000 + int(i),
            "inat24_file_name": PATHS[i],
            "supercategory": GROUPS[text][0],
            "category": GROUPS[text][1],
            "iconic_group": GROUPS[text][2],
            "inat24_species_id": int(i),
            "inat24_species_name": SPECIES[scene.groups[0].species].scientific,
            "latitude": 48.8584,
            "longitude": 2.2945,
            "location_uncertainty": 5.0,
            "date": "2024-02-29",
            "license": "CC0",
            "rights_holder": "rights holder's name",
        }
        for text in (CRABS, OWL, FOX)
        for i, scene in SCENES.items()
    ]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "test-00000-of-00001.parquet", row_group_size=7)
    return folder


def vectors_of(name: str, world: World, ids: Sequence[str]) -> Vectors:
    """The vectors of FieldNotes' images under the encoder of random weights of this name."""
    images = [Image.open(world.pictures / f"{int(i):06}.png").convert("RGB") for i in ids]
    return SeededEncoder(name).encode_images(images)


def publish(data: Path, world: World, encoders: Mapping[str, str]) -> None:
    """Embeddings as INQUIRE publishes them, of the encoder of each folder: half precision in pieces, with tables of
    paths without a suffix."""
    for folder, name in encoders.items():
        place = data / "inat24" / "embs" / folder
        (place / "img_emb").mkdir(parents=True)
        (place / "metadata").mkdir()
        for number, ids in enumerate((list(SCENES)[:8], list(SCENES)[8:])):
            np.save(place / "img_emb" / f"img_emb_{number}.npy", vectors_of(name, world, ids).astype(np.float16))
            table = pa.table({"image_path": [PATHS[i].removesuffix(".jpg") for i in ids]})
            pq.write_table(table, place / "metadata" / f"metadata_{number}.parquet")
