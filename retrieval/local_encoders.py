"""Encoders in this process, from a folder or the Hugging Face hub; the files there decide which library loads one."""

from __future__ import annotations

from pathlib import Path

from fieldscope.core.errors import ConfigError
from fieldscope.retrieval.encoder import Encoder
from fieldscope.retrieval.model_folder import architectures, hub_or_local_folder, kind_of, local_folder


def open_folder(argument: str) -> Encoder:
    """The encoder "path": `argument` is a model's folder on this machine. Raises `ConfigError`."""
    return _load(local_folder(argument))


def open_model(argument: str) -> Encoder:
    """The encoder "sentence-transformers": `argument` is a folder, or a model of the hub, which is downloaded once.
    Raises `ConfigError`."""
    return _load(hub_or_local_folder(argument))


def _load(folder: Path) -> Encoder:
    match kind_of(folder):
        case "universal":
            from fieldscope.retrieval.universal_encoder import UniversalEncoder

            return UniversalEncoder.load(folder)
        case "sentence-transformers":
            from fieldscope.retrieval.sentence_encoder import SentenceEncoder

            return SentenceEncoder.load(folder)
        case "clip":
            from fieldscope.retrieval.transformers_clip import TransformersClip

            return TransformersClip.load(folder)
        case "open_clip":
            from fieldscope.retrieval.clip import ClipEncoder

            return ClipEncoder.load(f"local-dir:{folder}")
    found = f" (its config.json names {', '.join(architectures(folder))})" if architectures(folder) else ""
    raise ConfigError(
        f"{folder} holds no encoder that is known here{found}; give a folder with sentence-transformers' modules.json, "
        "the config.json of a CLIP or SigLIP, open_clip_config.json, or what train-retriever wrote"
    )
