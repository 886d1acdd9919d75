"""What is checked before an evaluation begins, and what its runs carry as warnings."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fieldscope.core.errors import BenchmarkError, ConfigError
from fieldscope.service.wiring.benchmarks import Workload
from fieldscope.service.wiring.bundled import FOREIGN, require_known_words
from fieldscope.service.wiring.datasets import library_of
from fieldscope.service.wiring.feedback import warn
from fieldscope.service.wiring.instructions import warn_of_unread_instruction
from fieldscope.service.wiring.own_pictures import all_fieldnotes
from fieldscope.service.wiring.scorers import uses_scorer
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import Query


_LOOKED_AT = 10_000  # documents, to find out of which kinds there are some


def composed(queries: Iterable[Query]) -> bool:
    """Whether any query has a reference image."""
    return any(query.reference_image is not None for query in queries)


def flags_of(
    workload: Workload, queries: Sequence[Query], settings: Settings, strategies: Sequence[Strategy]
) -> tuple[str, ...]:
    """The warnings that the runs of these strategies carry, over these of the benchmark's queries.

    Raises `VocabularyError` for queries with words that the bundled LMM, where it is asked, does not know, and
    `BenchmarkError` where images would be shown that are not there.
    """
    benchmark, asks = workload.benchmark, any(strategy.prompts for strategy in strategies)
    if (asks or any(map(uses_scorer, strategies))) and not workload.has_images:
        raise BenchmarkError(
            f"{benchmark.name} has embeddings but no images for a model to look at; put them beside its tables, as "
            "image_path names them, into images or inat24, or evaluate --strategy clip alone"
        )
    worded = document_flags(workload, strategies)
    if workload.recording is not None:
        return (FOREIGN,) if asks and any(FOREIGN in run.flags for run in workload.recording.runs) else ()
    roles = {role for strategy in strategies for role in strategy.roles(composed(queries))}
    if workload.own or not settings.bundled(roles):
        return worded
    require_known_words((query.text for query in queries), "lmm")
    given = {image_id: None for query in queries for image_id in benchmark.candidate_ids(query.id)}
    return worded if all_fieldnotes(benchmark.images, given or workload.found) else (*worded, FOREIGN)


def document_flags(workload: Workload, strategies: Sequence[Strategy]) -> tuple[str, ...]:
    """A warning where strategies that ask about pictures alone rank pictures with texts. Raises `ConfigError` where
    there are texts without a picture, which they can't judge. Of a large collection the first documents are looked at.
    """
    from fieldscope.core.documents import DocumentSource, modality_of

    images = workload.benchmark.images
    blind = [each.name for each in strategies if each.prompts and (each.verify is None or not each.verify.documents)]
    if not blind or workload.recording is not None or not isinstance(images, DocumentSource):
        return ()
    kinds = {modality_of(images, document) for document in workload.found[:_LOOKED_AT]}
    named = ", ".join(blind)
    if "text" in kinds:
        raise ConfigError(
            f"{workload.benchmark.name} has texts, and {named} {'asks' if len(blind) == 1 else 'ask'} about pictures; "
            "use true-false-documents, true-false-fused, or another strategy with `verify.documents`"
        )
    return (f"{named}: judged by their pictures, and not by their words, are the pictures with texts",) * (
        "image,text" in kinds
    )


def heed_instructions(workload: Workload, strategies: Sequence[Strategy]) -> None:
    """Warn where an instruction for the first stage has no effect."""
    from fieldscope.retrieval.library import Library
    from fieldscope.service.wiring.datasets import Galleries

    if workload.prior_encoder is not None:
        warn_of_unread_instruction(strategies, workload.prior_encoder)
    elif isinstance(workload.retriever, Library | Galleries):
        warn_of_unread_instruction(strategies, workload.retriever.encoder)
    elif workload.retriever is None and any(strategy.retrieve.instruction for strategy in strategies):
        warn(
            f"{workload.benchmark.name} comes with its candidates and their priors, so `retrieve.instruction` changes "
            "nothing; leave it out, or name an encoder that reads one with --encoder"
        )


def heed_captions(workload: Workload, strategies: Sequence[Strategy], benchmark: str) -> None:
    """Warn where strategies weigh captions of images that have none. `benchmark` is what the user calls it."""
    library = library_of(workload.retriever)
    wanting = [strategy.name for strategy in strategies if strategy.retrieve.caption_weight > 0]
    if library is None or not wanting:
        return
    captioned, images = len(library.captions.texts) if library.captions else 0, len(library.ids)
    if captioned < images:
        without = "no image has one" if not captioned else f"{images - captioned:,} of {images:,} images have none"
        command = f"fieldscope caption {shlex.quote(benchmark)} --split {workload.benchmark.split}"
        warn(
            f"{', '.join(wanting)} search{'es' if len(wanting) == 1 else ''} captions of the images, too, but {without}"
            f"; make them with `{command}`, or read the figures as those of a search without captions"
        )


def captions_of(workload: Workload, strategy: Strategy) -> str | None:
    """The fingerprint of the captions that a strategy's search weighs; None where it weighs none."""
    library = library_of(workload.retriever)
    weighs = strategy.retrieve.caption_weight > 0 and library is not None and library.captions is not None
    return library.captions.fingerprint if weighs and library and library.captions else None


def one_instruction(workload: Workload, strategies: Sequence[Strategy]) -> str | None:
    """The instruction that a benchmark's given candidates are scored under by an encoder, which is one for all runs.
    Raises `ConfigError` where the strategies have different ones, and the encoder reads them."""
    instructions = dict.fromkeys(strategy.retrieve.instruction for strategy in strategies)
    encoder = workload.prior_encoder
    if len(instructions) > 1 and encoder is not None and "instruction" in encoder.uses:
        raise ConfigError(
            "the strategies have different values of `retrieve.instruction`, and the priors of given candidates are "
            "made under one; evaluate these strategies in commands of their own"
        )
    return next(iter(instructions), None)
