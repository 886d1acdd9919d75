"""Who a model is: a local one by its files alone, one behind a server by its name and what the server tells of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from fieldscope.core.fingerprint import fingerprint_files
from fieldscope.core.image_encoding import ImageEncoding, ImageFormat

CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt")
"""What a checkpoint is loaded from, and so what its identity is made of. Pickled weights are not among them."""

_SENT = r"#(?:png|jpeg\d+)(?:<=\d+)?(?:,?<=\d+px)?"
_TOLD = re.compile(rf"(?P<named>openai:.*{_SENT})#[^#]+", re.DOTALL)
_NAMED = re.compile(rf"(?P<model>openai:.*){_SENT}", re.DOTALL)
_SERVED = re.compile(r"openai:(?P<model>.+?)(@.*)?#(png|jpeg\d+)[<=\dpx,]*(#.*)?")


def local_identity(folder: Path, dtype: str) -> str:
    """The identity of the checkpoint in a folder, with its weights as `dtype` ("float32", "bfloat16", ...)."""
    files = {file for pattern in CHECKPOINT_FILES for file in folder.glob(pattern)}
    return f"local:{fingerprint_files(files)}:{dtype}"


def server_identity(
    model: str,
    revision: str | None = None,
    max_side: int | None = None,
    facts: Mapping[str, str] | None = None,
    max_pixels: int | None = None,
    image_format: ImageFormat = "png",
) -> str:
    """The identity of a model behind a server: its name, the user's `revision`, how images are sent
    (`fieldscope.agent.lmm.image_encoding`), and the `facts` that the server tells of it
    (`fieldscope.core.server_facts`)."""
    sent = ImageEncoding(image_format, max_side, max_pixels).name
    named = f"openai:{model}" + (f"@{revision}" if revision else "") + f"#{sent}"
    known = ",".join(f"{name}={value}" for name, value in (facts or {}).items())
    return f"{named}#{known}" if known else named


def named_identity(identity: str) -> str:
    """The identity without what the server tells of the model, as Fieldscope had it before it asked for that; any
    other identity as it is."""
    match = _TOLD.fullmatch(identity)
    return match["named"] if match else identity


def served_name(identity: str) -> str | None:
    """The name under which a server has the model of this identity; None for a local one."""
    served = _SERVED.fullmatch(identity)
    return served["model"] if served else None


def sent_otherwise(identity: str) -> str:
    """The identity without what the server tells of the model and without how images are sent to it; any other
    identity as it is."""
    match = _NAMED.fullmatch(named_identity(identity))
    return match["model"] if match else identity


def may_be(recorded: str | None, identity: str | None) -> bool:
    """Whether what was recorded under one identity may be of the model of another: they are the same, or the first was
    recorded without what the server tells, and agrees in all else."""
    return recorded == identity or (identity is not None and recorded == named_identity(identity))
