"""`fieldscope index`, `fieldscope caption` and `fieldscope search`: a folder of images, made searchable."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import budget_options, clip_options, json_option, model_options
from fieldscope.service.wiring.feedback import keeping, note, progress, warn
from fieldscope.service.wiring.settings import DEFAULT_STRATEGY, Settings
from fieldscope.service.workflows.skipped import skipped_lines

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.resources import Retriever
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import ImageSource, Query
    from fieldscope.retrieval.library import Library
    from fieldscope.service.cli.tables.ranking import Ranking

SHOWN = 20


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option("--index-type", "kind", default="faiss", show_default=True, metavar="NAME", help="A registered index.")
@json_option
@clip_options
def index(folder: Path, out: Path, kind: str, as_json: bool, settings: Settings) -> None:
    """Make a folder of images searchable.

    The images in FOLDER, or in Parquet files there, are encoded with a CLIP into DIR. What was encoded is kept: the
    same command goes on after a stop, and adds new images later. A picture is told by its content, whatever the file
    is called. All other files, and pictures that can't be read, are listed with the reason, there and in
    DIR/skipped.json.
    """
    from fieldscope.retrieval.library import build_index
    from fieldscope.retrieval.opening import open_collection
    from fieldscope.service.wiring.bundled import FOREIGN
    from fieldscope.service.wiring.models import load_encoder
    from fieldscope.service.wiring.own_pictures import all_fieldnotes

    collection = open_collection([folder])
    flags = [] if settings.clip or all_fieldnotes(collection, collection.ids()) else [FOREIGN]
    for flag in flags:
        warn(flag)
    encoder = load_encoder(settings)
    kept = f"what was encoded is kept in {out}, and the same command goes on there"
    with keeping(kept), progress("encoding images") as report:
        name = settings.clip or "bundled"
        built = build_index(collection, encoder, out, encoder_name=name, index_kind=kind, progress=report)
    if as_json:
        skipped = [{"image": image, "reason": reason} for image, reason in built.skipped.items()]
        show_json(
            {"index": str(out), "indexed": built.indexed, "encoded": built.encoded, "skipped": skipped, "flags": flags}
        )
        return
    show(f"{built.indexed:,} images are searchable in {out}; {built.encoded:,} of them were encoded just now.")
    show(*skipped_lines(built.skipped))


@click.command()
@click.argument("folder", metavar="LIBRARY", type=click.Path(path_type=Path))
@json_option
@model_options
def caption(folder: Path, as_json: bool, settings: Settings) -> None:
    """Describe the images of an index in words.

    The LMM writes a caption for every image of LIBRARY, which `fieldscope index` made, and they are kept there: a
    strategy with a caption weight then compares a query with them, too. The same command goes on after a stop.
    """
    from fieldscope.core.errors import LMMError
    from fieldscope.retrieval.captions import write_captions
    from fieldscope.retrieval.library import open_library
    from fieldscope.service.wiring.bundled import FOREIGN
    from fieldscope.service.wiring.models import load_encoder, require_server
    from fieldscope.service.wiring.own_pictures import all_fieldnotes
    from fieldscope.service.workflows.caption import caption_images

    require_server(settings)
    encoder = load_encoder(settings)
    library = open_library(folder, encoder)
    images, ids = library.collection, library.ids
    flags = [] if (settings.clip and settings.lmm_url) or all_fieldnotes(images, ids) else [FOREIGN]
    for flag in flags:
        warn(flag)
    captions, failed = caption_images(images, ids, settings)
    if not captions:
        raise LMMError(f"none of {len(ids)} images got a caption; the first: {next(iter(failed.values()))}")
    with progress("encoding captions") as report:
        write_captions(folder, captions, encoder, report)
    if as_json:
        reasons = [{"image": image, "reason": reason} for image, reason in failed.items()]
        show_json({"index": str(folder), "captioned": len(captions), "failed": reasons, "flags": flags})
        return
    show(f"{len(captions):,} of {len(ids):,} images in {folder} have a caption.")
    if failed:
        show(f"without: {len(failed):,}:", *(f"  {image}: {reason}" for image, reason in failed.items()))


@click.command()
@click.option("--index", "folder", required=True, type=click.Path(path_type=Path), metavar="DIR")
@click.option("--query", "text", required=True, metavar="TEXT", help="What the pictures should show.")
@click.option(
    "--reference",
    metavar="IMAGE",
    help="An image of the index, by its id or its file: --query says in what the wanted pictures differ from it.",
)
@click.option(
    "--dialogue",
    "dialogue_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="JSON or YAML, a list of rounds with a question and an answer each: --query is the caption before them.",
)
@click.option(
    "-k",
    "--top-k",
    "top_k",
    type=click.IntRange(min=1),
    metavar="K",
    help=f"How many images to find.  [default: {SHOWN}; with --rerank what the strategy says, {SHOWN} of them shown]",
)
@click.option("--rerank", "reranking", is_flag=True, help="Let the LMM look at what was found.")
@click.option("--strategy", "name", metavar="NAME|FILE", help=f"How to rerank.  [default: {DEFAULT_STRATEGY}]")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option(
    "--copy-to",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Copy the files that were found; what is there stays as it is.",
)
@click.option(
    "--min-p",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Copy only images whose probability of a match is at least P.  [default: 0.5 with --rerank]",
)
@budget_options
@json_option
@model_options
def search(
    folder: Path,
    text: str,
    reference: str | None,
    dialogue_file: Path | None,
    top_k: int | None,
    reranking: bool,
    name: str | None,
    csv_file: Path | None,
    copy_to: Path | None,
    min_p: float | None,
    budget: Budget,
    as_json: bool,
    settings: Settings,
) -> None:
    """Search an index by text, by an image and a change, or by a dialogue, and rerank what was found.

    With --rerank the LMM looks at the images that the CLIP found. A strategy that thinks the query out searches by its
    descriptions too, and looks further where it finds too little.
    """
    if name is not None and not reranking:
        raise click.UsageError("--strategy goes with --rerank")
    if min_p is not None and not (reranking and copy_to):
        raise click.UsageError("--min-p goes with --rerank and --copy-to")
    if reference is not None and dialogue_file is not None:
        raise click.UsageError("--reference and --dialogue make two kinds of query; give one of them")
    from fieldscope.agent.strategies.strategy import load_strategy
    from fieldscope.eval.tuning.estimate import require_context
    from fieldscope.retrieval.library import open_library, read_skipped
    from fieldscope.retrieval.remembered import RememberedSearch
    from fieldscope.service.cli.tables.ranking import Ranking
    from fieldscope.service.wiring.models import load_encoder, require_server
    from fieldscope.service.wiring.queries import make_query, require_query_words
    from fieldscope.service.workflows.rerank import require_verdicts, rerank_once, warn_of_end

    strategy = load_strategy((name or DEFAULT_STRATEGY) if reranking else "clip")
    query = make_query(text, dialogue_file)
    require_query_words(query, strategy, settings, composed=reference is not None)
    if strategy.prompts:
        require_context([strategy], [query], require_server(settings))
    library = open_library(folder, load_encoder(settings))
    images = _images(library, needed=reranking or copy_to is not None)
    if reference is not None:
        query = query.model_copy(update={"reference_image": _id_of(reference, library, images)})
    wanted = top_k or (strategy.retrieve.top_k if reranking else SHOWN)
    retriever = RememberedSearch(library)
    found = _found(retriever, query, wanted, strategy.retrieve.caption_weight)
    flags = _flags(images, found, strategy, settings)
    for flag in flags:
        warn(flag)
    encoder = library.encoder.fingerprint
    result = rerank_once(query, None, images, strategy, settings, flags, budget, encoder, retriever, wanted)
    if not flags:  # other descriptions and later rounds find other images
        late = _flags(images, (ranked.image_id for ranked in result.ranking), strategy, settings)
        result = result.model_copy(update={"flags": (*late, *result.flags)})
    models = {"clip": settings.clip or "bundled", "lmm": (settings.model or "bundled") if strategy.prompts else None}
    ranking = Ranking(result, images, read_skipped(folder), models)
    if as_json:
        rounds = [turn.model_dump() for turn in query.dialogue]
        asked = {"query": query.text, "reference": query.reference_image, "dialogue": rounds}
        show_json(asked | ranking.payload())
    else:
        shown = top_k or SHOWN
        show(ranking.table(shown))
        if len(result.ranking) > shown:
            show(f"{len(result.ranking) - shown} more were found; --json, --csv and -k show them.")
        if ranking.skipped:
            show(f"{len(ranking.skipped):,} files are not in this index; {folder / 'skipped.json'} says why.")
    if csv_file is not None:
        _write(csv_file, ranking.csv())
    if copy_to is not None:
        _copy(ranking, copy_to, 0.5 if min_p is None and strategy.prompts else min_p)
    for flag in result.flags:
        if flag not in flags:
            warn(flag)
    warn_of_end(result)
    require_verdicts(result)


def _id_of(reference: str, library: Library, images: ImageSource) -> str:
    """The id of the image that a user names by its id or by its file; the name itself where it is neither."""
    from fieldscope.retrieval.collection import FilesCollection, FolderCollection

    if reference in library.ids:
        return reference
    file = Path(os.path.realpath(reference))
    if isinstance(images, FolderCollection) and file.is_relative_to(images.root):
        return file.relative_to(images.root).as_posix()
    if isinstance(images, FilesCollection):
        files = ((image_id, Path(os.path.realpath(path))) for image_id, path in images.files.items())
        return next((image_id for image_id, path in files if path == file), reference)
    return reference


def _found(retriever: Retriever, query: Query, wanted: int, caption_weight: float) -> list[str]:
    """The images that the first stage finds by the query's own words, the reference image first where there is one.

    Raises `ConfigError` where there are none, or the reference image is not in the index.
    """
    from fieldscope.core.errors import ConfigError

    found = [candidate.image_id for candidate in retriever.search(query, wanted, (), caption_weight)]
    if not found:
        raise ConfigError(f"the index holds no image but {query.reference_image!r}; index more of them")
    return found if query.reference_image is None else [query.reference_image, *found]


def _images(library: Library, needed: bool) -> ImageSource:
    """The indexed images; where they are gone and only their ids are needed, none."""
    from fieldscope.core.errors import ConfigError
    from fieldscope.retrieval.collection import FilesCollection

    try:
        return library.collection
    except ConfigError as error:
        if needed:
            raise
        note(f"the images are not where they were: {error}")
        return FilesCollection({})


def _flags(images: ImageSource, seen: Iterable[str], strategy: Strategy, settings: Settings) -> list[str]:
    """A warning where a bundled model found or judged foreign images."""
    from fieldscope.service.wiring.bundled import FOREIGN
    from fieldscope.service.wiring.own_pictures import all_fieldnotes

    if settings.clip and (settings.lmm_url or not strategy.prompts):
        return []
    return [] if all_fieldnotes(images, seen) else [FOREIGN]


def _write(file: Path, text: str) -> None:
    from fieldscope.core.errors import ConfigError
    from fieldscope.core.files import replace_file

    try:
        replace_file(file, text)
    except OSError as error:
        raise ConfigError(f"can't write {file} ({error.strerror or error}); choose another file") from error
    note(f"wrote {file}")


def _copy(ranking: Ranking, folder: Path, min_p: float | None) -> None:
    from fieldscope.service.cli.copying import copy_all

    wanted = [r for r in ranking.result.ranking if min_p is None or (r.p_match is not None and r.p_match >= min_p)]
    files = [path for ranked in wanted if (path := ranking.path(ranked.image_id))]
    copies = copy_all(files, folder)
    note(f"copied to {folder}: {len(copies)} of {len(ranking.result.ranking)} images")
    if len(files) < len(wanted):
        warn(f"{len(wanted) - len(files)} of {len(wanted)} images have no file of their own, or it is gone")
