"""A benchmark of painted images, whose priors are wrong on purpose."""

from PIL import Image

from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.types import Benchmark
from fieldscope.service.wiring.benchmarks import BenchmarkRequest
from fieldscope_example_plugins.colours import COLOURS


class Painted:
    """Images that are painted when they are needed."""

    def load(self, image_id: str) -> Image.Image:
        return Image.new("RGB", (16, 16), COLOURS[image_id])

    def pixel_hash(self, image_id: str) -> str:
        return fingerprint_pixels(self.load(image_id))


def open_benchmark(request: BenchmarkRequest) -> Benchmark:
    """A query for each colour; the argument is a word that stands before it."""
    wrong = {
        colour: tuple(Candidate(i, float(i != colour) + n / 10) for n, i in enumerate(COLOURS)) for colour in COLOURS
    }
    return Benchmark(
        name="colours",
        split=request.split or "validation",
        queries=tuple(Query(id=colour, text=f"{request.argument or 'a'} {colour} card") for colour in COLOURS),
        qrels={colour: {colour: 1} for colour in COLOURS},
        images=Painted(),
        candidate_sets=wrong,
    )
