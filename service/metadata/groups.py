"""Images that show the same: near duplicates, and bursts of a camera."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import PurePosixPath

from fieldscope.retrieval.perceptual_hash import BITS, distance

NEAR_BITS = 10
"""The hashes of near duplicates differ in this many of 256 bits at most: copies that were scaled or compressed."""

BURST_BITS = 64
"""The hashes of neighbours in a burst differ in this many bits at most; unlike pictures differ in about 128."""

GAP = timedelta(seconds=2)
"""The longest pause between two pictures of a burst, for EXIF has whole seconds. Pictures of a fixed camera look alike
on all days, so what was taken further apart is no duplicate."""

_COMPARED = 50  # neighbours in time, so that ten thousand pictures of a fixed camera are no hundred million pairs

Link = tuple[str, str]


def grouped(hashes: Mapping[str, int], times: Mapping[str, datetime]) -> tuple[tuple[str, ...], ...]:
    """The groups of two images or more, by their ids, in the order of `hashes`; `times` are those that are known.

    Two images are in a group if their perceptual hashes nearly agree and they were not taken at different times, or if
    they are neighbours in time in one folder and look alike; a group is all that is linked so.
    """
    first: dict[str, str] = {image_id: image_id for image_id in hashes}
    for one, other in (*_near(hashes, times), *_bursts(hashes, times)):
        first[_first(first, one)] = _first(first, other)
    groups: dict[str, list[str]] = defaultdict(list)
    for image_id in hashes:
        groups[_first(first, image_id)].append(image_id)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _first(links: dict[str, str], image_id: str) -> str:
    while links[image_id] != image_id:
        links[image_id] = links[links[image_id]]
        image_id = links[image_id]
    return image_id


def _near(hashes: Mapping[str, int], times: Mapping[str, datetime]) -> Iterator[Link]:
    """Pairs whose hashes differ in `NEAR_BITS` at most. Of one part more than that, one is equal in both, so only
    hashes that share a part are compared."""
    width = BITS // (NEAR_BITS + 1)
    in_order = sorted(hashes, key=lambda image_id: (times.get(image_id, datetime.max), hashes[image_id]))
    for part in range(NEAR_BITS + 1):
        alike: dict[int, list[str]] = defaultdict(list)
        for image_id in in_order:
            alike[hashes[image_id] >> part * width & (1 << width) - 1].append(image_id)
        for ids in alike.values():
            for at, one in enumerate(ids):
                for other in ids[at + 1 : at + 1 + _COMPARED]:
                    if distance(hashes[one], hashes[other]) <= NEAR_BITS and _at_once(one, other, times):
                        yield one, other


def _at_once(one: str, other: str, times: Mapping[str, datetime]) -> bool:
    """Whether two images may have been taken at one time, for all that is known."""
    return one not in times or other not in times or abs(times[one] - times[other]) <= GAP


def _bursts(hashes: Mapping[str, int], times: Mapping[str, datetime]) -> Iterator[Link]:
    """Neighbours in time in a folder, which is a camera's."""
    folders: dict[PurePosixPath, list[str]] = defaultdict(list)
    for image_id in hashes:
        if image_id in times:
            folders[PurePosixPath(image_id).parent].append(image_id)
    for ids in folders.values():
        in_order = sorted(ids, key=lambda image_id: (times[image_id], image_id))
        for one, other in pairwise(in_order):
            if _at_once(one, other, times) and distance(hashes[one], hashes[other]) <= BURST_BITS:
                yield one, other
