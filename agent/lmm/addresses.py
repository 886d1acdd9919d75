"""The addresses of one model: which call goes where, and when."""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fieldscope.core.adaptive_limit import AdaptiveLimit

_REMEMBERED = 100_000  # images
_TOLERATED = 3  # misses of a server that never had an image
_IDLE = 0.5  # of the places taken


class Address:
    """One server of the model, and what is known of it.

    `held` are the images that it has, by the names that they were sent under (`hits` and `misses` count calls that
    relied on it); None where it is not asked for images by name.
    """

    def __init__(self, url: str, most: int) -> None:
        self.url = url
        self.limit = AdaptiveLimit(most)
        self.in_flight = 0
        self.held: set[str] | None = None
        self.hits = self.misses = 0

    def miss(self, names: Iterable[str]) -> None:
        """The server does not have the images of these names any more. One that mostly does not is not asked again."""
        self.misses += 1
        if self.held is not None:
            self.held.difference_update(names)
        if self.misses > _TOLERATED + self.hits:
            self.held = None

    @property
    def load(self) -> float:
        """The share of its places that is taken."""
        return self.in_flight / self.limit.current

    @property
    def has_room(self) -> bool:
        return self.in_flight < self.limit.current


@dataclass(order=True)
class _Waiting:
    turn: int
    number: int
    image: str | None = field(compare=False)
    admitted: asyncio.Future[Address] = field(compare=False)


class Addresses:
    """Places for calls at the addresses of one model; for one event loop. `most` bounds the calls at each at once.

    A call without an image goes first, then those about the image that was first asked about, and so on: an image's
    questions follow each other, and only as many images are begun as keep the places taken. All calls about an image
    go to one address, whose prefix cache has it; a new image goes to the address with the most room. Only where an
    address has less than half of its places taken and nothing else waits, it takes over an image of another's.
    """

    def __init__(self, urls: Sequence[str], most: int) -> None:
        self.all = tuple(Address(url, most) for url in urls)
        self._waiting: list[_Waiting] = []
        self._turns: OrderedDict[str, int] = OrderedDict()
        self._homes: OrderedDict[str, Address] = OrderedDict()
        self._calls = 0

    @asynccontextmanager
    async def place(self, image: str | None) -> AsyncIterator[Place]:
        """Wait for a place for a call whose first image has this hash, None for a call without an image."""
        place = Place(self, image, await self._admit(image))
        try:
            yield place
        finally:
            place.address.in_flight -= 1
            self._fill()

    def move(self, image: str | None, address: Address) -> Address:
        """Another address for a call whose address can't be reached: the one with the least load, or the same where
        there is no other."""
        others = [other for other in self.all if other is not address]
        if not others:
            return address
        other = min(others, key=lambda each: each.load)
        address.in_flight -= 1
        other.in_flight += 1
        self._settle(image, other)
        self._fill()
        return other

    @property
    def are_full(self) -> bool:
        """Whether calls wait for a place."""
        return bool(self._waiting)

    async def _admit(self, image: str | None) -> Address:
        self._calls += 1
        if not self._waiting and (address := self._address_for(image)) is not None:
            self._take(image, address)
            return address
        waiting = _Waiting(self._turn(image), self._calls, image, asyncio.get_running_loop().create_future())
        insort(self._waiting, waiting)
        self._fill()
        try:
            return await waiting.admitted
        except asyncio.CancelledError:
            if waiting.admitted.done() and not waiting.admitted.cancelled():
                waiting.admitted.result().in_flight -= 1
                self._fill()
            elif waiting in self._waiting:
                self._waiting.remove(waiting)
            raise

    def _fill(self) -> None:
        """Give the free places to the calls that wait, in their order."""
        at = 0
        while at < len(self._waiting) and any(address.has_room for address in self.all):
            address = self._address_for(self._waiting[at].image)
            if address is None:
                at += 1
            else:
                self._start(at, address)
        while self._waiting and (idle := min(self.all, key=lambda each: each.load)).load < _IDLE:
            self._start(0, idle)

    def _start(self, at: int, address: Address) -> None:
        waiting = self._waiting.pop(at)
        if not waiting.admitted.done():  # else its caller was cancelled
            self._take(waiting.image, address)
            waiting.admitted.set_result(address)

    def _address_for(self, image: str | None) -> Address | None:
        home = self._homes.get(image) if image is not None else None
        address = home or min(self.all, key=lambda each: each.load)
        return address if address.has_room else None

    def _take(self, image: str | None, address: Address) -> None:
        address.in_flight += 1
        self._turn(image)
        self._settle(image, address)

    def _turn(self, image: str | None) -> int:
        if image is None:
            return 0
        turn = self._turns.get(image)
        if turn is None:
            turn = self._turns[image] = self._calls
            if len(self._turns) > _REMEMBERED:
                self._turns.popitem(last=False)
        return turn

    def _settle(self, image: str | None, address: Address) -> None:
        if image is not None:
            self._homes[image] = address
            if len(self._homes) > _REMEMBERED:
                self._homes.popitem(last=False)


@dataclass
class Place:
    """A call's place at an address."""

    addresses: Addresses
    image: str | None
    address: Address
    sent_at: float = 0.0

    def send(self) -> None:
        """The call is sent now."""
        self.sent_at = time.monotonic()

    def answered(self) -> None:
        self.address.limit.answered(self.addresses.are_full)

    def overloaded(self) -> None:
        self.address.limit.overloaded(self.sent_at)

    def move(self) -> None:
        """Go to another address, if there is one."""
        self.address = self.addresses.move(self.image, self.address)
