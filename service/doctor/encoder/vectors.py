"""Are vectors of the right shape, finite, of length 1, and different?"""

from __future__ import annotations

import numpy as np

from fieldscope.retrieval.encoder import Vectors
from fieldscope.service.doctor.encoder.subject import Subject
from fieldscope.service.doctor.finding import Finding

NAME = "vectors"
_LENGTH = 1e-2
_SAME = 1e-3
_ADVICE = "check the model, its pooling and its preprocessing, and the server's log"


def judge_vectors(subject: Subject) -> Finding:
    """What the vectors of known texts and images say by themselves."""
    texts, images, dim = subject.queries, subject.images, subject.encoder.dim
    seen = f"{dim} dimensions"
    if texts.shape[1:] != (dim,) or images.shape[1:] != (dim,):
        seen = f"texts have shape {texts.shape[1:]}, images {images.shape[1:]}, and the encoder says {dim}"
        return Finding(NAME, "fail", seen, "vectors of different length can't be compared", _ADVICE)
    if not (np.isfinite(texts).all() and np.isfinite(images).all()):
        change = "serve with --dtype float32 or bfloat16 instead of float16"
        return Finding(NAME, "fail", "a vector has NaN or infinite numbers", "its image can't be found", change)
    lengths = np.linalg.norm(np.concatenate([texts, images]), axis=1)
    seen += f", lengths {lengths.min():.3f} to {lengths.max():.3f}"
    if abs(lengths - 1).max() > _LENGTH:
        change = "normalise vectors to length 1 in the encoder (vLLM: --pooler-config '{\"use_activation\": true}')"
        return Finding(NAME, "fail", seen, "inner products favour long vectors, whatever they show", change)
    for kind, vectors in (("texts", texts), ("images", images)):
        if _nearest(vectors) < _SAME:
            meaning = f"different {kind} have the same vector"
            return Finding(NAME, "fail", f"{seen}; {meaning}", "a search can't tell them apart", _ADVICE)
    return Finding(NAME, "ok", seen, "vectors can be compared")


def _nearest(vectors: Vectors) -> float:
    """The smallest distance between two of the vectors."""
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    return float(distances[~np.eye(len(vectors), dtype=bool)].min())
