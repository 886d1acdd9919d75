"""What the bundled models say of four queries over 499 pictures of which none matches: `tests/agent/test_unmatched.py`.

The queries are those for which the best P(match) was once 0.27 to 0.55 although the model refuted every picture. The
pictures are the first 499 of FieldNotes-Dialogue's validation split. `python -m checks.unmatched_queries` draws them,
checks against the scene graphs that none matches, asks the agent as `fieldscope rerank` does, and writes priors and
verdicts to `tests/fixtures/unmatched_queries.json`. It takes some 20 minutes on two cores.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldscope.fieldnotes.collection import read_split
from fieldscope.fieldnotes.facts import Part, Spec
from fieldscope.fieldnotes.render import render
from fieldscope.fieldnotes.scene import Scene

PICTURES = 499
QUERIES = {
    "a red fox in the snow": Spec(Part("fox", "red"), habitat="snow"),
    "two purple crabs in the desert": Spec(Part("crab", "purple", 2), habitat="desert"),
    "a white snail on a city street": Spec(Part("snail", "white"), habitat="street"),
    "a blue rabbit in a forest at night": Spec(Part("rabbit", "blue"), habitat="forest", weather="night"),
}
FIXTURE = Path(__file__).parent.parent / "tests" / "fixtures" / "unmatched_queries.json"


def scenes() -> dict[str, Scene]:
    """The scenes by the names of their pictures."""
    split = read_split("validation", "dialogue")
    return {f"{int(image_id):06d}.png": scene for image_id, scene in [*split.scenes.items()][:PICTURES]}


def draw(folder: Path) -> Path:
    """Draw the pictures into `folder`."""
    for name, scene in scenes().items():
        render(scene).save(folder / name, compress_level=1)
    return folder


def ranking(query: str, pictures: Path) -> dict[str, Any]:
    """What `fieldscope rerank --json` prints of a query."""
    from fieldscope.service.workflows.reranker import AsyncReranker

    async def rerank() -> dict[str, Any]:
        async with AsyncReranker() as reranker:
            return (await reranker.rerank(query, pictures)).payload()

    return asyncio.run(rerank())


def recorded(told: Mapping[str, Any]) -> dict[str, Any]:
    """Of a ranking the predicates, and of each image the prior and P(expected) of each predicate, null without an
    answer; in the order of the images' names."""
    images = sorted(told["ranking"], key=lambda entry: str(entry["image"]))
    names = [predicate["id"] for predicate in told["predicates"]]
    return {
        "query": told["query"],
        "predicates": told["predicates"],
        "priors": [round(entry["prior"], 5) for entry in images],
        "p_expected": {name: [_rounded(entry["verdicts"].get(name)) for entry in images] for name in names},
    }


def _rounded(verdict: Mapping[str, Any] | None) -> float | None:
    p = verdict and verdict["p_expected"]
    return None if p is None else min(max(float(f"{p:.3g}"), 1e-9), 1.0 - 1e-9)


def write(rankings: Sequence[Mapping[str, Any]]) -> None:
    """Write the fixture from rankings as `fieldscope rerank --json` prints them."""
    lines = ",\n".join(json.dumps(recorded(told), separators=(",", ":")) for told in rankings)
    FIXTURE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main() -> int:
    matches = {query: [n for n, scene in scenes().items() if spec.matches(scene)] for query, spec in QUERIES.items()}
    if any(matches.values()):
        print(f"some pictures match: {matches}")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        pictures = draw(Path(folder))
        rankings = [ranking(query, pictures) for query in QUERIES]
    write(rankings)
    for told in rankings:
        best = max(entry["p_match"] for entry in told["ranking"])
        print(f"{told['query']}: best P(match) {best:.3f}, nothing matches: {told['nothing'] is not None}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
