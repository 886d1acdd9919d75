"""Mines hard questions: training queries, and the training pictures that the CLIP ranks high for them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from fieldscope.core.compat import prepare_torchvision
from fieldscope.fieldnotes.facts import Spec
from fieldscope.fieldnotes.grammar import Words
from fieldscope.fieldnotes.sampling import random_spec
from fieldscope.fieldnotes.training.clip import normalise
from fieldscope.fieldnotes.training.pictures import Pictures

QUERIES = 6000
POOL = 4000
HEAD = 40
BATCH = 256


def mine(pictures: Pictures, clip: Path, folder: Path) -> list[list[Spec]]:
    """For each picture the training queries whose head it is in, in a pool of 4,000 others: mostly near misses."""
    vectors = _image_vectors(pictures, clip, folder / "mining.npy")
    rng = random.Random("fieldnotes-mining")
    specs = [random_spec(pictures.scenes[rng.randrange(len(pictures.scenes))], rng, 2, 6) for _ in range(QUERIES)]
    queries = _text_vectors([Words(rng).spec(spec) for spec in specs], clip)
    mined: list[list[Spec]] = [[] for _ in pictures.scenes]
    draw = np.random.default_rng(11)
    for spec, query in track(list(zip(specs, queries, strict=True)), "mining"):
        pool = draw.choice(len(vectors), POOL, replace=False)
        scores = vectors[pool] @ query
        for row in pool[np.argpartition(-scores, HEAD)[:HEAD]]:
            mined[row].append(spec)
    return mined


def _load(clip: Path) -> tuple[Any, Any]:
    prepare_torchvision()
    import open_clip

    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{clip}")
    return model.eval(), open_clip.get_tokenizer(f"local-dir:{clip}")


@torch.inference_mode()
def _image_vectors(pictures: Pictures, clip: Path, path: Path) -> NDArray[np.float32]:
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False))
    model, _ = _load(clip)
    out: list[Tensor] = []
    for start in track(range(0, len(pictures.scenes), BATCH), "encoding pictures"):
        with torch.autocast("cpu", torch.bfloat16):
            out.append(model.encode_image(normalise(pictures.pixels[start : start + BATCH])).float())
    vectors = F.normalize(torch.cat(out), dim=-1).numpy()
    np.save(path, vectors)
    return vectors


@torch.inference_mode()
def _text_vectors(texts: list[str], clip: Path) -> NDArray[np.float32]:
    model, tokenize = _load(clip)
    batches = [model.encode_text(tokenize(texts[i : i + BATCH])) for i in range(0, len(texts), BATCH)]
    return F.normalize(torch.cat(batches).float(), dim=-1).numpy()
