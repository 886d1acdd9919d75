"""A folder with a model: what kind of model it is, why it can't be loaded safely, and its fingerprint."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from fieldscope.core.errors import ConfigError, first_line
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.hub import download_model
from fieldscope.core.reading import file_bytes, load_json

Kind = Literal["universal", "sentence-transformers", "clip", "open_clip"]

UNIVERSAL = "universal.json"
"""The file by which a folder is known that `fieldscope train-retriever` wrote."""

_MODULES = "modules.json"
_CONFIG = "config.json"
_CLIP_CLASSES = frozenset({"CLIPModel", "SiglipModel", "Siglip2Model"})
_LIBRARY = "sentence_transformers."
_PICKLED = "pytorch_model*.bin"
_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "vocab.txt", "merges.txt")  # what a model is loaded from
_OF_THE_HUB = ("*.safetensors", "*.json", "*.jinja", "*.model", "*vocab.txt", "*merges.txt")
_NOT_THE_MODEL = frozenset({"dtype", "torch_dtype", "transformers_version", "_name_or_path", "__version__"})


def local_folder(argument: str) -> Path:
    """The folder that a user names. Raises `ConfigError` where there is none."""
    folder = Path(argument).expanduser()
    if not argument or not folder.is_dir():
        raise ConfigError(f"{argument or 'path:'} is no folder; give the folder of a model")
    return folder


def hub_or_local_folder(argument: str) -> Path:
    """A folder on this machine, or the one that a model of the hub is downloaded to. Raises `ConfigError`."""
    if not argument:
        raise ConfigError("no model is named after the colon; give a folder, or a model of the hub")
    folder = Path(argument).expanduser()
    return folder if folder.is_dir() else download_model(argument, _OF_THE_HUB)


def kind_of(folder: Path) -> Kind | None:
    """How the model in a folder encodes pictures and texts, by the files that lie there; None for another model."""
    if (folder / UNIVERSAL).is_file():
        return "universal"
    if (folder / _MODULES).is_file():
        return "sentence-transformers"
    if _CLIP_CLASSES.intersection(architectures(folder)):
        return "clip"
    return "open_clip" if (folder / "open_clip_config.json").is_file() else None


def architectures(folder: Path) -> list[str]:
    """The classes of transformers that a folder's config.json names; none where it has no such file."""
    return [str(name) for name in _read(folder / _CONFIG).get("architectures") or ()]


def model_type(folder: Path) -> str:
    """Which of sentence-transformers' models a folder with modules.json holds, such as "CrossEncoder"."""
    return str(_read(folder / "config_sentence_transformers.json").get("model_type") or "SentenceTransformer")


def check_safe(folder: Path) -> None:
    """Raise `ConfigError` where loading the model would unpickle its weights, run code that comes with it, or need
    another model."""
    for entry in _modules(folder):
        if not str(entry.get("type")).startswith(_LIBRARY):
            raise ConfigError(f"{folder}: {needs_own_code(str(entry.get('type')))}")
    for part in _parts(folder):
        pickled = [path.name for path in part.glob(_PICKLED)]
        if pickled and not any(part.glob("*.safetensors")):
            raise ConfigError(
                f"{part} has its weights in {pickled[0]} only, a pickle that could run any code; save the model again "
                "as safetensors"
            )
        if (part / "adapter_config.json").is_file():
            raise ConfigError(f"{part} holds an adapter without its model; give the folder of the two merged")


def needs_own_code(what: str) -> str:
    """Why a model is refused whose class, named in `what`, is code beside its weights."""
    return (
        f"the model needs code of its own ({what}), which Fieldscope never runs; serve it, with vLLM for one, and give "
        "the server's address"
    )


def own_code(folder: Path) -> str | None:
    """The class that a folder's files name as code beside the weights; None where there is none."""
    for part in _parts(folder):
        for name in (_CONFIG, "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
            classes = _read(part / name).get("auto_map")
            if classes:
                return str(next(iter(classes.values()))) if isinstance(classes, dict) else str(classes)
    return None


def folder_fingerprint(folder: Path, how: str) -> str:
    """SHA-256 of all files that the model is loaded from: weights, configuration, tokenizer, preprocessing, templates.

    What says only in which precision the weights are computed, or which release wrote them, is left out. `how` names
    the way they are used.
    """
    files = {
        path.relative_to(folder).as_posix(): _content(path)
        for part in _parts(folder)
        for pattern in _FILES
        for path in sorted(part.glob(pattern))
    }
    return fingerprint({"how": how, "files": files})


def _modules(folder: Path) -> list[dict[str, Any]]:
    """The entries of modules.json. Raises `ConfigError` where they are none, or lead out of the folder."""
    path = folder / _MODULES
    if not path.is_file():
        return []
    entries = _json(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path}: not a list of modules; copy or download the model again")
    for entry in entries:
        part = Path(str(entry.get("path", "")))
        if part.is_absolute() or ".." in part.parts:
            raise ConfigError(f"{path} leads out of its folder ({part}); copy or download the model again")
    return entries


def _parts(folder: Path) -> list[Path]:
    """The folder itself, and the folders of its modules."""
    return list(dict.fromkeys([folder, *(folder / str(entry.get("path", "")) for entry in _modules(folder))]))


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return _without(_NOT_THE_MODEL, _json(path))
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _without(keys: frozenset[str], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(keys, inner) for key, inner in value.items() if key not in keys}
    return [_without(keys, inner) for inner in value] if isinstance(value, list) else value


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no such file."""
    value = _json(path) if path.is_file() else {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: not a JSON object; copy or download the model again")
    return value


def _json(path: Path) -> Any:
    try:
        return load_json(file_bytes(path))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: can't be read as JSON ({first_line(error)}); copy or download the model again"
        ) from error
