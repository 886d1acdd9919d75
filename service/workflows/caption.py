"""Captions: what the LMM says that each image of an index shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError, LMMError
from fieldscope.service.wiring.benchmarks import BENCHMARKS, open_workload
from fieldscope.service.wiring.bundled import FOREIGN
from fieldscope.service.wiring.cluster import connected
from fieldscope.service.wiring.cluster_store import on_workers
from fieldscope.service.wiring.datasets import library_of
from fieldscope.service.wiring.feedback import keeping, progress, warn
from fieldscope.service.wiring.interruption import interruptible
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.own_pictures import all_fieldnotes
from fieldscope.service.wiring.prompts import prompts_for
from fieldscope.service.wiring.roles import require_servers
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.captioning import caption_images, captions_on

if TYPE_CHECKING:
    from fieldscope.agent.roles import Role
    from fieldscope.retrieval.library import Library


@dataclass(frozen=True)
class Captioned:
    """How many of the images of the index in `folder` have a caption, why the others (by id) have none, and the
    warnings."""

    folder: Path
    images: int
    captioned: int
    failed: Mapping[str, str]
    flags: tuple[str, ...]


def caption_index(
    target: str, settings: Settings, prompt: str = "caption", split: str | None = None, ray: str | None = None
) -> Captioned:
    """Write a caption for every image of an index, and keep them with it. Answers of an earlier call are in the cache.
    `target` is an index's folder or a benchmark, whose `split` is searched; `prompt` asks for a caption. `ray` is the
    address of a Ray cluster whose workers ask (`fieldscope.service.wiring.cluster.connected`); None: this process does.

    Raises `IndexMismatchError` for an index of another CLIP, `LMMError` where no image gets a caption, and what
    `_library` raises.
    """
    from fieldscope.retrieval.captions import write_captions

    role: Role = "captioner"
    require_servers(settings, [role])
    settings = settings.of(role)
    asked = prompts_for(settings).load(prompt)
    asked.check_variables(frozenset())
    library, folder = _library(target, settings, split)
    encoder, images, ids = library.encoder, library.collection, library.ids
    flags = () if (settings.encoder and settings.lmm_url) or all_fieldnotes(images, ids) else (FOREIGN,)
    for flag in flags:
        warn(flag)
    kept = "captions so far are in the cache; rerun this command to continue"
    with progress("captioning images") as report:
        if ray is None:
            captions, failed = interruptible(caption_images(images, ids, asked, settings, report), kept)
        else:
            with keeping(kept), connected(ray) as cluster, on_workers(cluster, settings) as own:
                captions, failed = captions_on(cluster, images, ids, asked, own, report)
    if not captions:
        first = next(iter(failed.values()))
        raise LMMError(f"none of {len(ids)} images got a caption (the first: {first}); check the model and its server")
    with progress("encoding captions") as report:
        write_captions(folder, captions, encoder, report)
    return Captioned(folder, len(ids), len(captions), failed, flags)


def import_captions(target: str, file: Path, settings: Settings, split: str | None = None) -> Captioned:
    """Keep the captions in a JSON file of image names and captions, such as ImageScope's `image_caption.json`, with an
    index; see `caption_index` for `target` and `split`. A warning says how many names are no image's.

    Raises `ConfigError` for a file of another shape, and one without a caption for any image.
    """
    from fieldscope.retrieval.caption_file import by_image, read_caption_file
    from fieldscope.retrieval.captions import write_captions

    named = read_caption_file(file)
    library, folder = _library(target, settings, split)
    captions, unknown = by_image(named, library.ids)
    if not captions:
        raise ConfigError(
            f"{file} has captions of {len(named):,} images, such as {next(iter(named), '')!r}, and none of them is in "
            f"{folder}; name the index of these images"
        )
    if unknown:
        some = f"{len(unknown):,} of {len(named):,} captions in {file}"
        warn(f"{some} are of no image in {folder}, such as {unknown[0]!r}; the others are kept")
    with progress("encoding captions") as report:
        write_captions(folder, captions, library.encoder, report)
    failed = {image_id: f"{file.name} has no caption for it" for image_id in library.ids if image_id not in captions}
    return Captioned(folder, len(library.ids), len(captions), failed, ())


def _library(target: str, settings: Settings, split: str | None) -> tuple[Library, Path]:
    """The index that is meant, and its folder: an index's own, or that of a benchmark. Raises `ConfigError` for a
    benchmark that searches no index on the disk, and `BenchmarkError` where there is neither."""
    from fieldscope.retrieval.library import open_library
    from fieldscope.retrieval.manifest import is_index

    if is_index(Path(target)) or not BENCHMARKS.split(target)[0]:
        return open_library(Path(target), load_encoder(settings)), Path(target)
    library = library_of(open_workload(target, split, settings).retriever)
    if library is None or library.folder is None:
        raise ConfigError(
            f"{target} searches no index of its own, so its images need no captions; name an index, or a benchmark of "
            "full retrieval"
        )
    return library, library.folder
