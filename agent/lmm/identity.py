"""Who a local model is, told from its files alone: nothing is loaded."""

from __future__ import annotations

from pathlib import Path

from core.fingerprint import fingerprint_files

CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt")
"""What a checkpoint is loaded from, and so what its identity is made of. Pickled weights are not among them."""


def local_identity(folder: Path, dtype: str) -> str:
    """The identity of the checkpoint in a folder, with its weights as `dtype` ("float32", "bfloat16", ...)."""
    files = {file for pattern in CHECKPOINT_FILES for file in folder.glob(pattern)}
    return f"local:{fingerprint_files(files)}:{dtype}"
