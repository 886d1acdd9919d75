"""What the first edition of the posterior did otherwise, so that its runs replay as they were.

It standardised priors over the candidates. A question without an answer counted with a share that this query's other
images had a part in, and where no candidate was confirmed, a misread request was taken to be likelier. So P(match) of
an image depended on the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PSEUDO_ANSWERS = 4.0
"""How many answers the expected share weighs, against those that this query has got."""

UNCONFIRMED = 200.0
"""By how much the odds of a miss grow where no candidate is more likely a match than not."""


def pass_rate(answers: NDArray[np.float64], expected: float) -> float:
    """The share of images that pass a predicate: the expected one, and this query's `answers`, NaN where there is
    none."""
    known = answers[~np.isnan(answers)]
    return float((PSEUDO_ANSWERS * expected + known.sum()) / (PSEUDO_ANSWERS + len(known)))
