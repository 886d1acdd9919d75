"""INQUIRE's published embeddings of iNat24 (github.com/inquire-benchmark/INQUIRE): which model made each folder.

The names of folders and models are those of its script `src/utils.py`. OpenAI's, DFN's and MetaCLIP's weights were
trained with QuickGELU, and Fieldscope builds them with it under both of their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

_SIGNS = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class PublishedModel:
    """A model by its names for open_clip, of which the first is the usual one, and on the Hugging Face hub.

    With `text_tower` they are names of another model with the same text tower: it encodes queries as the model itself
    does, but not images. `caution` is what a reader of its figures must know.
    """

    names: tuple[str, ...]
    text_tower: bool = False
    caution: str = ""


def _quick(model: str, weights: str, *hub: str, caution: str = "") -> PublishedModel:
    """A model that was trained with QuickGELU."""
    return PublishedModel((f"{model}:{weights}", f"{model}-quickgelu:{weights}", *hub), caution=caution)


# WildCLIP (Gabeff et al. 2023), whose training changed the image tower of OpenAI's ViT-B/16 and nothing else.
_WILDCLIP = PublishedModel(
    ("ViT-B-16:openai", "ViT-B-16-quickgelu:openai", "openai/clip-vit-base-patch16"),
    text_tower=True,
    caution="WildCLIP's training left the text tower of ViT-B-16:openai as it was, so that model encodes the queries",
)
_GELU = (
    "INQUIRE's script names this model without QuickGELU, so its embeddings may be those of the wrong activation, and "
    "figures may differ from the published ones"
)

PUBLISHED: Mapping[str, PublishedModel] = {
    "vit-b-32": _quick("ViT-B-32", "openai", "openai/clip-vit-base-patch32"),
    "vit-b-16": _quick("ViT-B-16", "openai", "openai/clip-vit-base-patch16"),
    "vit-l-14": _quick("ViT-L-14", "openai", "openai/clip-vit-large-patch14"),
    "rn50": _quick("RN50", "openai"),
    "rn50x16": _quick("RN50x16", "openai"),
    "vit-b-16-dfn": _quick("ViT-B-16", "dfn2b", "apple/DFN2B-CLIP-ViT-B-16", caution=_GELU),
    "vit-l-14-dfn": _quick("ViT-L-14", "dfn2b", "apple/DFN2B-CLIP-ViT-L-14"),
    "vit-h-14-378": _quick("ViT-H-14-378", "dfn5b", "apple/DFN5B-CLIP-ViT-H-14-378"),
    "siglip-vit-l-16-384": PublishedModel(("ViT-L-16-SigLIP-384:webli", "timm/ViT-L-16-SigLIP-384")),
    "siglip-so400m-14-384": PublishedModel(("ViT-SO400M-14-SigLIP-384:webli", "timm/ViT-SO400M-14-SigLIP-384")),
    "bioclip": PublishedModel(("hf-hub:imageomics/bioclip", "imageomics/bioclip")),
    "wildclip-t1": _WILDCLIP,
    "wildclip-t1t7-lwf": _WILDCLIP,
}
"""Folder of published embeddings -> the model that made them."""


def query_encoder(encoder: str) -> str:
    """The encoder of queries for a published folder of this name; any other text as it is."""
    return PUBLISHED[encoder].names[0] if encoder in PUBLISHED else encoder


def made_by(encoder: str, folders: Sequence[str]) -> list[str]:
    """Those of the folders, by their names, that are known to hold vectors for an encoder's queries.

    That is the folder that the encoder is named as, or that is named after it; else the one that INQUIRE's list gives
    it; else those of models with its text tower.
    """
    signs = (
        lambda folder: folder == encoder,
        lambda folder: _plain(folder) in _own_names(encoder),
        lambda folder: _is_listed(encoder, folder) and not PUBLISHED[folder].text_tower,
        lambda folder: _is_listed(encoder, folder),
    )
    return next((found for sign in signs if (found := list(filter(sign, folders)))), [])


def is_of_another(encoder: str, folder: str) -> bool:
    """Whether both are in INQUIRE's list, and apart."""
    known = encoder in PUBLISHED or any(_is_listed(encoder, other) for other in PUBLISHED)
    return known and folder in PUBLISHED and not made_by(encoder, [folder])


def _is_listed(encoder: str, folder: str) -> bool:
    """Whether INQUIRE's list has this encoder for this folder, with or without the kind of encoder before its name."""
    names = PUBLISHED[folder].names if folder in PUBLISHED else ()
    return encoder in names or encoder.partition(":")[2] in names


def _own_names(encoder: str) -> set[str]:
    """What a folder may be called after an encoder: its whole name, that of a model's folder, of a server's model."""
    folder, model = PurePath(encoder.removeprefix("path:")).name, encoder.rpartition("#")[2]
    return {plain for name in (encoder, folder, model, model.rpartition("/")[2]) if (plain := _plain(name))}


def _plain(name: str) -> str:
    """A name in small letters and digits, with single dashes for all other signs."""
    return _SIGNS.sub("-", name.lower()).strip("-")
