"""An encoder's similarities in place of the scores that a benchmark's candidates came with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.paths import cache_folder
from fieldscope.service.wiring.benchmarks import Workload
from fieldscope.service.wiring.bundled import require_known_words
from fieldscope.service.wiring.feedback import keeping, progress, warn
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.settings import BUNDLED, Settings

if TYPE_CHECKING:
    from fieldscope.core.types import Query, Scale
    from fieldscope.eval.types import Benchmark
    from fieldscope.retrieval.encoder import Encoder


def with_prior_encoder(workload: Workload, settings: Settings) -> Workload:
    """The workload with the encoder that the user named, where the candidates come with the scores of another first
    stage; else as it is.

    A benchmark that searches without it is told about in a warning. Raises `ConfigError` where it can't be loaded.
    """
    if not settings.encoder_named or workload.encoder is not None or workload.recording is not None:
        return workload
    if workload.benchmark.candidate_sets is None:
        warn(f"{workload.benchmark.name} has a first stage of its own, and --encoder is not used; leave it out")
        return workload
    return replace(workload, prior_encoder=load_image_encoder(settings))


def load_image_encoder(settings: Settings) -> Encoder:
    """The encoder that the user named, also by the name of INQUIRE's folder with its embeddings. Raises `ConfigError`
    where it can't be loaded, or encodes queries only."""
    from fieldscope.eval.benchmarks.inquire_models import PUBLISHED

    name = settings.encoder or BUNDLED
    if name not in PUBLISHED or Path(name).is_dir():
        return load_encoder(settings)
    if PUBLISHED[name].text_tower:
        raise ConfigError(
            f"the image tower of {name!r} is a pickled checkpoint, which Fieldscope does not read; convert it to a "
            "folder that open_clip loads and name that, or search its published embeddings of INQUIRE-Fullrank"
        )
    return load_encoder(replace(settings, encoder=PUBLISHED[name].names[0]))


def with_priors(workload: Workload, name: str | None, limit: int | None, instruction: str | None) -> Workload:
    """The workload with its prior encoder's similarities as the priors of the first `limit` queries (None: of all),
    under an `instruction` where the encoder reads one. `name` is what people call the encoder; None is the bundled one.

    Images are encoded once, whatever the number of queries and runs: their vectors stay in the cache folder. Raises
    `VocabularyError` where the bundled encoder does not know the queries' words, and `ConfigError` for images that
    can't be read.
    """
    encoder = workload.prior_encoder
    if encoder is None:
        return workload
    benchmark = workload.benchmark
    queries = benchmark.queries[:limit]
    if name is None:
        require_known_words((query.text for query in queries), "clip")
    priors, backgrounds = _similarities(benchmark, queries, encoder, instruction)
    own = replace(benchmark, prior=name or BUNDLED, priors=priors, backgrounds=backgrounds)
    return replace(workload, benchmark=own, encoder=encoder.fingerprint)


def _similarities(
    benchmark: Benchmark, queries: Sequence[Query], encoder: Encoder, instruction: str | None
) -> tuple[dict[str, Mapping[str, float]], dict[str, Scale]]:
    """Query id -> candidate's id -> its similarity to the query; and query id -> how similar the benchmark's images are
    at large. A sample of all candidates stands for them, whatever the queries."""
    import numpy as np

    from fieldscope.retrieval.background import background, sampled
    from fieldscope.retrieval.image_vectors import image_vectors
    from fieldscope.retrieval.query_vectors import QueryVectors

    candidates = {query.id: benchmark.candidate_ids(query.id) for query in queries}
    references = [query.reference_image for query in queries if query.reference_image is not None]
    every = (image_id for query in benchmark.queries for image_id in benchmark.candidate_ids(query.id))
    usual = sampled(list(dict.fromkeys(every)))
    ids = list(dict.fromkeys([*(image for images in candidates.values() for image in images), *references, *usual]))
    safe = re.sub(r"[^\w.+-]+", "-", benchmark.name)
    folder = cache_folder() / "image-vectors" / f"{safe}-{fingerprint(encoder.fingerprint)[:16]}"
    kept = keeping("the vectors so far are kept; rerun this command to continue")
    with kept, progress(f"encoding the images of {benchmark.name}") as report:
        vectors = image_vectors(benchmark.images, ids, encoder, folder, report)
    of_queries = QueryVectors(encoder)
    load = benchmark.images.load
    directions = {query.id: of_queries.of(query, vectors.__getitem__, load, instruction) for query in queries}
    similarities: dict[str, Mapping[str, float]] = {
        query_id: {image_id: float(vectors[image_id] @ directions[query_id]) for image_id in images}
        for query_id, images in candidates.items()
    }
    sample = np.stack([vectors[image_id] for image_id in usual]) if usual else None
    scales = {} if sample is None else {name: background(sample, direction) for name, direction in directions.items()}
    return similarities, {query_id: scale for query_id, scale in scales.items() if scale is not None}
