"""A folder of images made searchable."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.service.wiring.bundled import FOREIGN
from fieldscope.service.wiring.feedback import keeping, note, progress, warn
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.own_pictures import all_fieldnotes
from fieldscope.service.wiring.regions import tile_regions
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.retrieval.encoding import Encoding
    from fieldscope.retrieval.library import BuildReport
    from fieldscope.service.metadata.records import Records


@dataclass(frozen=True)
class Indexed:
    """What was built, and the warnings about it."""

    build: BuildReport
    flags: tuple[str, ...]
    records: Records


def index_folder(
    folder: Path,
    out: Path,
    settings: Settings,
    kind: str,
    tiles: bool = False,
    metadata: Path | None = None,
    ray: str | None = None,
) -> Indexed:
    """Encode the images in a folder, or in Parquet files there, into an index in `out`; images that were encoded before
    are kept. `kind` is the name of a registered index. With `tiles` parts of the images are encoded, too, which closer
    looks at images and `retrieve.tiles` would otherwise do when they need them. The images' rows in the table
    `metadata`, and time and place from their EXIF, are kept beside the index. `ray` is the address of a Ray cluster
    whose workers encode (`fieldscope.service.wiring.cluster.connected`); None: this process does.

    Raises `ConfigError` where there is no image, or the table names none of them, and `IndexMismatchError` where `out`
    is of another CLIP.
    """
    from fieldscope.retrieval.library import build_index
    from fieldscope.retrieval.opening import open_collection
    from fieldscope.service.metadata.store import gather, require_rows
    from fieldscope.service.wiring.cluster import connected
    from fieldscope.service.workflows.block_workers import EncodingWorker, TileWorker, encoding_on

    collection = open_collection([folder])
    if metadata is not None:
        require_rows(collection, metadata)
    flags = () if settings.encoder or all_fieldnotes(collection, collection.ids()) else (FOREIGN,)
    for flag in flags:
        warn(flag)
    encoder = load_encoder(settings)
    kept = f"the images encoded so far are kept in {out}; rerun this command to continue"
    name = settings.encoder or "bundled"
    with connected(ray) if ray is not None else nullcontext() as cluster:

        def encoding(work: type[EncodingWorker] | type[TileWorker]) -> Encoding | None:
            return encoding_on(cluster, work, collection, encoder, settings) if cluster is not None else None

        with keeping(kept), progress("encoding images") as report:
            build = build_index(
                collection,
                encoder,
                out,
                encoder_name=name,
                index_kind=kind,
                progress=report,
                encoding=encoding(EncodingWorker),
            )
        if tiles:
            indexed = [image_id for image_id in collection.ids() if image_id not in build.skipped]
            regions = tile_regions(collection, settings, out, lambda: encoder)
            with keeping(kept), progress("encoding parts of images") as report:
                regions.encode(indexed, report, encoding(TileWorker))
    with progress("reading metadata") as report:
        gathered = gather(collection, metadata, out, report)
    for line in gathered.notes:
        note(line)
    return Indexed(build, flags, gathered.records)
