"""One call for many: whatever the order in which requests join, leave, fail and come late."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.background import Background
from gateway.budget import Budget
from gateway.core.model import Answer, Ask, Finish, Form
from gateway.errors import GatewayError, UpstreamBroken, UpstreamTimeout
from gateway.flight import PATIENCE_S, WINDOW_BYTES, Flight, Head
from gateway.flights import Flights
from gateway.seat import Overflown, Seat
from tests.helpers.simulated_clock import run_simulated
from tests.properties.conftest import many

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

ASK = Ask(form=Form.STREAM, model="m", deterministic=True)
HEAD = Head(200, "OK", CIMultiDictProxy(CIMultiDict()))
FOR_EVER = 1e9


@dataclass(frozen=True)
class Script:
    """What an upstream does when it is called: seconds before each part, and how it ends."""

    head_s: float
    gaps_s: tuple[float, ...]
    fails: bool
    linger_s: float
    """How long its answer is on its way to the store afterwards."""


@dataclass(frozen=True)
class Client:
    """A request: when it comes, what it asks, how it takes the answer, and when it leaves."""

    at_s: float
    key: int
    reads: bool
    leaves_s: float
    slow_s: float
    """What it does between two parts."""
    pours: bool = False
    """It is called with each part, instead of asking for it."""


@dataclass
class Told:
    """What became of a client."""

    call: int | None = None
    parts: list[bytes] = field(default_factory=list)
    whole: bytes | None = None
    error: GatewayError | None = None
    left: bool = False
    over_s: float = 0.0


@dataclass
class Call:
    """One upstream call, as the upstream saw it."""

    key: int
    began_s: float
    over_s: float = 0.0
    cancelled: bool = False
    aboard: list[int] = field(default_factory=list)


def body_of(call: int, script: Script) -> list[bytes]:
    return [f"<call {call} part {n}>".encode() for n in range(len(script.gaps_s))]


def whole_of(call: int, script: Script) -> bytes:
    return b"".join(body_of(call, script))


class World:
    """An upstream, the table of flights, and clients that follow their scripts."""

    def __init__(self, scripts: list[Script], limit_bytes: int = 1 << 20) -> None:
        self.background = Background(1000)
        self.budget = Budget(1 << 30)
        self.flights = Flights(self.background, limit_bytes, self.budget)
        self.scripts = scripts
        self.calls: list[Call] = []
        self.on_its_way: dict[int, int] = {}

    async def run(self, clients: list[Client]) -> list[Told]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._client(n, c)) for n, c in enumerate(clients)]
        await self.background.idle()
        return [task.result() for task in tasks]

    def _pilot(self, key: int) -> Callable[[Flight], Coroutine[None, None, bool]]:
        number = len(self.calls)
        script = self.scripts[number % len(self.scripts)]
        call = Call(key, asyncio.get_running_loop().time())
        self.calls.append(call)

        async def fly(flight: Flight) -> bool:
            assert self.on_its_way.setdefault(key, number) == number, "two calls for one question"
            flight.number = number  # type: ignore[attr-defined]
            try:
                await asyncio.sleep(script.head_s)
                flight.begin(HEAD)
                for gap_s, part in zip(script.gaps_s, body_of(number, script), strict=True):
                    await asyncio.sleep(gap_s)
                    if not flight.put(part):
                        await flight.room()
                if script.fails:
                    raise UpstreamBroken("broke off")
                flight.end()
                whole = b"".join(body_of(number, script))
                flight.answer = Answer(Form.STREAM, whole, Finish.COMPLETE)
            except asyncio.CancelledError:
                call.cancelled = True
                raise
            finally:
                del self.on_its_way[key]
                call.over_s = asyncio.get_running_loop().time()
            stays = script.linger_s > 0
            if stays:
                self.background.spawn(self._stored(key, flight, script.linger_s), "put")
            return stays

        return fly

    async def _stored(self, key: int, flight: Flight, linger_s: float) -> None:
        await asyncio.sleep(linger_s)
        self.flights.remove(bytes([key]), flight)

    async def _client(self, number: int, client: Client) -> Told:
        told = Told()
        await asyncio.sleep(client.at_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(client.leaves_s):
                await self._asks(number, client, told)
                told.over_s = asyncio.get_running_loop().time()
                return told
        told.left = True
        told.over_s = asyncio.get_running_loop().time()
        return told

    async def _asks(self, number: int, client: Client, told: Told) -> None:
        key = bytes([client.key])
        flight = self.flights.find(key)
        if flight is None:
            flight = self.flights.start(key, b"who", ASK, self._pilot(client.key))
            assert flight is not None
        seat = flight.board(reads=client.reads)
        try:
            await seat.head()
            told.call = flight.number  # type: ignore[attr-defined]
            if not client.reads:
                answer = await seat.landed()
                told.whole = answer.payload if answer else None
                return
            await self._takes(seat, client, told)
        except GatewayError as error:
            told.error = error
        finally:
            seat.leave()
            if told.call is not None:
                self.calls[told.call].aboard.append(number)

    @staticmethod
    async def _takes(seat: Seat, client: Client, told: Told) -> None:
        def sink(part: bytes) -> bool:
            told.parts.append(part)
            return not client.slow_s

        if client.pours:
            await seat.pass_to(sink, lambda: asyncio.sleep(client.slow_s))
            return
        while part := await seat.readany():
            sink(part)
            await asyncio.sleep(client.slow_s)


seconds = st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.0, 2.0, 3.0, 7.0])
scripts = st.builds(
    Script,
    head_s=seconds,
    gaps_s=st.lists(seconds, max_size=5).map(tuple),
    fails=st.booleans(),
    linger_s=seconds,
)
clients = st.builds(
    Client,
    at_s=seconds.map(lambda s: 2 * s),
    key=st.integers(0, 1),
    reads=st.booleans(),
    leaves_s=st.one_of(st.just(FOR_EVER), seconds),
    slow_s=st.sampled_from([0.0, 0.0, 1.0]),
    pours=st.booleans(),
)


@many
@given(st.lists(scripts, min_size=1, max_size=4), st.lists(clients, min_size=1, max_size=12))
def test_nobody_gets_a_mixed_answer_nobody_waits_for_ever_and_no_call_is_left_alone(
    upstream: list[Script], asking: list[Client]
) -> None:
    async def play() -> tuple[World, list[Told]]:
        world = World(upstream)
        return world, await world.run(asking)

    world, told = run_simulated(play())
    for client, each in zip(asking, told, strict=True):
        if each.left:
            assert client.leaves_s < FOR_EVER, "a waiter was forgotten"
            continue
        # Whoever stayed has the whole answer of one call for its own question, or its failure.
        if each.call is None:
            assert each.error is not None
            continue
        script = world.scripts[each.call % len(world.scripts)]
        assert world.calls[each.call].key == client.key
        assert b"".join(each.parts) == (whole_of(each.call, script) if client.reads else b"")
        assert (each.error is not None) == script.fails
        if not client.reads and not script.fails:
            assert each.whole == whole_of(each.call, script)
    # No call goes on for nobody, none is cancelled while somebody waits, none stays behind.
    for call in world.calls:
        waited = [told[n].over_s for n in call.aboard]
        if call.cancelled:
            assert all(told[n].left for n in call.aboard)
        if waited and all(told[n].left for n in call.aboard):
            assert call.over_s <= max(waited)
    assert len(world.flights) == 0
    assert world.on_its_way == {}
    assert world.budget.used_bytes == 0


def flown(
    *scripts: Script, limit_bytes: int = 1 << 20, clients: list[Client]
) -> tuple[World, list[Told]]:
    async def play() -> tuple[World, list[Told]]:
        world = World(list(scripts), limit_bytes)
        return world, await world.run(clients)

    return run_simulated(play())


STEADY = Script(head_s=1, gaps_s=(1, 1, 1), fails=False, linger_s=0)


def client(at_s: float = 0, *, reads: bool = True, leaves_s: float = FOR_EVER) -> Client:
    return Client(at_s, 0, reads, leaves_s, 0)


def test_one_that_comes_late_gets_what_has_passed_and_then_the_rest() -> None:
    world, told = flown(STEADY, clients=[client(), client(2.5), client(3.5, reads=False)])
    assert len(world.calls) == 1
    assert told[0].parts == body_of(0, STEADY)
    assert b"".join(told[1].parts) == whole_of(0, STEADY)
    assert told[2].whole == b"".join(body_of(0, STEADY))


def test_the_first_may_leave_and_the_others_still_get_it_all() -> None:
    world, told = flown(STEADY, clients=[client(leaves_s=1.5), client(1)])
    assert (len(world.calls), world.calls[0].cancelled) == (1, False)
    assert told[0].left
    assert told[1].parts == body_of(0, STEADY)


def test_when_all_have_left_the_call_is_cancelled_and_the_next_makes_its_own() -> None:
    world, told = flown(STEADY, clients=[client(leaves_s=1.5), client(2)])
    assert [call.cancelled for call in world.calls] == [True, False]
    assert world.calls[0].over_s == 1.5
    assert told[1].call == 1


def test_a_call_that_is_given_up_in_the_very_tick_it_began_leaves_nothing_behind() -> None:
    async def play() -> None:
        world = World([STEADY])
        flight = world.flights.start(b"k", b"who", ASK, world._pilot(0))
        assert flight is not None
        flight.board().leave()
        await world.background.idle()
        await asyncio.sleep(0)
        assert (flight.landed, len(world.flights)) == (True, 0)

    run_simulated(play())


def test_a_failure_is_everybodys_and_nobodys_after() -> None:
    broken = Script(head_s=1, gaps_s=(1,), fails=True, linger_s=0)
    world, told = flown(broken, STEADY, clients=[client(), client(0.5, reads=False), client(5)])
    assert [type(each.error) for each in told] == [UpstreamBroken, UpstreamBroken, type(None)]
    assert len({id(each.error) for each in told}) == 3
    assert (told[2].call, len(world.calls)) == (1, 2)


def test_what_has_been_answered_is_found_until_it_is_stored() -> None:
    slow_put = Script(head_s=0, gaps_s=(0,), fails=False, linger_s=5)
    world, _ = flown(slow_put, clients=[client(), client(4), client(4, reads=False), client(6)])
    assert len(world.calls) == 2


def test_beyond_its_bound_a_call_keeps_nothing_and_takes_nobody_aboard() -> None:
    async def play() -> None:
        flights = Flights(Background(10), 3 * WINDOW_BYTES, Budget(1 << 30))
        part = bytes(WINDOW_BYTES)

        async def fly(flight: Flight) -> bool:
            flight.begin(HEAD)
            for _ in range(20):
                if not flight.put(part):
                    await flight.room()
            flight.end()
            return False

        flight = flights.start(b"k", b"who", ASK, fly)
        assert flight is not None
        reader, waiter, sleeper = flight.board(reads=True), flight.board(), flight.board()
        for _ in range(8):
            assert await reader.readany() == part
        assert flights.find(b"k") is None
        assert await waiter.landed() is None
        with pytest.raises(Overflown):
            await sleeper.readany()
        assert flight._held <= 2 * WINDOW_BYTES
        sleeper.leave()
        for _ in range(12):
            assert await reader.readany() == part
        assert await reader.readany() == b""

    run_simulated(play())


def test_a_call_does_not_run_away_from_those_who_read_it() -> None:
    async def play() -> None:
        flights = Flights(Background(10), 64 * WINDOW_BYTES, Budget(1 << 30))
        added = 0

        async def fly(flight: Flight) -> bool:
            nonlocal added
            flight.begin(HEAD)
            for _ in range(16):
                if not flight.put(bytes(WINDOW_BYTES // 2)):
                    await flight.room()
                added += 1
            flight.end()
            return False

        flight = flights.start(b"k", b"who", ASK, fly)
        assert flight is not None
        slow, fast = flight.board(reads=True), flight.board(reads=True)
        await asyncio.sleep(1)
        assert added == 2
        await fast.readany()
        await asyncio.sleep(1)
        assert added == 3
        fast.leave()
        # Now the slow one is the fastest: it has a window of its own.
        await asyncio.sleep(1)
        assert added == 3
        total = 0
        while part := await slow.readany():
            total += len(part)
        assert total == 8 * WINDOW_BYTES

    run_simulated(play())


def test_what_a_sink_raises_comes_to_the_one_who_waits_and_to_nobody_else() -> None:
    async def play() -> None:
        flights = Flights(Background(10), 1000, Budget(1 << 30))
        go = asyncio.Event()

        async def fly(flight: Flight) -> bool:
            flight.begin(HEAD)
            await go.wait()
            flight.put(b"part")
            flight.end()
            return False

        def burst(_: bytes) -> bool:
            raise ConnectionResetError

        async def room() -> None:
            raise AssertionError

        taken: list[bytes] = []
        flight = flights.start(b"k", b"who", ASK, fly)
        assert flight is not None
        bad, good = flight.board(reads=True), flight.board(reads=True)

        def take(part: bytes) -> bool:
            taken.append(part)
            return True

        passing = [
            asyncio.ensure_future(bad.pass_to(burst, room)),
            asyncio.ensure_future(good.pass_to(take, room)),
        ]
        await asyncio.sleep(1)
        go.set()
        with pytest.raises(ConnectionResetError):
            await passing[0]
        await passing[1]
        assert taken == [b"part"]

    run_simulated(play())


def puts(*parts: bytes, stays: bool = False) -> Callable[[Flight], Coroutine[None, None, bool]]:
    async def fly(flight: Flight) -> bool:
        flight.begin(HEAD)
        for part in parts:
            if not flight.put(part):
                await flight.room()
        flight.end()
        return stays

    return fly


def test_what_a_call_holds_is_counted_until_nobody_can_ask_for_it_any_more() -> None:
    async def play() -> None:
        budget = Budget(1000)
        background = Background(10)
        flights = Flights(background, 10_000, budget)
        flight = flights.start(b"k", b"who", ASK, puts(b"x" * 300, b"y" * 200, stays=True))
        assert flight is not None
        assert flight.carry(100)
        seat = flight.board(reads=True)
        assert await seat.readany() == b"x" * 300 + b"y" * 200
        assert seat.has_all
        await background.idle()
        assert budget.used_bytes == 600
        flights.remove(b"k", flight)
        assert budget.used_bytes == 600
        seat.leave()
        assert budget.used_bytes == 0

    run_simulated(play())


def test_a_call_that_does_not_fit_into_the_budget_goes_on_unkept() -> None:
    async def play() -> None:
        budget = Budget(4 * 500 // 3)
        background = Background(10)
        flights = Flights(background, 10_000, budget)
        flight = flights.start(b"k", b"who", ASK, puts(*[b"x" * 300] * 4))
        assert flight is not None
        assert not flight.carry(501)
        reader, waiter = flight.board(reads=True), flight.board()
        got = b""
        while part := await reader.readany():
            got += part
        assert got == b"x" * 1200
        assert await waiter.landed() is None
        assert flights.find(b"k") is None
        reader.leave()
        waiter.leave()
        await background.idle()
        assert budget.used_bytes == 0

    run_simulated(play())


def test_whoever_holds_the_others_back_loses_its_place_after_a_while() -> None:
    async def play() -> float:
        budget = Budget(1 << 30)
        flights = Flights(Background(10), WINDOW_BYTES, budget)
        flight = flights.start(b"k", b"who", ASK, puts(*[bytes(WINDOW_BYTES)] * 6))
        assert flight is not None
        fast, stuck = flight.board(reads=True), flight.board(reads=True)
        assert await stuck.readany()
        total = 0
        while part := await fast.readany():
            total += len(part)
        assert total == 6 * WINDOW_BYTES
        with pytest.raises(UpstreamBroken, match="too slowly"):
            await stuck.readany()
        stuck.leave()
        fast.leave()
        await asyncio.sleep(0)
        assert budget.used_bytes == 0
        return asyncio.get_running_loop().time()

    assert PATIENCE_S <= run_simulated(play()) <= 2 * PATIENCE_S


def test_those_who_are_as_slow_as_each_other_keep_their_places() -> None:
    async def play() -> None:
        flights = Flights(Background(10), WINDOW_BYTES, Budget(1 << 30))
        flight = flights.start(b"k", b"who", ASK, puts(*[bytes(WINDOW_BYTES)] * 6))
        assert flight is not None
        seats = [flight.board(reads=True) for _ in range(3)]
        totals = [0, 0, 0]
        while parts := [part for seat in seats if (part := await seat.readany())]:
            await asyncio.sleep(5 * PATIENCE_S)
            totals = [n + len(part) for n, part in zip(totals, parts, strict=True)]
        assert totals == [6 * WINDOW_BYTES] * 3

    run_simulated(play())


def test_a_call_that_is_flown_to_be_kept_is_given_up_when_it_can_not_be() -> None:
    async def play() -> None:
        background = Background(10)
        flights = Flights(background, WINDOW_BYTES, Budget(1 << 30))

        async def fly(flight: Flight) -> bool:
            flight.begin(HEAD)
            while True:
                flight.put(bytes(WINDOW_BYTES // 2))
                await asyncio.sleep(1)

        flight = flights.start(b"k", b"who", ASK, fly)
        assert flight is not None
        flight.keep()
        await background.idle()
        assert (flight.landed, flight.aboard, len(flights)) == (True, 0, 0)

    run_simulated(play())


def test_a_call_that_is_complete_is_not_cancelled_for_who_leaves_then() -> None:
    async def play() -> None:
        background = Background(10)
        flights = Flights(background, 1000, Budget(1 << 30))
        read = False

        async def fly(flight: Flight) -> bool:
            nonlocal read
            flight.begin(HEAD)
            flight.end()
            await asyncio.sleep(5)
            read = True
            return False

        flight = flights.start(b"k", b"who", ASK, fly)
        assert flight is not None
        seat = flight.board(reads=True)
        assert await seat.readany() == b""
        seat.leave()
        await background.idle()
        assert read

    run_simulated(play())


def test_an_error_that_is_raised_again_keeps_its_words_and_says_where_it_came_from() -> None:
    async def play() -> None:
        flights = Flights(Background(10), 1000, Budget(1 << 30))

        async def fly(_: Flight) -> bool:
            raise UpstreamTimeout("silent for 3 s", param="x")

        flight = flights.start(b"k", b"who", ASK, fly)
        assert flight is not None
        seats = [flight.board(), flight.board()]
        for seat in seats:
            with pytest.raises(UpstreamTimeout, match="silent for 3 s") as caught:
                await seat.head()
            assert caught.value.param == "x"
            assert caught.value.__cause__ is flight.error

    run_simulated(play())
