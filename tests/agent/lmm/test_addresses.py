"""Which call goes first, and where; and how many a server gets at once."""

import asyncio
from collections import Counter

import pytest

from fieldscope.agent.lmm.addresses import Addresses
from fieldscope.core.adaptive_limit import AdaptiveLimit


class Calls:
    """Calls that hold their place until they are released, in the order in which they got it."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._release: dict[str, asyncio.Event] = {}
        self.begun: list[tuple[str, str]] = []

    def ask(self, name: str, image: str | None) -> asyncio.Task[None]:
        self._release[name] = asyncio.Event()
        return asyncio.create_task(self._ask(name, image))

    async def release(self, *names: str) -> None:
        for name in names:
            self._release[name].set()
        await settled()

    async def _ask(self, name: str, image: str | None) -> None:
        async with self._addresses.place(image) as place:
            self.begun.append((name, place.address.url))
            await self._release[name].wait()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.begun]


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_images_questions_go_before_the_next_image_and_texts_before_all() -> None:
    calls = Calls(Addresses(["one"], 2))
    tasks = [calls.ask(name, name[0]) for name in ("a1", "b1", "c1", "d1")]
    await settled()
    assert calls.names == ["a1", "b1"]
    tasks += [calls.ask(name, name[0]) for name in ("b2", "a2", "a3")]
    tasks.append(calls.ask("text", None))
    await settled()
    await calls.release("a1", "b1", "text", "a2", "a3", "b2", "c1", "d1")
    await asyncio.gather(*tasks)
    assert calls.names == ["a1", "b1", "text", "a2", "a3", "b2", "c1", "d1"]


async def test_addresses_are_equally_busy_and_an_image_stays_with_its_own() -> None:
    calls = Calls(Addresses(["one", "two"], 4))
    tasks = [calls.ask(f"{image}1", image) for image in "abcdefgh"]
    await settled()
    assert Counter(url for _, url in calls.begun) == {"one": 4, "two": 4}
    homes = {name[0]: url for name, url in calls.begun}
    tasks += [calls.ask(f"{image}2", image) for image in "hgfedcba"]
    await settled()
    await calls.release(*(f"{image}1" for image in "abcdefgh"))
    assert {name[0]: url for name, url in calls.begun[8:]} == homes
    await calls.release(*(f"{image}2" for image in "abcdefgh"))
    await asyncio.gather(*tasks)


async def test_an_idle_address_takes_over_what_waits_for_a_full_one() -> None:
    calls = Calls(Addresses(["one", "two"], 2))
    tasks = [calls.ask("a1", "a")]
    await settled()
    tasks += [calls.ask(name, "a") for name in ("a2", "a3", "a4")]
    await settled()
    assert Counter(url for _, url in calls.begun)["two"] >= 1, "half of the places stand empty"
    await calls.release("a1", "a2", "a3", "a4")
    await asyncio.gather(*tasks)


async def test_a_call_that_is_given_up_leaves_its_place() -> None:
    addresses = Addresses(["one"], 1)
    calls = Calls(addresses)
    first, second, third = (calls.ask(name, name) for name in "abc")
    await settled()
    second.cancel()
    await settled()
    await calls.release("a", "c")
    await asyncio.gather(first, third)
    assert calls.names == ["a", "c"] and addresses.all[0].in_flight == 0 and not addresses.are_full
    last = calls.ask("d", "d")
    await settled()
    waiting = calls.ask("e", "e")
    await settled()
    await calls.release("d")  # the place is given to e ...
    waiting.cancel()  # ... which is given up
    await asyncio.gather(last, waiting, return_exceptions=True)
    assert addresses.all[0].in_flight == 0


async def test_a_call_moves_away_from_an_address_that_fails() -> None:
    addresses = Addresses(["one", "two"], 2)
    async with addresses.place("a") as place:
        first = place.address.url
        place.move()
        assert place.address.url != first
    async with addresses.place("a") as place:
        assert place.address.url != first, "the image's next calls go there, too"
    assert [address.in_flight for address in addresses.all] == [0, 0]


class Simulated:
    """A server that answers at most `most` calls at once, each in a second; more wait."""

    def __init__(self, limit_most: int, most: int) -> None:
        self.now = 0.0
        self.limit = AdaptiveLimit(limit_most, clock=lambda: self.now)
        self.most = most

    def run(self, answers: int, waiting: bool = True) -> None:
        for _ in range(answers):
            self.now += 1.0 / min(self.limit.current, self.most)
            self.limit.answered(waiting)


@pytest.mark.parametrize(("most", "expected"), [(10, (16, 32)), (64, (64, 128)), (1000, (256, 256))])
def test_the_limit_grows_as_long_as_answers_come_faster(most: int, expected: tuple[int, int]) -> None:
    server = Simulated(256, most)
    server.run(1500)
    assert expected[0] <= server.limit.current <= expected[1]


def test_the_limit_keeps_below_what_was_chosen_and_does_not_grow_without_need() -> None:
    chosen = Simulated(5, 1000)
    chosen.run(500)
    assert chosen.limit.current == 5
    idle = Simulated(256, 1000)
    idle.run(500, waiting=False)
    assert idle.limit.current == 16


def test_an_overloaded_server_gets_half_once_for_all_calls_that_were_out_and_then_slowly_more() -> None:
    server = Simulated(256, 1000)
    server.run(1500)
    sent_at = server.now
    server.now += 1.0
    for _ in range(50):
        server.limit.overloaded(sent_at)
    assert server.limit.current == 128
    server.run(300)
    assert 128 < server.limit.current < 200
    for _ in range(20):
        server.now += 1.0
        server.limit.overloaded(server.now)
    assert server.limit.current == 1
    server.run(200)
    assert server.limit.current > 1
