"""LMM back ends: the registered ones, and what each is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fieldscope.agent.lmm.base import LMM
from fieldscope.agent.lmm.server_profile import ServerProfile
from fieldscope.core.image_encoding import ImageFormat
from fieldscope.core.registry import Registry
from fieldscope.core.types import ImageSource


@dataclass(frozen=True)
class LMMOptions:
    """What a user chose about a model, under the names of the command line's settings; a back end reads what it uses.

    `images` has the pictures of requests, which travel to a server as `image_format` says, with at most `max_side`
    pixels a side and `max_pixels` in all. `request_timeout` is in seconds for one attempt of a call, `attempts` the
    most attempts, and `concurrency` the most calls at once. `profile` has what is known of the parameters that a server
    takes.
    """

    images: ImageSource
    model: str | None = None
    revision: str | None = None
    api_key: str | None = None
    max_side: int | None = None
    max_pixels: int | None = None
    image_format: ImageFormat = "jpeg"
    concurrency: int = 128
    request_timeout: float = 120.0
    attempts: int = 6
    profile: ServerProfile | None = None


LMMS: Registry[Callable[[str, LMMOptions], LMM]] = Registry("LMM back end", "fieldscope.lmms")
"""Each opens a model from an argument, such as a server's address or a folder. Raises `ConfigError`."""
