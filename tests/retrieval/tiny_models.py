"""Tiny random models of other kinds than open_clip's: transformers' CLIP and SigLIPs, and a reranker of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fieldscope.core.compat import prepare_torchvision

WORDS = ("a", "the", "two", "red", "blue", "crab", "crabs", "fish", "on", "in", "beach", "rain")
LONGEST = 16  # tokens of a text


def tokenizer(lower_cases: bool = False, **settings: Any) -> Any:
    """A tokenizer of whole words, which ends each text with </s>."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", "<unk>", "[CLS]", "[SEP]", *WORDS, *(word.title() for word in WORDS)]
    core = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    if lower_cases:
        core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", **settings
    )


def make_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIP as transformers saves one."""
    import transformers as t

    text = _tower() | {"vocab_size": 40, "max_position_embeddings": LONGEST, "eos_token_id": 2, "bos_token_id": 1}
    config = t.CLIPConfig(text_config=text, vision_config=_tower() | _picture(), projection_dim=24)
    images = t.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return _save(folder, t.CLIPModel, config, t.CLIPProcessor(images, tokenizer()), seed)


def make_siglip(folder: Path, seed: int = 0) -> Path:
    """A SigLIP of a fixed resolution, as most of SigLIP 2 are as well: no mask tells its text model of the padding."""
    import transformers as t

    config = t.SiglipConfig(text_config=_siglip_text(), vision_config=_tower() | _picture())
    images = t.SiglipImageProcessor(size={"height": 28, "width": 28})
    words = tokenizer(lower_cases=True, model_input_names=["input_ids"])
    return _save(folder, t.SiglipModel, config, t.SiglipProcessor(images, words), seed)


def make_siglip2(folder: Path, seed: int = 0) -> Path:
    """A SigLIP 2 that keeps a picture's proportions (NaFlex)."""
    import transformers as t

    vision = _tower() | {"num_patches": 16, "patch_size": 16, "num_channels": 3}
    config = t.Siglip2Config(text_config=_siglip_text(), vision_config=vision)
    images = t.Siglip2ImageProcessor(patch_size=16, max_num_patches=256)
    words = tokenizer(lower_cases=True, model_input_names=["input_ids"])
    return _save(folder, t.Siglip2Model, config, t.Siglip2Processor(images, words), seed)


def make_text_reranker(folder: Path, labels: int = 1, seed: int = 0) -> Path:
    """A reranker of texts as transformers saves one, without any file of sentence-transformers."""
    import transformers as t

    config = t.BertConfig(**_tower(), vocab_size=40, max_position_embeddings=64, num_labels=labels)
    return _save(folder, t.BertForSequenceClassification, config, tokenizer(), seed)


def list_modules(folder: Path, kind: str, modalities: tuple[str, ...], **settings: Any) -> Path:
    """Add the files by which sentence-transformers knows the CLIP or SigLIP in a folder, `settings` among them."""
    entry = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    methods = {name: {"method": f"get_{name}_features", "method_output_name": "pooler_output"} for name in modalities}
    library = {"model_type": kind, "prompts": settings.pop("prompts", {}), "default_prompt_name": None}
    transformer = {"modality_config": methods, "module_output_name": "sentence_embedding"} | settings
    write_json(folder / "modules.json", [entry])
    write_json(folder / "config_sentence_transformers.json", library)
    write_json(folder / "sentence_bert_config.json", transformer)
    return folder


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def change_json(path: Path, **changes: Any) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


def _tower() -> dict[str, int]:
    return {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}


def _picture() -> dict[str, int]:
    return {"image_size": 28, "patch_size": 14}


def _siglip_text() -> dict[str, Any]:
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return _tower() | ids | {"vocab_size": 40, "max_position_embeddings": LONGEST, "projection_size": 32}


def _save(folder: Path, model_class: Any, config: Any, processor: Any, seed: int) -> Path:
    prepare_torchvision()
    import torch

    torch.manual_seed(seed)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)  # no bias is zero, and no two inputs are alike
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
