"""A pool of four engines under 64 conversations, and what happens to it: killed, restarted empty, hung,
slow, drained, deleted, added. Real processes on both sides; engines say themselves who answered.

No engine may have more than 1.5 times the mean for longer than 10 s: of requests (waiting or running,
averages of a second, and more than 2 above the mean), and of work (uncached prompt tokens of the last
5 s). The mean is of all that can be asked, and have been there for 10 s.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.helpers.conversations import (
    Crowd,
    Load,
    Turn,
    settled_after,
    told,
    warm_share,
)
from tests.helpers.engine_process import EngineProcess, engines
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.redis_servers import RedisServer, binary, free_port, missing_is_a_failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.slow

NAMES = ("ash", "birch", "cedar", "doum")
ENGINE = ("--prefill-rate", "12000", "--cache-tokens", "160000", "--decode-s", "0.02")
CONVERSATIONS = 64
TURNS = 192
"""3 for each conversation: so many turns may pass until 9 of 10 are warm again."""
STAYED = ("home", "extended")
MOVED = ("moved-load", "moved-health")
OVER_S = 10.0
SLOW_P90_S = 2.0
NOBODY: frozenset[str] = frozenset()


@dataclass
class Scene:
    """Everything that a test acts on."""

    crowd: Crowd
    load: Load
    fleet: list[EngineProcess]
    admins: list[str]
    """Base URLs of the gateways' admin ports."""
    session: aiohttp.ClientSession

    def engine(self, name: str) -> EngineProcess:
        return next(each for each in self.fleet if each.name == name)

    async def admin(self, method: str, path: str, body: Any = None) -> None:
        """The same at each gateway: what is changed there holds for that one alone."""
        for admin in self.admins:
            async with self.session.request(method, admin + path, json=body) as response:
                assert response.status < 300, await response.text()

    async def settle(self) -> None:
        """Wait until the conversations have homes: nine of ten of the latest turns are warm."""
        crowd = self.crowd
        await crowd.until(
            lambda: len(crowd.turns) > 3 * CONVERSATIONS and warm_share(crowd.turns[-100:]) > 0.9
        )

    def phase(self, name: str, since: float, until: float = float("inf")) -> list[Turn]:
        turns = self.crowd.since(since, until)
        who = sorted({turn.engine for turn in turns})
        settled = settled_after(turns)
        print(f"\n{name:<24} {told(turns, who)}  settled after {settled} turns", end="")
        return turns


@contextmanager
def redis() -> Iterator[str]:
    """The URL of a server, or of none where it isn't installed."""
    executable = binary("valkey") or binary("redis")
    if executable is None:
        assert not missing_is_a_failure()
        yield "memory://"
        return
    server = RedisServer(executable)
    server.start()
    try:
        yield server.url
    finally:
        server.close()


@asynccontextmanager
async def scene(
    policy: str = "prefix", gateways: int = 1, store: str = "memory://", **routing: Any
) -> AsyncIterator[Scene]:
    """Four engines, a gateway (or several) before them, and 64 conversations."""
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(engines(*NAMES, arguments=ENGINE))
        config = {
            "upstreams": {
                "openai": {
                    "engine": "vllm",
                    "backends": [{"name": e.name, "url": e.v1_url} for e in fleet],
                    "metrics_interval_s": 1,
                    "routing": {"policy": policy, **routing},
                    "health": {"interval_s": 0.5, "timeout_s": 0.5, "eject_s": 2},
                }
            },
            "store": {"url": store},
            "telemetry": {"traces": "off"},
            "log": {"level": "warning"},
        }
        ports = [free_port() for _ in range(gateways)]
        before = [
            await stack.enter_async_context(GatewayProcess({**config, "admin": {"port": port}}))
            for port in ports
        ]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        crowd, load = Crowd([each.api_url for each in before]), Load()
        await stack.enter_async_context(load.watching(fleet))
        await stack.enter_async_context(crowd.running(CONVERSATIONS))
        admins = [f"http://127.0.0.1:{port}" for port in ports]
        yield Scene(crowd, load, fleet, admins, session)


def told_truly(turns: list[Turn]) -> list[str]:
    """Turns of which the gateway says something else than the engines did."""
    faults = [
        f"{turn.backend} is said to have answered, {turn.engine} did"
        for turn in turns
        if turn.backend != turn.engine
    ]
    for turn in turns:
        # (It may return to where it lived before its home was away.)
        stays = turn.branch in STAYED and turn.engine not in turn.engines
        moves = turn.branch in MOVED and turn.engine == turn.last_engine
        if turn.number > 1 and (stays or moves):
            faults.append(
                f"{turn.conversation}/{turn.number}: {turn.branch}, from {turn.engines} to {turn.engine}"
            )
    return faults


def sound(scene: Scene, *, may_be_cut: bool = False, may_be_busy: frozenset[str] = NOBODY) -> None:
    """What holds whatever happened. `may_be_busy`: who may have many requests, but no more work."""
    crowd = scene.crowd
    by_requests, by_work = scene.load.overloaded_s(), scene.load.overworked_s(crowd.turns)
    print(
        f"\nover the mean for: {by_requests} s, by work {by_work} s; {len(crowd.cut)} cut", end=""
    )
    assert [f"{t.status} {t.fault}" for t in crowd.lost] == []
    assert crowd.wrong == []
    assert may_be_cut or not crowd.cut
    assert {name: s for name, s in by_work.items() if s > OVER_S} == {}
    busy = {name: s for name, s in by_requests.items() if s > OVER_S}
    assert busy.keys() <= may_be_busy
    assert told_truly(crowd.turns) == []


def test_an_engine_with_too_much_would_be_seen() -> None:
    asked = [
        Turn("c", 1, False, False, asked_at=float(second), engine=name, prompt_tokens=tokens)
        for second in range(40)
        for name, tokens in (("ash", 100), ("birch", 200 if second < 20 else 100))
    ]
    seen = [(float(t), {"ash": 5, "birch": 9 if t < 15 else 20, "new": 0}) for t in range(40)]

    load = Load(
        [(at, {k: v for k, v in each.items() if k != "new" or at > 15}) for at, each in seen]
    )

    # Above 1.5 times the mean of 12.5 until the newcomer counts as well, and of 8.3 from then on.
    assert load.overloaded_s() == {"ash": 0, "birch": 25, "new": 0}
    assert Load([(at, {"ash": 1, "birch": 1, "cedar": 1}) for at, _ in seen]).overworked_s(
        asked
    ) == {"ash": 0, "birch": 19, "cedar": 0}


async def test_conversations_of_a_killed_engine_settle_elsewhere_and_it_is_used_again() -> None:
    with redis() as store:
        async with scene(gateways=2, store=store) as here:
            await here.settle()
            killed_at = time.perf_counter()
            await here.engine("birch").kill()
            await here.crowd.more(TURNS)
            started_at = time.perf_counter()
            await here.engine("birch").start()
            await here.crowd.more(2 * TURNS)

    before = here.phase("two gateways", 0, killed_at)
    without = here.phase("one is killed", killed_at, started_at)
    again = here.phase("back, its cache empty", started_at)
    sound(here, may_be_cut=True)
    assert warm_share(before[-100:]) > 0.9
    assert settled_after(without) is not None
    assert settled_after(again) is not None
    assert any(turn.engine == "birch" for turn in again)
    # What broke off had begun: a stream, of which something came.
    assert all(turn.streamed for turn in here.crowd.cut)


async def test_a_hung_engine_keeps_no_request_that_it_has_not_begun_to_answer() -> None:
    async with scene() as here:
        await here.settle()
        hung_at = time.perf_counter()
        await here.engine("cedar").tell(here.session, "hang")
        await here.crowd.more(TURNS)
        on_at = time.perf_counter()
        stuck = [turn for turn in here.crowd.asked if turn.engine == "cedar"]
        await here.engine("cedar").tell(here.session, "go")
        await here.crowd.more(TURNS)

    here.phase("before", 0, hung_at)
    hung = here.phase("one hangs", hung_at, on_at)
    on = here.phase("it goes on", on_at)
    sound(here)
    assert settled_after(hung) is not None
    assert settled_after(on) is not None
    # Those that wait for it hang in the middle of their answers.
    assert all(turn.began_s for turn in stuck)


async def test_a_slow_engine_gets_less_to_do() -> None:
    async with scene() as here:
        await here.settle()
        slow_at = time.perf_counter()
        await here.engine("ash").tell(here.session, "slow?factor=8")
        await here.crowd.more(2 * TURNS, 60)
        later_at = time.perf_counter()
        await here.crowd.more(TURNS // 2, 60)

    here.phase("before", 0, slow_at)
    here.phase("one is 8 times slower", slow_at, later_at)
    later = here.phase("later", later_at)
    # An answer takes 4 s there: so many requests are there at once, but no more work is.
    sound(here, may_be_busy=frozenset(("ash",)))
    assert settled_after(later) is not None
    began = sorted(turn.began_s for turn in later if turn.streamed)
    assert began[int(0.9 * len(began))] < SLOW_P90_S


async def test_replicas_are_drained_deleted_and_added_without_losing_anything() -> None:
    async with EngineProcess("elder", *ENGINE) as elder, scene() as here:
        await here.settle()
        await here.admin("POST", "/admin/backends/openai/doum/drain", {})
        # (The crowd asks on meanwhile: until every gateway has been told, it may be asked.)
        drained_at = time.perf_counter()
        await here.crowd.more(TURNS)
        await here.admin("DELETE", "/admin/backends/openai/doum")
        added_at = time.perf_counter()
        await here.admin("PUT", "/admin/backends/openai/elder", {"url": elder.v1_url})
        here.fleet.append(elder)
        await here.crowd.more(2 * TURNS)

    here.phase("before", 0, drained_at)
    drained = here.phase("one is drained", drained_at, added_at)
    added = here.phase("another is added", added_at)
    sound(here)
    assert [turn for turn in drained if turn.engine == "doum"] == []
    assert settled_after(drained) is not None
    assert settled_after(added) is not None
    assert any(turn.engine == "elder" for turn in added)
