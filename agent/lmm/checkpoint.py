"""A model of transformers from its checkpoint: weights without pickles, and an identity made of all that was loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers  # its names are imported when they are first used, and want torchvision prepared by then
from huggingface_hub import snapshot_download
from safetensors import SafetensorError

from fieldscope.agent.lmm.identity import CHECKPOINT_FILES, local_identity
from fieldscope.core.compat import prepare_torchvision
from fieldscope.core.errors import ConfigError, first_line


def load_checkpoint(path: Path | str, device: str | None = None, dtype: str | None = None) -> tuple[Any, Any, str]:
    """Model, processor and identity of a checkpoint folder; a name that is no folder is looked for on the Hugging Face
    hub.

    `device` is torch's name of one, by default the accelerator if there is any. `dtype` ("float32", "bfloat16", ...) is
    by default float32 on the CPU and the checkpoint's own elsewhere. The weights are read twice, once for the identity.
    Raises `ConfigError` for what can't be loaded, is incomplete, or has no chat template.
    """
    prepare_torchvision()
    transformers.utils.logging.disable_progress_bar()  # a command shows its own
    folder = _folder(path)
    target = torch.device(device) if device else torch.accelerator.current_accelerator(True) or torch.device("cpu")
    dtype = dtype or ("float32" if target.type == "cpu" else "auto")
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        model, report = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ConfigError(
            f"can't load a model from {path}: {first_line(error, 240)}; use a checkpoint that transformers can open"
        ) from error
    if report["missing_keys"]:  # transformers would leave them random
        raise ConfigError(
            f"the checkpoint {path} is incomplete: it lacks {min(report['missing_keys'])}; copy or download it again"
        )
    if not hasattr(processor, "image_processor") or not (processor.chat_template or processor.tokenizer.chat_template):
        raise ConfigError(
            f"the checkpoint {path} has no image processor or no chat template; use a checkpoint that has both"
        )
    return model.to(target), processor, local_identity(folder, str(model.dtype).removeprefix("torch."))


def _folder(path: Path | str) -> Path:
    if Path(path).is_dir():
        return Path(path)
    try:
        return Path(snapshot_download(str(path), allow_patterns=list(CHECKPOINT_FILES)))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} is neither a folder nor a model of the hub ({first_line(error, 240)}); check the path"
        ) from error
