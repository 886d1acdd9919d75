"""Trains the bundled CLIP: first what each patch shows, then pictures against captions.

    python -m fieldscope.fieldnotes.training.clip [--families N] [--folder DIR] [--out DIR]

Contrastive training from scratch barely learns shape at this size, so the vision tower first learns from
the renderer's patch labels. Resumable from the last checkpoint.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn

from fieldscope.core.compat import prepare_torchvision
from fieldscope.fieldnotes.grammar import Words
from fieldscope.fieldnotes.sampling import random_spec
from fieldscope.fieldnotes.scene import COLOURS, HABITATS, ITEMS, POSES, SPECIES, WEATHERS
from fieldscope.fieldnotes.training.pictures import GRID, PIXELS, Pictures, arguments, load_pictures
from fieldscope.fieldnotes.training.schedule import Schedule, load_checkpoint, optimisers, save_checkpoint
from fieldscope.fieldnotes.vocabulary import CLIP_CONTEXT, MODELS, clip_tokenizer

WIDTH = 192
MEAN = STD = 0.5
DENSE_STEPS, DENSE_BATCH = 1600, 128
CONTRAST_STEPS, CONTRAST_BATCH = 220, 192
CHECKPOINT_EVERY = 300
IGNORE = -100


def config(vocabulary: int, pad: int, eos: int) -> dict[str, object]:
    """The `open_clip_config.json` of the bundled CLIP."""
    return {
        "model_cfg": {
            "embed_dim": WIDTH,
            "vision_cfg": {
                "image_size": PIXELS,
                "patch_size": PIXELS // GRID,
                "width": WIDTH,
                "layers": 6,
                "head_width": 64,
                "mlp_ratio": 4.0,
            },
            "text_cfg": {
                "context_length": CLIP_CONTEXT,
                "vocab_size": vocabulary,
                "hf_tokenizer_name": "local",
                "width": WIDTH,
                "heads": 3,
                "layers": 4,
                "pad_id": pad,
                "eos_id": eos,
                "pool_type": "eos",
            },
        },
        "preprocess_cfg": {
            "size": PIXELS,
            "mode": "RGB",
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
            "fill_color": 0,
        },
    }


def normalise(pixels: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w) in -1 ... 1."""
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


class DenseHeads(nn.Module):
    """Reads from every patch what stands there, and from the class token what the whole scene is."""

    SIZES: ClassVar = {
        "subject": len(SPECIES),
        "colour": len(COLOURS),
        "pose": len(POSES),
        "count": 3,
        "item": len(ITEMS),
        "ground": 2,
        "habitat": len(HABITATS),
        "weather": len(WEATHERS),
    }
    SCENE: ClassVar = ("habitat", "weather")

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in self.SIZES.items()})

    def forward(self, patches: Tensor, scene: Tensor) -> dict[str, Tensor]:
        return {name: head(scene if name in self.SCENE else patches) for name, head in self.heads.items()}


class Truth:
    """What the dense heads should say, for every training picture, as small integer tables."""

    def __init__(self, pictures: Pictures) -> None:
        species, n = list(SPECIES), len(pictures.scenes)
        table = np.full((n, 3, 5), IGNORE, np.int64)
        for i, scene in enumerate(pictures.scenes):
            for j, g in enumerate(scene.groups):
                table[i, j] = (
                    species.index(g.species),
                    COLOURS.index(g.colour),
                    POSES.index(g.pose),
                    g.count - 1,
                    ITEMS.index(g.item),
                )
        self.table, self.group, self.item = table, pictures.group, pictures.item
        self.scene = np.array([(HABITATS.index(s.habitat), WEATHERS.index(s.weather)) for s in pictures.scenes])

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        group = self.group[rows].astype(np.int64)
        # Background patches point at the table's third row, which says "ignore".
        patch = np.take_along_axis(self.table[rows], np.where(group < 0, 2, group)[:, :, None], axis=1)
        item = np.where(self.item[rows] > 0, patch[:, :, 4], 0)
        truth = {name: patch[:, :, k] for k, name in enumerate(("subject", "colour", "pose", "count"))}
        truth |= {"item": item, "ground": (group >= 0).astype(np.int64)}
        truth |= {"habitat": self.scene[rows, 0], "weather": self.scene[rows, 1]}
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in truth.items()}


WEIGHTS = {"subject": 2.0, "colour": 1.0, "pose": 1.0, "count": 1.0, "item": 2.0, "ground": 0.5, "habitat": 0.3}


def dense_loss(said: dict[str, Tensor], truth: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """The weighted sum of the heads' cross-entropies, and each head's accuracy (items: on the items' patches)."""
    loss, right = torch.zeros(()), {}
    for name, logits in said.items():
        flat, target = logits.float().flatten(0, -2), truth[name].flatten()
        loss = loss + WEIGHTS.get(name, 0.3) * F.cross_entropy(flat, target, ignore_index=IGNORE)
        judged = target > 0 if name == "item" else target != IGNORE
        right[name] = float((flat.argmax(-1) == target)[judged].float().mean())
    return loss, right


def encode_patches(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Embedding (n, 192), class token (n, 192) and patches (n, 64, 192) of the vision tower."""
    visual = model.visual
    x = visual._embeds(pixels)
    x = visual.transformer(x)
    normed = visual.ln_post(x)
    return normed[:, 0] @ visual.proj, normed[:, 0], normed[:, 1:]


def encode_text(model: Any, tokens: Tensor) -> Tensor:
    """open_clip's `encode_text` over the columns that are not all padding: the same result, in half the time."""
    width = int((tokens != 0).sum(1).max())
    cut = tokens[:, :width]
    x = model.token_embedding(cut) + model.positional_embedding[:width]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:width, :width]))
    ends = cut.eq(model.text_eos_id).int().argmax(-1)
    pooled: Tensor = x[torch.arange(len(x)), ends] @ model.text_projection
    return pooled


def rows_for(step: int, batch: int, n: int, single: np.ndarray | None) -> np.ndarray:
    """The pictures of one step, the same whenever the step is run again."""
    draw = np.random.default_rng((7, step))
    return draw.choice(single, batch) if single is not None else draw.integers(0, n, batch)


def report(step: int, steps: int, loss: float, right: dict[str, float]) -> None:
    print(f"{step}/{steps} loss {loss:.3f} " + " ".join(f"{k} {v:.3f}" for k, v in right.items()), flush=True)


def train(pictures: Pictures, folder: Path, out: Path) -> None:
    """Train both stages and write the model folder."""
    prepare_torchvision()
    import open_clip

    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    settings = config(len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
    model = open_clip.CLIP(**settings["model_cfg"])  # type: ignore[arg-type]
    heads = DenseHeads()
    truth, n = Truth(pictures), len(pictures.scenes)
    single = np.array([i for i, scene in enumerate(pictures.scenes) if len(scene.groups) == 1])

    modules = {"model": model, "heads": heads}
    optims = optimisers([model.visual, heads], 2e-3, 1e-3)
    schedule = Schedule(optims, DENSE_STEPS, 60)
    checkpoint = folder / "clip-dense.pt"
    first = load_checkpoint(checkpoint, modules, optims)
    for step in track(range(first, DENSE_STEPS), "patches"):
        rows = rows_for(step, DENSE_BATCH, n, single if step < DENSE_STEPS // 8 else None)
        with torch.autocast("cpu", torch.bfloat16):
            _, token, patches = encode_patches(model, normalise(pictures.pixels[rows]))
            said = heads(patches, token)
        loss, right = dense_loss(said, truth.batch(rows))
        loss.backward()
        schedule.step(step)
        if step % 50 == 0:
            report(step, DENSE_STEPS, loss.item(), right)
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == DENSE_STEPS:
            save_checkpoint(checkpoint, modules, optims, step + 1)

    optims = optimisers([model, heads], 1e-3, 6e-4)
    schedule = Schedule(optims, CONTRAST_STEPS, 30)
    checkpoint = folder / "clip.pt"
    first = load_checkpoint(checkpoint, modules, optims)
    for step in track(range(first, CONTRAST_STEPS), "captions"):
        rows = rows_for(DENSE_STEPS + step, CONTRAST_BATCH, n, None)
        rng = random.Random(step)
        captions = [Words(rng).spec(random_spec(pictures.scenes[row], rng, 1, 7)) for row in rows]
        tokens = tokenizer(
            captions, padding="max_length", max_length=CLIP_CONTEXT, truncation=True, return_tensors="pt"
        )["input_ids"]
        with torch.autocast("cpu", torch.bfloat16):
            image, token, patches = encode_patches(model, normalise(pictures.pixels[rows]))
            said = heads(patches, token)
            text = encode_text(model, tokens)
        image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
        logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
        target = torch.arange(len(rows))
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        dense, right = dense_loss(said, truth.batch(rows))
        (contrast + 0.15 * dense).backward()
        schedule.step(step)
        if step % 25 == 0:
            right = {"R@1": float((logits.argmax(0) == target).float().mean())} | right
            report(step, CONTRAST_STEPS, contrast.item(), right)
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == CONTRAST_STEPS:
            save_checkpoint(checkpoint, modules, optims, step + 1)
    write(model, settings, out)


def write(model: Any, settings: dict[str, object], out: Path) -> None:
    """The folder that open_clip loads as `local-dir:`: configuration, float16 weights, tokenizer, vocabulary."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = clip_tokenizer()
    tokenizer.save_pretrained(out)
    (out / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, out / "open_clip_model.safetensors")
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha())
    (out / "vocabulary.txt").write_text("\n".join(words) + "\n")


def main() -> None:
    parser = arguments("Train the bundled CLIP.")
    parser.add_argument("--out", type=Path, default=MODELS / "clip")
    options = parser.parse_args()
    train(load_pictures(options.folder / "pictures", options.families), options.folder, options.out)


if __name__ == "__main__":
    main()
