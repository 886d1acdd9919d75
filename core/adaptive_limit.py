"""How many calls a server gets at once: as many as make it faster, and fewer once it is overloaded."""

from __future__ import annotations

import time
from collections.abc import Callable

_FIRST = 16
_FEWEST_MEASURED = 16  # answers
_GAIN = 1.03  # of the rate, for twice the calls
_HELD = 16  # measurements


class AdaptiveLimit:
    """A limit on the calls in flight that finds its own size, between 1 and `most`.

    It doubles as long as answers come faster for it: the rate is measured over at least as many answers as the limit
    allows calls, while more calls wait than may go. A step that gains nothing is taken back, and tried again after a
    while. A server that refuses a call for its load, or lets it time out, halves the limit, and from then on it grows
    by an eighth (additive increase, multiplicative decrease, as TCP does it: Chiu and Jain 1989). `clock` reads
    seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.current = min(_FIRST, most)
        self._clock = clock
        self._before = self.current
        self._best_rate: float | None = None
        self._was_overloaded = False
        self._shrank_at = -1.0
        self._held = 0
        self._start()

    def answered(self, waiting: bool) -> None:
        """One call was answered; `waiting` says whether another one waited for its place."""
        if self.current == self.most and self._best_rate is None:
            return  # nothing to find out
        if not waiting:  # the rate is then that of the callers
            self._start()
            return
        self._answers += 1
        if self._answers == self.current:  # those before were sent under the limit before
            self._since = self._clock()
        elif self._answers >= self.current + max(self.current, _FEWEST_MEASURED):
            measured = self._answers - self.current
            self._decide(measured / max(self._clock() - self._since, 1e-9))
            self._start()

    def overloaded(self, sent_at: float) -> None:
        """A call that was sent at `sent_at` (by the clock) was refused for the server's load, or timed out."""
        if sent_at < self._shrank_at:
            return  # sent before the limit was lowered
        self._shrank_at = self._clock()
        self.current = self._before = max(1, self.current // 2)
        self._was_overloaded = True
        self._best_rate = None
        self._start()

    def _start(self) -> None:
        self._answers = 0
        self._since = self._clock()

    def _decide(self, rate: float) -> None:
        if self._best_rate is None or rate > self._best_rate * _GAIN:
            self._best_rate = rate
            self._grow()
        elif self._before < self.current:  # the last step gained nothing
            self.current = self._before
        else:
            self._held += 1
            if self._held >= _HELD:  # the work may be another by now
                self._best_rate = rate
                self._grow()

    def _grow(self) -> None:
        self._held = 0
        self._before = self.current
        step = max(1, self.current // 8) if self._was_overloaded else self.current
        self.current = min(self.most, self.current + step)
