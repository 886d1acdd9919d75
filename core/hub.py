"""Models of the Hugging Face hub, each downloaded once into the hub's own cache folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download

from fieldscope.core.errors import ConfigError, first_line


def download_model(name: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """The folder that the files of a model that match `patterns` are downloaded to. `revision` is a branch, tag or
    commit. Raises `ConfigError`."""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{name} is neither a folder nor a model of the hub ({first_line(error, 240)}); check the path"
        ) from error
