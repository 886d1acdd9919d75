"""Does a query's reference image count?"""

from __future__ import annotations

from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.scorer import pictures_of
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.asker import REFUSALS
from fieldscope.service.doctor.scorer.grid import Grid
from fieldscope.service.doctor.scorer.known import GOOD
from fieldscope.service.doctor.scorer.subject import Subject

NAME = "reference image"
_MEANING = "queries with a reference image can't be scored by this model; use it for queries in words"


def check_reference(subject: Subject) -> Finding:
    """Take each image for a query without words; the image itself is the document that matches."""
    documents = subject.documents("images")
    queries = [QueryInputs(image=image) for image in pictures_of(documents)]
    try:
        grid = Grid.of([subject.asker.alone(query, documents) for query in queries])
    except REFUSALS as error:
        return Finding(NAME, "unknown", str(error), _MEANING)
    seen = f"an image as the query scores above others as a document in {grid.correct:.0%} of comparisons"
    if grid.correct >= GOOD:
        return Finding(NAME, "ok", seen, "queries with a reference image can be scored")
    return Finding(NAME, "unknown", seen, _MEANING)
