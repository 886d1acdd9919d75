"""What a user chooses about models and the response cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.paths import cache_folder

if TYPE_CHECKING:
    from fieldscope.agent.lmm.cached import CacheMode
    from fieldscope.agent.lmm.image_encoding import ImageFormat
    from fieldscope.agent.lmm.server_profile import ServerProfile

IMAGE_FORMATS = ("jpeg", "png")
CACHE_MODES = ("on", "refresh", "replay", "off")
DEFAULT_CONCURRENCY = 128
DEFAULT_MAX_SIDE = 1024
DEFAULT_MAX_PIXELS = 1_048_576
DEFAULT_IMAGE_FORMAT: ImageFormat = "jpeg"
DEFAULT_REQUEST_TIMEOUT = 120.0
DEFAULT_ATTEMPTS = 6
DEFAULT_MAX_UNKNOWN = 0.10
DEFAULT_STRATEGY = "agent"


@dataclass(frozen=True)
class Settings:
    """Models, and how to talk to them.

    `lmm_url` and `model` name a server and the model it serves, `revision` whatever tells two models of that name
    apart; without a server the bundled LMM answers. `api_key` is by default what the environment says. `clip` is a
    name or folder for open_clip; None is the bundled CLIP. `concurrency` bounds the calls in flight, of which a server
    gets as many as make it faster. Images that are longer than `max_side` pixels on a side, or have more than
    `max_pixels` in all, are scaled down before they are sent to a server, and sent as `image_format` says. A call to a
    server has `request_timeout` seconds, and at most `attempts` attempts where another one can help. `prompts` is a
    prompt set's name or a folder of prompts; None is the set for the LMM. `profile` has the parameters that the server
    takes, as far as they are set and not to be found out.
    """

    lmm_url: str | None = None
    model: str | None = None
    revision: str | None = None
    api_key: str | None = field(default=None, repr=False)
    clip: str | None = None
    cache_mode: CacheMode = "on"
    cache_file: Path | None = None
    concurrency: int = DEFAULT_CONCURRENCY
    max_side: int = DEFAULT_MAX_SIDE
    max_pixels: int = DEFAULT_MAX_PIXELS
    image_format: ImageFormat = DEFAULT_IMAGE_FORMAT
    request_timeout: float = DEFAULT_REQUEST_TIMEOUT
    attempts: int = DEFAULT_ATTEMPTS
    prompts: str | None = None
    profile: ServerProfile | None = None

    def __post_init__(self) -> None:
        for name in ("lmm_url", "clip"):
            if getattr(self, name) == "bundled":  # by its name, or by naming none
                object.__setattr__(self, name, None)

    @property
    def backend(self) -> tuple[str, str]:
        """The registered LMM back end and its argument; a text that names no back end is a server's address."""
        from fieldscope.agent.lmm.backends import LMMS

        return LMMS.split(self.lmm_url, "openai") if self.lmm_url else ("bundled", "")

    @property
    def asks_server(self) -> bool:
        """Whether a server's model is asked, and not the bundled one or another package's."""
        return self.backend[0] == "openai" and self.model is not None

    @property
    def store_path(self) -> Path:
        """The response cache's file."""
        return self.cache_file or cache_folder() / "responses.sqlite"
