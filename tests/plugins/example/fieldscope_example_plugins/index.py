"""An index that does no more than is asked of one."""

from collections.abc import Sequence

import numpy as np


class ListIndex:
    """Inner products, one query at a time."""

    def __init__(self, ids: Sequence[str], vectors: np.ndarray) -> None:
        self._vectors = dict(zip(ids, vectors, strict=True))

    def __len__(self) -> int:
        return len(self._vectors)

    def vectors_of(self, ids: Sequence[str]) -> np.ndarray:
        return np.stack([self._vectors[image_id] for image_id in ids])

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, list[list[str]]]:
        rankings = [
            sorted(((float(v @ query), i) for i, v in self._vectors.items()), reverse=True)[:k] for query in vectors
        ]
        scores = np.array([[score for score, _ in ranking] for ranking in rankings], dtype=np.float32)
        return scores, [[image_id for _, image_id in ranking] for ranking in rankings]
