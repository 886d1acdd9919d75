"""What strategies with the stage `inspect` need beside a model: images with every look at them, and their regions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import ImageSource
    from fieldscope.retrieval.encoder import Encoder
    from fieldscope.retrieval.regions import RegionProposer


def images_for(strategies: Iterable[Strategy], images: ImageSource) -> ImageSource:
    """The images, with every look at them where one of the strategies looks closer."""
    from fieldscope.retrieval.looked_at import with_looks

    return with_looks(images) if any(strategy.inspect for strategy in strategies) else images


def open_regions(
    strategies: Iterable[Strategy],
    images: ImageSource,
    settings: Settings,
    encoder: Encoder | None = None,
    folder: Path | None = None,
) -> RegionProposer | None:
    """What proposes regions of the images for the strategies that look at regions; None where none does. The `encoder`
    (None: that of the settings) is loaded when a region is first wanted, and its vectors of tiles are kept in `folder`
    (None: in memory)."""
    if not any(strategy.inspect and strategy.inspect.regions for strategy in strategies):
        return None
    from fieldscope.retrieval.regions import TileRegions

    return TileRegions(images, lambda: encoder or load_encoder(settings), folder, pixels_read(settings))


def pixels_read(settings: Settings) -> int:
    """How many pixels of a picture the verifier reads: what the bundled LMM does, or for a server the limit under which
    pictures are sent, at most what a served model is taken to read."""
    from fieldscope.retrieval.regions import BUNDLED_READS, SERVED_READS

    own = settings.of("verifier")
    if own.lmm_url is None:
        return BUNDLED_READS
    side, most = own.max_side, own.max_pixels
    return min([SERVED_READS, *([side**2] if side else []), *([most] if most else [])])
