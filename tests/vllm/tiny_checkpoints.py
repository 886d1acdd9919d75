"""Tiny random checkpoints of real LMM families, made on the spot: the architecture, processor, special tokens and chat
format of each, with a tokenizer trained on this repository's docs and about a million random parameters.

    python -m tests.vllm.tiny_checkpoints FOLDER [FAMILY ...]

The rows of the output layer for yes, no and a to d are raised, so that an answer has a readable probability; what the
probability is means nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fieldscope.core.compat import prepare_torchvision

DOCS = Path(__file__).resolve().parents[2] / "docs"
PIECES = 3000
ANSWERS = ("yes", "no", "Yes", "No", "a", "b", "c", "d", "A", "B", "C", "D")
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_EMBEDDER = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nRepresent the user's input.<|im_end|>\n{% endif %}"
)
_RERANKER = (
    "<|im_start|>system\nJudge whether the document meets the query. Answer yes or no.<|im_end|>\n<|im_start|>user\n"
    "{% set ns = namespace(instruct=instruction | default('Find what fits the query.')) %}"
    "{% macro show(content) %}{% if content is string %}{{ content }}{% else %}{% for part in content %}"
    "{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endmacro %}"
    "{% for message in messages %}{% if message.role == 'system' %}{% set ns.instruct = show(message.content) %}"
    "{% endif %}{% endfor %}<Instruct>: {{ ns.instruct }}{% for message in messages %}"
    "{% if message.role == 'query' %}\n<Query>: {{ show(message.content) }}"
    "{% elif message.role == 'document' %}\n<Document>: {{ show(message.content) }}{% endif %}{% endfor %}"
    "<|im_end|>\n<|im_start|>assistant\n"
)
_GEMMA = (
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message.role == 'system' %}{% set ns.system = message.content if message.content is string "
    "else message.content[0].text %}{% else %}"
    "<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{% if ns.system %}{{ ns.system }}\n\n{% set ns.system = '' %}{% endif %}"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<start_of_image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_turn>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_IDEFICS = (
    "<|im_start|>{% for message in messages %}{{ message.role | capitalize }}:"
    "{% if message.content is string %} {{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %} {{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
_LLAVA_NEXT = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system message') }}"
    "{% endif %}{{ '[INST] ' if message.role == 'user' else ' ' }}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>\n{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{{ ' [/INST]' if message.role == 'user' else eos_token }}{% endfor %}"
)


def make_qwen2_5_vl(folder: Path) -> None:
    import transformers as t

    tokenizer = _tokenizer(_QWEN, eos="<|im_end|>", pad="<|endoftext|>")
    config = t.Qwen2_5_VLConfig(
        text_config=_decoder(tokenizer) | {"rope_parameters": _rope([4, 6, 6])},
        vision_config={
            **{"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 96},
            **{"patch_size": 14, "spatial_merge_size": 2, "window_size": 56, "fullatt_block_indexes": [1]},
        },
        **_qwen_ids(tokenizer),
    )
    images = t.Qwen2VLImageProcessor(
        **{"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2},
        **{"size": {"shortest_edge": 3136, "longest_edge": 200_704}, "image_mean": CLIP_MEAN, "image_std": CLIP_STD},
    )
    processor = t.Qwen2_5_VLProcessor(images, tokenizer, _qwen_videos(14), chat_template=_chatml(_QWEN_IMAGE))
    _save(folder, t.Qwen2_5_VLForConditionalGeneration, config, processor)


def make_qwen3_vl(folder: Path) -> None:
    import transformers as t

    tokenizer = _tokenizer(_QWEN, eos="<|im_end|>", pad="<|endoftext|>")
    config = t.Qwen3VLConfig(
        text_config=_decoder(tokenizer) | {"rope_parameters": _rope([6, 5, 5]) | {"mrope_interleaved": True}},
        vision_config={
            **{"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 96},
            **{"patch_size": 16, "spatial_merge_size": 2, "num_position_embeddings": 256},
            "deepstack_visual_indexes": [0],
        },
        **_qwen_ids(tokenizer),
    )
    images = t.Qwen2VLImageProcessor(
        **{"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2},
        **{"size": {"shortest_edge": 65_536, "longest_edge": 16_777_216}, "image_mean": HALF, "image_std": HALF},
    )
    processor = t.Qwen3VLProcessor(images, tokenizer, _qwen_videos(16), chat_template=_chatml(_QWEN_IMAGE))
    _save(folder, t.Qwen3VLForConditionalGeneration, config, processor)


def make_qwen3_vl_embedding(folder: Path) -> None:
    """An embedder: the vector is the last token's, of length 1."""
    make_qwen3_vl(folder)
    (folder / "chat_template.jinja").write_text(_EMBEDDER + _chatml(_QWEN_IMAGE))
    _sentence_transformers(
        folder,
        "SentenceTransformer",
        {
            **{"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"},
            "processing_kwargs": {"chat_template": {"add_generation_prompt": True}},
        },
        "last_hidden_state",
        {
            "1_Pooling": (
                "sentence_transformer.modules.Pooling",
                {"embedding_dimension": 96, "pooling_mode": "lasttoken", "include_prompt": True},
            ),
            "2_Normalize": ("sentence_transformer.modules.Normalize", {}),
        },
    )


def make_qwen3_vl_reranker(folder: Path) -> None:
    """A reranker: the score is by how much "yes" is more likely than "no" as the next word."""
    from transformers import AutoTokenizer

    make_qwen3_vl(folder)
    (folder / "chat_template.jinja").write_text(_RERANKER.replace("IMAGE", _QWEN_IMAGE))
    yes, no = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(["yes", "no"])
    _sentence_transformers(
        folder,
        "CrossEncoder",
        {"transformer_task": "any-to-any", "module_output_name": "causal_logits"},
        "logits",
        {
            "1_LogitScore": (
                "cross_encoder.modules.logit_score.LogitScore",
                {"true_token_id": yes, "false_token_id": no},
            )
        },
    )


def make_internvl3(folder: Path) -> None:
    import transformers as t

    names = {
        **{"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"},
        "video_token": "<video>",
    }
    tokenizer = _tokenizer((*_CHAT_TOKENS, *names.values()), eos="<|im_end|>", pad="<|endoftext|>", **names)
    config = t.InternVLConfig(
        text_config=_decoder(tokenizer) | {"model_type": "qwen2"},
        vision_config={
            **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"image_size": [56, 56], "patch_size": [14, 14]},
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    images = t.GotOcr2ImageProcessor(
        size={"height": 56, "width": 56}, crop_to_patches=True, min_patches=1, max_patches=6
    )
    videos = t.InternVLVideoProcessor(size={"height": 56, "width": 56})
    template = _chatml("<IMG_CONTEXT>\n")
    processor = t.InternVLProcessor(images, tokenizer, videos, image_seq_length=4, chat_template=template)
    _save(folder, t.InternVLForConditionalGeneration, config, processor)


def make_llava_onevision(folder: Path) -> None:
    import transformers as t

    tokenizer = _tokenizer((*_CHAT_TOKENS, "<image>", "<video>"), eos="<|im_end|>", pad="<|endoftext|>")
    pinpoints = [[56, 56], [56, 112], [112, 56], [112, 112]]
    config = t.LlavaOnevisionConfig(
        text_config=_decoder(tokenizer) | {"model_type": "qwen2"},
        vision_config=_siglip(56, 14),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
    )
    images = t.LlavaOnevisionImageProcessor(
        size={"height": 56, "width": 56}, image_grid_pinpoints=pinpoints, image_mean=HALF, image_std=HALF
    )
    processor = t.LlavaOnevisionProcessor(
        images,
        tokenizer,
        t.LlavaOnevisionVideoProcessor(size={"height": 56, "width": 56}),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=_chatml("<image>\n"),
    )
    _save(folder, t.LlavaOnevisionForConditionalGeneration, config, processor, _hub_names)


def make_llava_next(folder: Path) -> None:
    import transformers as t

    tokenizer = _tokenizer(("<s>", "</s>", "<unk>", "<image>"), eos="</s>", pad="<unk>", bos_token="<s>")
    pinpoints = [[56, 112], [112, 56], [112, 112]]
    config = t.LlavaNextConfig(
        text_config=_decoder(tokenizer) | {"model_type": "mistral", "sliding_window": None},
        vision_config={
            **{"model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 128, "patch_size": 14},
            **{"num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56, "projection_dim": 64},
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
    )
    images = t.LlavaNextImageProcessor(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=pinpoints
    )
    processor = t.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_LLAVA_NEXT,
    )
    _save(folder, t.LlavaNextForConditionalGeneration, config, processor)


def make_gemma3(folder: Path) -> None:
    import transformers as t

    names = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    specials = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", *names.values())
    newlines = ("\n\n", "\n\n\n", "\n\n\n\n")
    tokenizer = _tokenizer(
        specials, eos="<eos>", pad="<pad>", bos_token="<bos>", plain=newlines, metaspace=True, **names
    )
    ids = tokenizer.convert_tokens_to_ids
    config = t.Gemma3Config(
        text_config=_decoder(tokenizer) | {"sliding_window": 64, "query_pre_attn_scalar": 32, "bos_token_id": 2},
        vision_config=_siglip(56, 14),
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
        eos_token_id=[ids("<eos>"), ids("<end_of_turn>")],
    )
    images = t.Gemma3ImageProcessor(size={"height": 56, "width": 56}, image_mean=HALF, image_std=HALF)
    processor = t.Gemma3Processor(images, tokenizer, chat_template=_GEMMA, image_seq_length=4)
    _save(folder, t.Gemma3ForConditionalGeneration, config, processor, _hub_names)


def make_paligemma(folder: Path) -> None:
    import transformers as t

    names = {"image_token": "<image>"}
    specials = ("<pad>", "<eos>", "<bos>", "<unk>", "<image>")
    tokenizer = _tokenizer(specials, eos="<eos>", pad="<pad>", bos_token="<bos>", metaspace=True, **names)
    config = t.PaliGemmaConfig(
        text_config=_decoder(tokenizer) | {"model_type": "gemma", "head_dim": 32},
        vision_config=_siglip(56, 14) | {"projection_dim": 96},
        projection_dim=96,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = t.SiglipImageProcessor(size={"height": 56, "width": 56}, image_mean=HALF, image_std=HALF)
    images.image_seq_length = 16
    processor = t.PaliGemmaProcessor(images, tokenizer)
    _save(folder, t.PaliGemmaForConditionalGeneration, config, processor)


def make_idefics3(folder: Path) -> None:
    import transformers as t

    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    specials = ("<|im_start|>", "<|endoftext|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>")
    tokenizer = _tokenizer(
        (*specials, "<global-img>", *tiles), eos="<end_of_utterance>", pad="<|endoftext|>", bos_token="<|im_start|>"
    )
    config = t.Idefics3Config(
        text_config=_decoder(tokenizer) | {"model_type": "llama", "pad_token_id": tokenizer.pad_token_id},
        vision_config=_siglip(56, 14) | {"model_type": "idefics3_vision"},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    images = t.Idefics3ImageProcessor(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}, image_mean=HALF, image_std=HALF
    )
    processor = t.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=_IDEFICS)
    _save(folder, t.Idefics3ForConditionalGeneration, config, processor)


MAKERS: dict[str, Callable[[Path], None]] = {
    "qwen2.5-vl": make_qwen2_5_vl,
    "qwen3-vl": make_qwen3_vl,
    "internvl3": make_internvl3,
    "llava-onevision": make_llava_onevision,
    "llava-next": make_llava_next,
    "gemma3": make_gemma3,
    "idefics3": make_idefics3,
    "paligemma": make_paligemma,
}

POOLING: dict[str, Callable[[Path], None]] = {
    "qwen3-vl-embedding": make_qwen3_vl_embedding,
    "qwen3-vl-reranker": make_qwen3_vl_reranker,
}

_CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN = (*_CHAT_TOKENS, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def make(family: str, folder: Path) -> Path:
    """The checkpoint of a family in a folder of its name below `folder`."""
    prepare_torchvision()
    (MAKERS | POOLING)[family](folder / family)
    return folder / family


def _chatml(image: str) -> str:
    return _CHATML.replace("IMAGE", image)


def _tokenizer(
    specials: Sequence[str], eos: str, pad: str, plain: Sequence[str] = (), metaspace: bool = False, **named: str
) -> Any:
    """A BPE of about 3,000 pieces, trained on the docs: on bytes, or on words behind ▁ with bytes to fall back on."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))] + [" ".join(ANSWERS)] * 200
    alphabet = [f"<0x{value:02X}>" for value in range(256)] if metaspace else []
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=[*specials, *plain, *alphabet],
        initial_alphabet=[] if metaspace else pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core = Tokenizer(models.BPE(unk_token="<unk>" if metaspace else None, byte_fallback=metaspace, fuse_unk=metaspace))
    if metaspace:
        core.normalizer = normalizers.Replace(" ", "▁")
        core.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    else:
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
    core.train_from_iterator(texts, trainer)
    core.add_tokens([AddedToken(token, normalized=False) for token in plain])
    roles = {"bos_token", "unk_token"}
    known = {name: token for name, token in named.items() if name in roles}
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=eos,
        pad_token=pad,
        extra_special_tokens={name: token for name, token in named.items() if name not in roles},
        **known,
    )


def _decoder(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 32_768,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": False,
    }


def _rope(sections: list[int]) -> dict[str, Any]:
    """Rotary positions in time, height and width; the sections are halves of a head's width together."""
    return {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": sections}


def _siglip(side: int, patch: int) -> dict[str, Any]:
    return {
        **{"model_type": "siglip_vision_model", "image_size": side, "patch_size": patch, "vision_use_head": False},
        **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    }


def _qwen_ids(tokenizer: Any) -> dict[str, Any]:
    named = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in named.items()} | {
        "tie_word_embeddings": False
    }


def _qwen_videos(patch: int) -> Any:
    import transformers as t

    kind = t.Qwen2VLVideoProcessor if patch == 14 else t.Qwen3VLVideoProcessor
    return kind(patch_size=patch, temporal_patch_size=2, merge_size=2)


def _save(
    folder: Path, model_class: Any, config: Any, processor: Any, rename: Callable[[Path], None] | None = None
) -> None:
    import torch

    torch.manual_seed(11)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)  # far from uniform, so that the input matters
        # The first feature is alike for all words, and no layer changes it, so that it can carry what the answers have
        # more of.
        words, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        words[:, 0] = 6 * words.std()
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")) and len(parameter) == words.shape[1]:
                parameter[0] = 0
        for answer in ANSWERS:
            ids = processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
            if len(ids) == 1:
                head[ids[0], 0] += 16.0 if len(answer) > 1 else 8.0
    model.generation_config.eos_token_id = config.get_text_config().eos_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if rename is not None:
        rename(folder)


def _sentence_transformers(
    folder: Path, kind: str, transformer: dict[str, Any], output: str, modules: dict[str, tuple[str, dict[str, Any]]]
) -> None:
    """Write the files by which sentence-transformers knows how to use the checkpoint in `folder`."""
    method = {"method": "forward", "method_output_name": output}
    modalities = {"text": method, "image": method, "message": method | {"format": "structured"}}
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]
    for path, (name, settings) in modules.items():
        number = len(listed)
        listed.append({"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.{name}"})
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(settings))
    files = {
        "modules.json": listed,
        "config_sentence_transformers.json": {"model_type": kind, "prompts": {}, "default_prompt_name": None},
        "sentence_bert_config.json": transformer | {"modality_config": modalities},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


def _hub_names(folder: Path) -> None:
    """Rename the vision tower's weights as published checkpoints, and vLLM, call them."""
    from safetensors.torch import load_file, save_file

    weights = {
        name.replace("vision_tower.", "vision_tower.vision_model.")
        if "vision_tower." in name and "vision_model." not in name
        else name: tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def main(folder: str, *families: str) -> None:
    for family in families or MAKERS | POOLING:
        path = make(family, Path(folder))
        megabytes = sum(file.stat().st_size for file in path.iterdir()) / 1e6
        sys.stdout.write(f"{path}: {megabytes:.1f} MB\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
