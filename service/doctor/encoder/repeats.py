"""Is a vector the same when its call is repeated, alone or in a batch?"""

from __future__ import annotations

import numpy as np

from fieldscope.service.doctor.encoder.subject import CLEAR, ROUNDING, Subject, distance
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.images import mosaic
from fieldscope.service.doctor.scorer.advice import PRECISION

REPEATED = "same on repeat"
BATCHED = "same in a batch"
REPEATS = 4
SIZES = (2, 5, 9, 17, 33)

_SMALL = 64  # pixels a side of images that only fill a batch


def check_repeats(subject: Subject) -> Finding:
    """Encode the descriptions and the images again, one at a time."""
    apart = 0.0
    for _ in range(REPEATS):
        apart = max(apart, distance(np.stack([subject.query(text) for text in subject.descriptions]), subject.queries))
        again = np.concatenate([subject.encode([picture]) for picture in subject.pictures])
        apart = max(apart, distance(again, subject.images))
    seen = f"vectors are at most {apart:.2g} apart over {REPEATS} repeats"
    if apart <= ROUNDING:
        return Finding(REPEATED, "ok", seen, "an index can be made again")
    meaning = "one text or image has another vector each time, so searches are not reproducible"
    change = "check that all servers behind the address serve the same model, in evaluation mode (no dropout)"
    return Finding(REPEATED, "fail", seen, meaning, f"{change}; {PRECISION}")


def check_batches(subject: Subject, repeats: Finding) -> Finding:
    """Encode the images in batches of several sizes, at their beginning and in reverse order at their end."""
    if repeats.state == "fail":
        return Finding(BATCHED, "unknown", "single calls change, too", f"see the check {REPEATED!r}")
    worst, size, mixed = 0.0, 0, False
    for number in SIZES:
        places = [*range(4), *range(3, -1, -1)][:number] if number > 8 else [*range(4)][:number]
        fillers = [mosaic(_SMALL) for _ in range(number - len(places))]
        head, tail = places[:4], places[4:]
        images = [subject.pictures[place] for place in head] + fillers + [subject.pictures[place] for place in tail]
        vectors = subject.encode(images)
        if len(vectors) != number:
            seen = f"a batch of {number} images gives {len(vectors)} vectors"
            return Finding(BATCHED, "fail", seen, "vectors can't be matched with images", "correct the encoder")
        found = np.concatenate([vectors[: len(head)], vectors[number - len(tail) :]])
        apart = distance(found, subject.images[places])
        if apart > worst:
            worst, size = apart, number
            nearest = (found @ subject.images.T).argmax(axis=1)
            mixed = bool((nearest != places).any())
    seen = f"vectors are at most {worst:.2g} apart between an image alone and in batches of up to {max(SIZES)}"
    if worst > CLEAR and mixed:
        meaning = f"in a batch of {size}, an image has the vector of another one: they are not matched by `index`"
        return Finding(BATCHED, "fail", seen, meaning, "update the server, or correct what stands before it")
    if worst > CLEAR:
        meaning = f"in a batch of {size}, a vector depends on the other images"
        return Finding(BATCHED, "fail", seen, meaning, PRECISION)
    if worst > ROUNDING:
        return Finding(BATCHED, "warn", seen, "rounding depends on the batch; near-equal images may swap", PRECISION)
    return Finding(BATCHED, "ok", seen, "a vector does not depend on other images")
