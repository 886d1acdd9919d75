"""What a cluster's workers do with blocks of images: encode them, or their tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldscope.core.errors import ConfigError, ImageError, one_line
from fieldscope.retrieval.encoding import Encoding, encoded_batches
from fieldscope.retrieval.opening import reopen_collection
from fieldscope.retrieval.regions import TileRegions
from fieldscope.service.wiring.cluster import Block, Cluster, Done
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.regions import pixels_read
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.retrieval.collection import Collection
    from fieldscope.retrieval.encoder import Encoder, Vectors

Locator = Mapping[str, Any]


class EncodingWorker:
    """The vectors of documents, as float32."""

    def __init__(self, locator: Locator, settings: Settings, fingerprint: str) -> None:
        self._images = reopen_collection(locator)
        self._encoder = _same_encoder(settings, fingerprint)

    def __call__(self, block: Block) -> Iterator[Done]:
        _require_there(self._images, block)
        skipped: dict[str, str] = {}
        for vectors in encoded_batches(self._images, self._encoder, block, skipped):
            yield from (Done(image_id, vector.tobytes()) for image_id, vector in vectors.items())
        yield from (Done(image_id, None, why) for image_id, why in skipped.items())


class TileWorker:
    """The vectors of images' tiles, as float32."""

    def __init__(self, locator: Locator, settings: Settings, fingerprint: str) -> None:
        self._images = reopen_collection(locator)
        encoder = _same_encoder(settings, fingerprint)
        self._regions = TileRegions(self._images, lambda: encoder, None, pixels_read(settings))

    def __call__(self, block: Block) -> Iterator[Done]:
        _require_there(self._images, block)
        for image_id in block:
            try:
                yield Done(image_id, self._regions.vectors(image_id).tobytes())
            except ImageError as error:
                yield Done(image_id, None, one_line(error))


def encoding_on(
    cluster: Cluster,
    work: type[EncodingWorker] | type[TileWorker],
    images: Collection,
    encoder: Encoder,
    settings: Settings,
) -> Encoding:
    """Documents or tiles encoded by a cluster's workers, who open the images and load the encoder themselves."""

    def encode(ids: Sequence[str], skipped: MutableMapping[str, str]) -> Iterator[Mapping[str, Vectors]]:
        shape = (-1,) if work is EncodingWorker else (-1, encoder.dim)
        for block in cluster.each_block(ids, work, images.locator(), settings, encoder.fingerprint):
            skipped.update({done.image_id: done.why for done in block if done.data is None})
            yield {
                done.image_id: np.frombuffer(done.data, np.float32).reshape(shape)
                for done in block
                if done.data is not None
            }

    return encode


def _same_encoder(settings: Settings, fingerprint: str) -> Encoder:
    """The encoder of the settings. Raises `ConfigError` where this machine has another one under that name."""
    encoder = load_encoder(settings)
    if encoder.fingerprint != fingerprint:
        raise ConfigError(
            f"a machine of the Ray cluster has another encoder {settings.encoder or 'bundled'!r} "
            f"({encoder.fingerprint[:12]} and not {fingerprint[:12]}); install the same version and weights everywhere"
        )
    return encoder


def _require_there(images: Collection, block: Block) -> None:
    """Raise `ConfigError` where this machine does not have an image that the first one has."""
    for image_id in block:
        try:
            images.stamp(image_id)
        except ImageError as error:
            raise ConfigError(
                f"a machine of the Ray cluster can't see an image ({one_line(error, 120)}); put the images where all "
                "machines see them under the same path"
            ) from error
