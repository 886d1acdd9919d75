"""A model of transformers from its checkpoint: weights without pickles, and an identity made of all that was loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers  # its names are imported when they are first used, and want torchvision prepared by then

from fieldscope.agent.lmm.identity import CHECKPOINT_FILES, local_identity
from fieldscope.core.compat import prepare_torchvision
from fieldscope.core.errors import ConfigError, first_line
from fieldscope.core.hub import download_model


def load_checkpoint(path: Path | str, device: str | None = None, dtype: str | None = None) -> tuple[Any, Any, str]:
    """Model, processor and identity of a checkpoint folder; a name that is no folder is looked for on the Hugging Face
    hub.

    `device` is torch's name of one, by default the accelerator if there is any. `dtype` ("float32", "bfloat16", ...) is
    by default bfloat16 where the device computes it fast, and float32 elsewhere. The weights are read twice, once for
    the identity. Raises `ConfigError` for what can't be loaded, is incomplete, or has no chat template.
    """
    prepare_torchvision()
    transformers.utils.logging.disable_progress_bar()  # a command shows its own
    folder = _folder(path)
    target = torch.device(device) if device else torch.accelerator.current_accelerator(True) or torch.device("cpu")
    dtype = dtype or ("bfloat16" if _fast_at_bfloat16(target) else "float32")
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        model, report = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        model = model.to(target)
    except Exception as error:  # transformers runs code for hundreds of families, which may raise anything
        raise ConfigError(
            f"can't load a model from {path}: {first_line(error, 240)}; use a checkpoint that transformers "
            f"{transformers.__version__} can open as an image-text-to-text model, and that fits into the memory"
        ) from error
    if report["missing_keys"]:  # transformers would leave them random
        raise ConfigError(
            f"the checkpoint {path} is incomplete: it lacks {min(report['missing_keys'])}; copy or download it again"
        )
    if not hasattr(processor, "image_processor") or not _has_prompts(model, processor):
        raise ConfigError(
            f"the checkpoint {path} has no image processor or no chat template; use a checkpoint that has both"
        )
    return model, processor, local_identity(folder, str(model.dtype).removeprefix("torch."))


def checkpoint_folder(path: Path | str) -> Path:
    """The folder of a checkpoint. Raises `ConfigError` where there is none."""
    folder = Path(path).expanduser()
    if not (folder / "config.json").is_file():
        missing = "has no config.json" if folder.is_dir() else "is no folder"
        raise ConfigError(f"{path} {missing}; give the folder of a checkpoint, or hf:NAME for a model of the hub")
    return folder


def hub_folder(name: str, revision: str | None = None) -> Path:
    """The folder that a model of the Hugging Face hub is downloaded to. Raises `ConfigError`."""
    return download_model(name, CHECKPOINT_FILES, revision)


def _folder(path: Path | str) -> Path:
    return Path(path) if Path(path).is_dir() else hub_folder(str(path))


def _has_prompts(model: Any, processor: Any) -> bool:
    """Whether it is known how the model is asked; PaliGemma has no chat template and reads bare text."""
    return bool(processor.chat_template or processor.tokenizer.chat_template or model.config.model_type == "paligemma")


def _fast_at_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; without them it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    abilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(abilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
