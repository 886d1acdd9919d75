"""The address of each page below the site's root, the same for live and exported pages; all links are relative.

Ids become file names by `slug`, which is reversible except for very long ids; those are found by comparing slugs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from urllib.parse import quote, unquote

INDEX = "index.html"
SEARCH = "search.html"

_LONGEST = 160  # a file's name has at most 255 bytes, and its suffix and partial files need some
_SEPARATOR = "+"


def slug(text: str) -> str:
    """A text as the name of a file and a part of a URL: letters, digits and `. - _ ~` only, never `.` or `..`."""
    kept = quote(text, safe="").replace("~", "%7E").replace("%", "~")
    kept = re.sub(r"^\.", "~2E", kept)
    return kept if kept and len(kept) <= _LONGEST else f"~~{sha256(text.encode()).hexdigest()[:32]}"


def unslug(name: str, ids: Iterable[str]) -> str | None:
    """The id with this slug; `ids` are searched if the slug is a hash. None if there is none."""
    if name.startswith("~~"):
        return next((each for each in ids if slug(each) == name), None)
    text = unquote(name.replace("~", "%"))
    return text if slug(text) == name else None


def search(search_id: str) -> str:
    """A kept search on the page that searches."""
    return f"{SEARCH}?search={search_id}"


def run_page(run: str) -> str:
    """A run's page; `run` is its key."""
    return f"runs/{run}/{INDEX}"


def prompts_page(run: str) -> str:
    """The prompts that a run used."""
    return f"runs/{run}/prompts.html"


def annotations_page(run: str) -> str:
    """The marks of a run."""
    return f"runs/{run}/annotations.html"


def annotations_file(run: str) -> str:
    """The marks of a run as CSV."""
    return f"runs/{run}/annotations.csv"


def query_page(run: str, query_id: str) -> str:
    """A query of a run."""
    return f"runs/{run}/queries/{slug(query_id)}/{INDEX}"


def image_page(run: str, query_id: str, image_id: str) -> str:
    """An image in a query's ranking."""
    return f"runs/{run}/queries/{slug(query_id)}/images/{slug(image_id)}.html"


def above_page(run: str, query_id: str, image_id: str, other: str) -> str:
    """What separates an image from another of the same ranking."""
    return f"runs/{run}/queries/{slug(query_id)}/images/{slug(image_id)}/above/{slug(other)}.html"


def compare_page(runs: Sequence[str]) -> str:
    """A comparison of runs; the others are compared with the first."""
    return f"compare/{_SEPARATOR.join(runs)}/{INDEX}"


def edit_prompts_page(runs: Sequence[str]) -> str:
    """The prompts of two runs, or of one, to be edited side by side."""
    return f"compare/{_SEPARATOR.join(runs)}/prompts.html"


def compare_query_page(runs: Sequence[str], query_id: str) -> str:
    """A query in several runs."""
    return f"compare/{_SEPARATOR.join(runs)}/queries/{slug(query_id)}.html"


def compared(name: str) -> tuple[str, ...]:
    """The keys of the runs in the name of a comparison's folder."""
    return tuple(name.split(_SEPARATOR))


def thumbnail(collection: str, image_id: str) -> str:
    """A small image; `collection` is the key of its collection."""
    return f"thumbnails/{collection}/{slug(image_id)}.webp"


def picture(collection: str, image_id: str) -> str:
    """A large image."""
    return f"pictures/{collection}/{slug(image_id)}.webp"


def static(name: str) -> str:
    """A style or script of the site's own."""
    return f"static/{name}"


def relative(address: str, page: str) -> str:
    """An address relative to the page at another address."""
    return "../" * page.count("/") + address
