"""What proposes closer looks at images: the first stage's encoder over their tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.paths import cache_folder
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.core.types import ImageSource
    from fieldscope.retrieval.encoder import Encoder
    from fieldscope.retrieval.regions import TileRegions


def tile_regions(
    images: ImageSource,
    settings: Settings,
    index: Path | None = None,
    open_encoder: Callable[[], Encoder] | None = None,
    given: bool = False,
) -> TileRegions:
    """Tiles of these images as regions to look at. Nothing is loaded before a region is wanted.

    Their vectors are kept in the `index` of the images, else in the cache folder. `open_encoder` gives the encoder
    where it is not the one of the settings, and `given` says that the LMM is another one than theirs.
    """
    from fieldscope.retrieval.regions import SERVED_READS, TileRegions

    reads = SERVED_READS if given else pixels_read(settings)
    return TileRegions(images, open_encoder or (lambda: load_encoder(settings)), index or _cached(images), reads)


def pixels_read(settings: Settings) -> int:
    """How many pixels of a picture the model that verifies reads: the bundled model's are known, a served model's are
    taken to be as many as it is sent, and no more than a megapixel."""
    from fieldscope.retrieval.regions import BUNDLED_READS, SERVED_READS

    verifier = settings.of("verifier")
    if verifier.lmm_url is None:
        return BUNDLED_READS
    return min(SERVED_READS, verifier.max_side**2, verifier.max_pixels)


def _cached(images: ImageSource) -> Path | None:
    """The folder for vectors of images that have no index; None for images that can't be opened again."""
    from fieldscope.core.fingerprint import fingerprint
    from fieldscope.retrieval.collection import Collection

    return cache_folder() / "tiles" / fingerprint(images.locator())[:16] if isinstance(images, Collection) else None
