"""Trains the bundled LMM: a LLaVA whose eyes are the CLIP's vision tower after its training on patches.

    python -m fieldscope.fieldnotes.training.lmm [--families N] [--folder DIR] [--out DIR]

Plain yes/no training stays at chance at this size. What makes it take off: projected patches aligned with the word
embeddings of what they show, open questions beside the closed ones, and Muon. Resumable from the last checkpoint.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from fieldscope.core.compat import prepare_torchvision
from fieldscope.fieldnotes.facts import Spec
from fieldscope.fieldnotes.lessons import LABELS, Row, best_segments, reference_segments, single_segments, text_segments
from fieldscope.fieldnotes.sampling import FAMILY
from fieldscope.fieldnotes.scene import COLOURS, SPECIES, Scene
from fieldscope.fieldnotes.training.clip import IGNORE, STD, Truth, normalise
from fieldscope.fieldnotes.training.packing import Batch, Codec, attention, collate, fill
from fieldscope.fieldnotes.training.pictures import GRID, PIXELS, Pictures, arguments, load_pictures
from fieldscope.fieldnotes.training.schedule import Schedule, load_checkpoint, optimisers, save_checkpoint
from fieldscope.fieldnotes.vocabulary import MODELS, lmm_tokenizer, lmm_vocabulary

STEPS = 3100
FREEZE = 0.35
CHECKPOINT_EVERY = 200
WORDS = {
    "subject": list(SPECIES),
    "colour": list(COLOURS),
    "pose": ["resting", "flying", "sleeping", "climbing"],
    "count": ["one", "two", "three"],
    "item": ["", "litter", "tag", "leaf", "nest", "net"],
}


@dataclass(frozen=True)
class Lesson:
    """A kind of step: how many pictures in a row, rows in a batch, tokens in a row."""

    pictures: int
    rows: int
    length: int


LESSONS = {
    "one": Lesson(1, 32, 352),
    "two": Lesson(2, 28, 416),
    "three": Lesson(3, 14, 448),
    "four": Lesson(4, 14, 480),
    "text": Lesson(0, 16, 640),
}


def lesson_of(step: int, steps: int) -> str:
    """Which kind of step this is: text early and often, several pictures from a quarter of the way on."""
    draw = random.Random(f"lesson-{step}").random()
    done = step / steps
    if draw < 0.2:
        return "text"
    if done < 0.25 or draw < 0.64:
        return "one"
    return "two" if draw < 0.8 else "three" if draw < 0.9 else "four"


class Lessons(IterableDataset[tuple[int, str, Batch]]):
    """The steps from `first` on; each depends on its number only."""

    def __init__(
        self, scenes: Sequence[Scene], mined: Sequence[Sequence[Spec]], codec: Codec, first: int, steps: int
    ) -> None:
        self.scenes, self.mined, self.codec, self.first, self.steps = scenes, mined, codec, first, steps

    def row(self, kind: str, rng: random.Random) -> Row:
        if kind == "text":
            return Row((), (), text_segments(rng))
        if kind == "one":
            i = rng.randrange(len(self.scenes))
            return Row((i,), ("",), single_segments(self.scenes[i], self.mined[i], rng))
        n = LESSONS[kind].pictures
        family = rng.randrange(len(self.scenes) // FAMILY) * FAMILY
        members = rng.sample(range(family, family + FAMILY), n)
        if kind != "three" and rng.random() < 0.25:
            members[rng.randrange(n)] = rng.randrange(len(self.scenes))
        scenes = [self.scenes[i] for i in members]
        segments = reference_segments(scenes, rng) if kind == "three" else best_segments(scenes, rng)
        return Row(tuple(members), rng.choice(LABELS[n]), segments)

    def __iter__(self) -> Iterator[tuple[int, str, Batch]]:
        for step in range(self.first, self.steps):
            rng = random.Random(f"lmm-{step}")
            kind = lesson_of(step, self.steps)
            lesson = LESSONS[kind]
            rows = [fill(self.codec, self.row(kind, rng), lesson.length, rng) for _ in range(lesson.rows)]
            yield step, kind, collate(rows, 0)


def build(vocabulary: Sequence[str]) -> Any:
    """The untrained model, `LlavaForConditionalGeneration`: about 7 million parameters."""
    prepare_torchvision()
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    index = {token: i for i, token in enumerate(vocabulary)}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=PIXELS,
            patch_size=PIXELS // GRID,
            hidden_size=192,
            num_hidden_layers=6,
            num_attention_heads=3,
            intermediate_size=768,
            projection_dim=192,
            hidden_act="gelu",
        ),
        text_config=LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=256,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=4,
            intermediate_size=640,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=index["<eos>"],
            pad_token_id=index["<pad>"],
        ),
        image_token_id=index["<image>"],
        image_seq_length=GRID * GRID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = index["<eos>"]
    model.generation_config.pad_token_id = index["<pad>"]
    return model


def load_eyes(model: Any, visual: dict[str, Tensor]) -> None:
    """open_clip's vision tower into transformers' names."""
    tower = model.model.vision_tower
    names = {
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "conv1.weight": "embeddings.patch_embedding.weight",
        "ln_pre.weight": "pre_layrnorm.weight",
        "ln_pre.bias": "pre_layrnorm.bias",
        "ln_post.weight": "post_layernorm.weight",
        "ln_post.bias": "post_layernorm.bias",
    }
    inner = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    state = {new: visual[old] for old, new in names.items()}
    for i in range(6):
        old, new = f"transformer.resblocks.{i}", f"encoder.layers.{i}"
        for kind in ("weight", "bias"):
            for a, b in inner.items():
                state[f"{new}.{b}.{kind}"] = visual[f"{old}.{a}.{kind}"]
            state[f"{new}.self_attn.out_proj.{kind}"] = visual[f"{old}.attn.out_proj.{kind}"]
            for part, values in zip("qkv", visual[f"{old}.attn.in_proj_{kind}"].chunk(3), strict=True):
                state[f"{new}.self_attn.{part}_proj.{kind}"] = values
    own = {name.removeprefix("vision_model.") for name in tower.state_dict()}
    prefix = "" if own == set(tower.state_dict()) else "vision_model."
    tower.load_state_dict({prefix + name: values for name, values in state.items()}, strict=False)
    missing = {name for name in own if "position_ids" not in name} - set(state)
    if missing:
        raise ValueError(f"the vision tower lacks {sorted(missing)[:3]}")


class Alignment(nn.Module):
    """Pulls projected patches towards the embeddings of the words for what they show."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.words = {
            name: torch.tensor([codec.ids[f" {word}"] if word else 0 for word in words])
            for name, words in WORDS.items()
        }
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def forward(self, patches: Tensor, embeddings: Tensor, truth: dict[str, Tensor]) -> Tensor:
        patches, loss = F.normalize(patches.float(), dim=-1), torch.zeros(())
        for name, words in self.words.items():
            logits = self.log_scale.exp() * patches @ F.normalize(embeddings[words].float(), dim=-1).T
            loss = loss + F.cross_entropy(logits.flatten(0, 1), truth[name].flatten(), ignore_index=IGNORE)
        return loss


def forward(model: Any, pixels: Tensor, batch: Batch, image_id: int, frozen: bool) -> tuple[Tensor, Tensor]:
    """Logits (supervised positions, vocabulary) and the projected patches (pictures, 64, 256)."""
    embeds = model.model.language_model.embed_tokens(batch.ids)
    patches = torch.zeros(())
    if len(pixels):
        with torch.set_grad_enabled(not frozen):
            seen = model.model.vision_tower(pixels).last_hidden_state[:, 1:]
        patches = model.model.multi_modal_projector(seen)
        embeds = embeds.masked_scatter((batch.ids == image_id)[:, :, None], patches.to(embeds.dtype))
    hidden = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask=attention(batch.segments),
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    return model.lm_head(hidden[batch.rows, batch.at]), patches


class Score:
    """A running account of how often the first answer token is right, by task."""

    def __init__(self) -> None:
        self.right: dict[str, float] = defaultdict(float)
        self.asked: dict[str, int] = defaultdict(int)

    def add(self, logits: Tensor, batch: Batch) -> None:
        hits = (logits.argmax(-1) == batch.target).tolist()
        whole = ("synthesize", "decompose", "joint", "caption", "reason")
        for hit, first, task, weight in zip(hits, batch.first.tolist(), batch.task, batch.weight.tolist(), strict=True):
            if first or (task.startswith(whole) and weight > 0.1):
                self.right[task] += hit
                self.asked[task] += 1

    def __str__(self) -> str:
        return " ".join(f"{task} {self.right[task] / n:.3f}" for task, n in sorted(self.asked.items()))


def train(pictures: Pictures, mined: Sequence[Sequence[Spec]], folder: Path, out: Path) -> None:
    """Train on one schedule and write the model folder."""
    torch.manual_seed(0)
    vocabulary = lmm_vocabulary()
    codec = Codec(vocabulary)
    model, aligned = build(vocabulary), Alignment(codec)
    eyes = torch.load(folder / "clip-dense.pt", weights_only=True)["modules"]["model"]
    load_eyes(model, {name.removeprefix("visual."): v for name, v in eyes.items() if name.startswith("visual.")})
    with torch.no_grad():
        for token, i in codec.ids.items():
            if token.startswith(" ") and (bare := codec.ids.get(token[1:])):
                weight = model.model.language_model.embed_tokens.weight
                weight[bare] = 0.9 * weight[i] + 0.3 * weight[bare]

    modules = {"model": model, "aligned": aligned}
    language = [model.model.language_model, model.model.multi_modal_projector, aligned]
    optims = optimisers(language, 1e-3, 1e-3) + optimisers([model.model.vision_tower], 3e-4, 3e-4)
    schedule = Schedule(optims, STEPS, 80)
    checkpoint = folder / "lmm.pt"
    first = load_checkpoint(checkpoint, modules, optims)
    truth, image_id = Truth(pictures), codec.special("<image>")
    lessons = Lessons(pictures.scenes, mined, codec, first, STEPS)
    loader = DataLoader(lessons, batch_size=None, num_workers=1, prefetch_factor=6)
    score = Score()
    for step, _, batch in track(loader, "lessons", total=STEPS - first):
        rows = batch.pictures.numpy()
        with torch.autocast("cpu", torch.bfloat16):
            logits, patches = forward(model, normalise(pictures.pixels[rows]), batch, image_id, step < FREEZE * STEPS)
        logits = logits.float()
        losses = F.cross_entropy(logits, batch.target, reduction="none")
        loss = (losses * batch.weight).sum() / batch.weight.sum()
        if len(rows):
            words = model.model.language_model.embed_tokens.weight
            fade = 0.3 if step < 0.3 * STEPS else 0.1
            loss = loss + fade * aligned(patches, words, truth.batch(rows))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        schedule.step(step)
        score.add(logits, batch)
        if (step + 1) % 50 == 0:
            print(f"{step + 1}/{STEPS} loss {loss.item():.3f} {score}", flush=True)
            score = Score()
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == STEPS:
            save_checkpoint(checkpoint, modules, optims, step + 1)
    write(model, vocabulary, out)


def published_name(name: str) -> str:
    """The name of a weight in the file, from its name in the module."""
    inner = name.removeprefix("model.")
    if inner.startswith("vision_tower."):
        return "vision_tower.vision_model." + inner.removeprefix("vision_tower.").removeprefix("vision_model.")
    if inner.startswith("language_model."):
        return "language_model.model." + inner.removeprefix("language_model.")
    return inner


def write(model: Any, vocabulary: list[str], out: Path) -> None:
    """The folder that transformers and vLLM both load.

    vLLM needs the vision tower as `vision_tower.vision_model.*`; transformers reads that too. The file is float16,
    the configuration says float32, so that both compute in float32 on a CPU.
    """
    from transformers import CLIPImageProcessor, LlavaProcessor

    out.mkdir(parents=True, exist_ok=True)
    model.config.dtype = torch.float32
    model.config.architectures = ["LlavaForConditionalGeneration"]
    model.config.save_pretrained(out)
    model.generation_config.save_pretrained(out)
    weights = {
        published_name(name): tensor.half().contiguous().clone()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embeddings
    }
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer = lmm_tokenizer(vocabulary)
    images = CLIPImageProcessor(
        size={"shortest_edge": PIXELS},
        crop_size={"height": PIXELS, "width": PIXELS},
        resample=3,
        image_mean=[STD] * 3,
        image_std=[STD] * 3,
        do_convert_rgb=True,
    )
    LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PIXELS // GRID,
        vision_feature_select_strategy="default",
        chat_template=tokenizer.chat_template,
        image_token="<image>",
        num_additional_image_tokens=1,
    ).save_pretrained(out)
    words = sorted(
        {token.strip() for token in vocabulary if token.strip().isalpha() and len(token.strip()) > 1} | {"a"}
    )
    (out / "vocabulary.txt").write_text("\n".join(words) + "\n")


def main() -> None:
    from fieldscope.fieldnotes.training.mining import mine

    parser = arguments("Train the bundled LMM.")
    parser.add_argument("--out", type=Path, default=MODELS / "lmm")
    options = parser.parse_args()
    pictures = load_pictures(options.folder / "pictures", options.families)
    mined = mine(pictures, MODELS / "clip", options.folder)
    train(pictures, mined, options.folder, options.out)


if __name__ == "__main__":
    main()
