"""Models of sentence-transformers (an extra) from a folder, which nothing is downloaded, unpickled or run for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fieldscope.core.compat import prepare_torchvision
from fieldscope.core.errors import ConfigError, first_line
from fieldscope.retrieval.model_folder import architectures, check_safe, needs_own_code, own_code

if TYPE_CHECKING:
    from PIL.Image import Image

_MARK = "INSTRUCTION"
_PADS_TO_THE_END = frozenset({"siglip", "siglip2"})  # their text models attend to the padding


def load_model(kind: Literal["SentenceTransformer", "CrossEncoder"], folder: Path, device: str | None = None) -> Any:
    """The model in a folder. `device` is torch's name of one, by default the accelerator if there is any.

    Weights have the precision of the checkpoint on an accelerator, and float32 on the CPU. Raises `ConfigError` where
    the extra is not installed, and for a model that can't be loaded safely or is incomplete.
    """
    check_safe(folder)
    prepare_torchvision()
    import torch

    try:
        import sentence_transformers
        import transformers
    except ImportError as error:
        raise ConfigError(
            f"{folder} needs the package sentence-transformers ({first_line(error)}); install it with "
            "pip install 'fieldscope[encoders]'"
        ) from error
    log = transformers.utils.logging
    log.disable_progress_bar()  # a command shows its own
    verbosity = log.get_verbosity()
    log.set_verbosity_error()  # it reports the layers of a generating model that an encoder does not use
    target = torch.device(device) if device else torch.accelerator.current_accelerator(True) or torch.device("cpu")
    try:
        model = getattr(sentence_transformers, kind)(
            str(folder),
            device="cpu",  # and moved later: what `_check_complete` looks at may not survive that
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": "float32" if target.type == "cpu" else "auto"},
        )
    except Exception as error:  # the library runs code for hundreds of families, which may raise anything
        code = own_code(folder)
        reason = needs_own_code(code) if code else f"{first_line(error, 240)}; check that its files are complete"
        raise ConfigError(f"can't load the model in {folder}: {reason}") from error
    finally:
        log.set_verbosity(verbosity)
    _check_complete(model, folder)
    _pad_texts_of_siglip(model)
    return model.to(target)


def takes_pictures(model: Any) -> bool:
    return bool(model.supports("image"))


def takes_both(model: Any) -> bool:
    """Whether a picture and a text can be one input."""
    return bool(model.supports(("image", "text")))


def takes_instructions(model: Any, pairs: bool = False) -> bool:
    """Whether an instruction has a place: in the chat template of a model that reads messages (`pairs` of query and
    document), as its system's message, or else as a prompt before the words."""
    reader = _reader(model)
    if "message" not in model.modalities or reader is None:
        return any(model.prompts.values())
    formatter = reader.input_formatter
    messages = formatter.pair_to_messages(("a", "b")) if pairs else formatter.to_message({"text": "a"})
    [instructed] = formatter.prepend_prompt_to_messages([messages], _MARK)
    try:
        return _MARK in str(reader.processor.apply_chat_template(instructed, tokenize=False))
    except Exception:  # noqa: BLE001  a template raises what it likes where it takes no system's message
        return False


def reads_parts(model: Any) -> bool:
    """Whether the model's messages are made of parts that have a kind, and not of bare texts."""
    reader = _reader(model)
    return (
        "message" in model.modalities and reader is not None and reader.input_formatter.message_format == "structured"
    )


def as_input(text: str, image: Image | None) -> dict[str, Any]:
    """A text, a picture, or both as the library takes them. It takes a bare string that looks like an address or the
    name of a file for the picture there, and would fetch it; a named text is only read."""
    if image is None:
        return {"text": text}
    return {"image": image, "text": text} if text else {"image": image}


def _reader(model: Any) -> Any:
    """The module that turns inputs into tokens and pixels; None where the model has another kind of one."""
    return next((module for module in model.modules() if hasattr(module, "input_formatter")), None)


def _check_complete(model: Any, folder: Path) -> None:
    """Raise `ConfigError` where transformers had to draw weights at random because the checkpoint has none."""
    network = model.transformers_model
    if network is None:
        return
    drawn = [name for name, tensor in network.named_parameters() if not getattr(tensor, "_is_hf_initialized", False)]
    if drawn:
        raise ConfigError(
            f"{folder} lacks weights of {', '.join(architectures(folder)) or type(network).__name__}, {min(drawn)} for "
            "one; copy or download the model again"
        )


def _pad_texts_of_siglip(model: Any) -> None:
    """SigLIP learned texts that are padded to their greatest length; what the checkpoint itself says of that wins."""
    network, reader = model.transformers_model, _reader(model)
    if network is not None and reader is not None and network.config.model_type in _PADS_TO_THE_END:
        length = network.config.text_config.max_position_embeddings
        padded = {"padding": "max_length", "truncation": True, "max_length": length}
        saved = reader.processing_kwargs
        reader.processing_kwargs = {**saved, "text": padded | saved.get("text", {})}
