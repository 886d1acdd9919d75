"""python -m tests.ray.dying ADDRESS LOG: work on a cluster during which a worker dies, once. Prints the images done."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from ray import cloudpickle

from fieldscope.service.wiring.cluster import Done, connected


class Dying:
    """Writes each block that it begins to a log, and dies the first time that it gets the one that begins with 128."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __call__(self, block: list[str]) -> list[Done]:
        with self.log.open("a") as log:
            log.write(f"{block[0]}\n")
        if block[0] == "128" and self.log.read_text().split().count("128") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return [Done(image_id, image_id.encode()) for image_id in block]


if __name__ == "__main__":
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers do not have the tests
    with connected(sys.argv[1]) as cluster:
        images = [str(number) for number in range(320)]
        done = [one for block in cluster.each_block(images, Dying, Path(sys.argv[2])) for one in block]
    sys.stdout.writelines(f"{one.data.decode()}\n" for one in done if one.data is not None)
