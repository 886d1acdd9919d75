"""A scorer's entries in the response cache: what a pair's key is made of, and how a score is written and read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from numbers import Real
from typing import Any, TypeGuard

from fieldscope.agent.lmm.cached import entry_fault, require_unaltered
from fieldscope.cache.store import Entry
from fieldscope.core.errors import CacheError, CacheMissError, one_line
from fieldscope.core.fingerprint import canonical_json, fingerprint, fingerprint_pixels
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.scorer import PairScore

PREFIX = "scorer:"
"""What the name of a scorer begins with in the response cache, where LMMs stand beside it."""

Part = Mapping[str, str]
"""A document in a cache key: `{"image": the SHA-256 of its pixels}`, `{"text": ...}`, or both."""


def shown_name(scorer_fingerprint: str) -> str:
    """A scorer's fingerprint as the response cache names it."""
    return scorer_fingerprint if scorer_fingerprint.startswith(PREFIX) else PREFIX + scorer_fingerprint


def pair_key(model: str, request: Mapping[str, Any]) -> str:
    """The key of a pair of query and document under one scorer, by its name in the cache."""
    return fingerprint({"scorer": model, "request": request})


def is_scored(entry: Entry) -> bool:
    """Whether an entry is a scorer's, and no LMM's."""
    return entry.request.startswith(('{"document":', '{"server":'))


def read_score(entry: Entry) -> PairScore:
    """The score in an entry. Raises `CacheError` where there is none to be read, or it was altered."""
    require_unaltered(entry)
    try:
        response = json.loads(entry.response)
        score, tokens = response["score"], response.get("tokens", 0)
    except (ValueError, LookupError, TypeError, AttributeError):
        score, tokens = None, 0
    if not is_finite(score) or not isinstance(tokens, int):
        raise CacheError(
            f"the cached score {entry.key[:12]} can't be read; run the command without --replay to ask for it again"
        )
    return PairScore(float(score), tokens=tokens)


def score_entry(key: str, model: str, request: Mapping[str, Any], pair: PairScore) -> Entry:
    """The entry of a pair that has a score."""
    return _entry(key, model, request, {"score": pair.value, "tokens": pair.tokens})


def form_key(base: str) -> str:
    """The key of the form in which a server takes requests; `base` is a scorer's fingerprint without the form."""
    return pair_key(shown_name(base), {"server": base})


def form_entry(base: str, model: str, form: str) -> Entry:
    """The entry of a form that was found out. `model` is the scorer's name in the cache, of which the form is part."""
    return _entry(form_key(base), model, {"server": base}, {"form": form})


def scored_fault(entry: Entry) -> str | None:
    """Why a scorer's entry can't be what it says it is, None where it can; see `fieldscope.agent.lmm.cached`."""
    try:
        request, model = json.loads(entry.request), json.loads(entry.provenance)["model"]
        key = form_key(request["server"]) if "server" in request else pair_key(model, request)
    except (ValueError, LookupError, TypeError, RecursionError):
        return "it can't be read"
    if key != entry.key:
        return "its key is not that of its request"
    try:
        require_unaltered(entry)
    except CacheError:
        return "its response was altered"
    try:
        if read_form(entry) is None:
            read_score(entry)
    except CacheError:
        return "it can't be read"
    return None


def stored_fault(entry: Entry) -> str | None:
    """Why an entry of the response cache, a scorer's or an LMM's, can't be what it says it is; None where it can."""
    return scored_fault(entry) if is_scored(entry) else entry_fault(entry)


def query_part(inputs: QueryInputs) -> dict[str, str]:
    """A query in a cache key: what it has of text, image (the SHA-256 of its pixels) and instruction."""
    image = fingerprint_pixels(inputs.image) if inputs.image is not None else None
    parts = {"text": inputs.text, "image": image, "instruction": inputs.instruction}
    return {name: part for name, part in parts.items() if part}


def is_finite(score: object) -> TypeGuard[float]:
    """Whether this is a score that can be used."""
    return not isinstance(score, bool) and isinstance(score, Real) and math.isfinite(score)


def missing_pair(model: str, key: str, name: str, inputs: QueryInputs) -> CacheMissError:
    """The error of a replay: which score of which scorer is missing."""
    return CacheMissError(
        f"replay: score {key} was never recorded (scorer {model}; document {name!r}; query "
        f'"{one_line(inputs.text, 80)}"): record it with the cache on, or check that scorer, query and images are '
        "those of the recording"
    )


def read_form(entry: Entry) -> str | None:
    """The form in an entry; None where there is none to be read."""
    try:
        require_unaltered(entry)
        form = json.loads(entry.response)["form"]
    except (CacheError, ValueError, LookupError, TypeError):
        return None
    return form if isinstance(form, str) else None


def _entry(key: str, model: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> Entry:
    text = canonical_json(response)
    provenance = {
        "model": model,
        "asked_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "response_sha256": sha256(text.encode()).hexdigest(),
    }
    return Entry(key=key, request=canonical_json(request), response=text, provenance=canonical_json(provenance))
