"""Hot prefixes are read again before they expire, in simulated time: with the configured credential,
within the budget, and with nothing in it that anybody said.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import orjson
import pytest

from gateway.cache import Clock
from gateway.config import Config
from gateway.core.model import Usage
from gateway.core.plan import Markers
from gateway.core.planner import CachePlanner
from gateway.planned import Planned
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.refreshing import Refreshing
from gateway.upstream.choice import Choice
from gateway.wire.marking import marked
from gateway.wire.prompt_blocks import cache_prompt
from gateway.wire.refusals import names_of
from gateway.wire.table import APIS
from tests.helpers.simulated_clock import run_simulated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.prefill import Prefill
    from gateway.turn import Turn

SYSTEM = "You answer questions about the harbour, its ships and its tides. " * 400
SECRET = "what somebody said"
UPSTREAMS = {
    "anthropic": {"api_key": "sk-ours"},
    "engine": {"base_url": "http://gpu/v1", "provider": "vllm", "api_key": "sk-ours"},
    "keyless": {"base_url": "http://gpu/v1", "provider": "vllm"},
}


class FakePrefill:
    def __init__(self, outcome: str = "ok") -> None:
        self.sent: list[tuple[float, str, bytes]] = []
        self.outcome = outcome
        self.takes_s = 0.5
        self.usage: Usage | None = None

    async def write(
        self, endpoint: Any, path: str, body: bytes, *, why: str, hold_s: float, timeout_s: float
    ) -> tuple[str, Usage | None]:
        assert why == "refresh"
        assert path in APIS
        assert hold_s >= 300
        assert timeout_s > 0
        self.sent.append((asyncio.get_running_loop().time(), endpoint.name, body))
        await asyncio.sleep(self.takes_s)
        return self.outcome, self.usage


class Scene:
    """A refresher in simulated time, and requests that were just answered."""

    def __init__(self, upstream: str = "anthropic", **refresh: Any) -> None:
        loop = asyncio.get_running_loop()
        config = Config.model_validate(
            {"upstreams": UPSTREAMS, "prompt_cache": {"refresh": {"when": "all", **refresh}}}
        )
        choice = Choice(config)
        self.prefill = FakePrefill()
        self.refreshing = Refreshing(
            config,
            choice,
            cast("Prefill", self.prefill),
            Clock(now=loop.time, monotonic=loop.time),
        )
        self.endpoint = choice.endpoints[upstream]
        self.planner = CachePlanner()
        self.refreshing.start()

    def answered(self, system: str = SYSTEM, model: str = "claude-sonnet-4-5") -> None:
        """A request with this system text has its answer."""
        now = asyncio.get_running_loop().time()
        is_claude = self.endpoint.provider.name == "anthropic"
        path = "/v1/messages" if is_claude else "/v1/chat/completions"
        api = APIS[path]
        said = {"role": "user", "content": f"{SECRET} {now}"}
        text: dict[str, Any] = {"type": "text", "text": system}
        document: dict[str, Any] = {"model": model, "max_tokens": 9, "messages": [said]}
        if is_claude:
            document["system"] = [{**text, "cache_control": {"type": "ephemeral"}}]
        else:
            document["messages"] = [{"role": "system", "content": system}, said]
        body = orjson.dumps(document)
        provider = self.endpoint.provider.name
        rules = cache_rules(provider, api.name, model)
        assert rules is not None
        prompt = cache_prompt(api.name, document, rules)
        ticket = self.planner.plan(b"d", prompt, rules, Markers.AUTO, now)
        planned = Planned(body, ticket.plan.reason, provider, model, rules, ticket)
        planned.key = (b"d", api.name, model)
        if ticket.plan.changes:
            planned.body = marked(body, prompt, ticket.plan, rules)
            planned.names = names_of(ticket.plan, prompt, rules)
        turn = SimpleNamespace(
            known=SimpleNamespace(endpoint=self.endpoint),
            api=api,
            exchange=SimpleNamespace(started=now),
        )
        self.refreshing.saw(cast("Turn", turn), planned)

    @property
    def times(self) -> list[float]:
        return [at for at, _, _ in self.prefill.sent]


def played(
    act: Callable[[Scene], Awaitable[None]], upstream: str = "anthropic", **refresh: Any
) -> Scene:
    async def play() -> Scene:
        scene = Scene(upstream, **refresh)
        await act(scene)
        await scene.refreshing.close(5.0)
        return scene

    return run_simulated(play())


async def three_and_wait(scene: Scene) -> None:
    for _ in range(3):
        scene.answered()
        await asyncio.sleep(100)
    await asyncio.sleep(7200)


def test_a_hot_prefix_is_read_again_before_it_expires_and_not_for_ever() -> None:
    scene = played(three_and_wait)

    # The last request came at 200 s; it lives for 300.
    assert scene.times[0] == pytest.approx(480.0, abs=1.0)
    gaps = [after - before for before, after in pairwise(scene.times)]
    assert all(270 <= gap <= 285 for gap in gaps)
    assert 1 <= len(scene.times) <= 6


def test_nothing_that_anybody_said_is_kept_or_sent() -> None:
    scene = played(three_and_wait)

    bodies = [body for _, _, body in scene.prefill.sent]
    assert bodies
    assert not [body for body in bodies if SECRET.encode() in body]
    assert all(b"harbour" in body and b"cache_control" in body for body in bodies)


def test_a_request_starts_the_lifetime_anew() -> None:
    async def steady(scene: Scene) -> None:
        for _ in range(20):
            scene.answered()
            await asyncio.sleep(200)

    assert played(steady).times == []


def test_two_requests_are_not_enough_to_keep_a_prefix() -> None:
    async def twice(scene: Scene) -> None:
        scene.answered()
        await asyncio.sleep(10)
        scene.answered()
        await asyncio.sleep(3600)

    assert played(twice).times == []


@pytest.mark.parametrize(
    ("upstream", "refresh"),
    [
        ("anthropic", {"when": "local"}),
        ("anthropic", {"when": "off"}),
        ("anthropic", {"keep_bytes": 0}),
        ("anthropic", {"daily_usd": 0}),
        ("anthropic", {"daily_tokens": 0}),
        ("keyless", {}),
        ("engine", {"when": "off"}),
    ],
)
def test_where_it_is_not_allowed_or_not_paid_for_nothing_is_sent(
    upstream: str, refresh: dict[str, Any]
) -> None:
    assert played(three_and_wait, upstream, **refresh).times == []


def test_an_engine_of_ones_own_is_kept_warm_unless_told_otherwise() -> None:
    assert played(three_and_wait, "engine", when="local").times


def test_a_credential_that_is_refused_is_not_used_again() -> None:
    async def refused(scene: Scene) -> None:
        scene.prefill.outcome = "401"
        await three_and_wait(scene)
        await three_and_wait(scene)

    assert len(played(refused).times) == 1


def test_a_days_budget_is_kept_and_the_next_day_has_one_of_its_own() -> None:
    async def two_days(scene: Scene) -> None:
        for _ in range(2 * 24):
            for _ in range(3):
                scene.answered()
                await asyncio.sleep(20)
            await asyncio.sleep(3540)

    # A refresh of 6,500 tokens costs 0.2 cents.
    scene = played(two_days, daily_usd=0.01)

    by_day = [sum(1 for at in scene.times if at // 86_400 == day) for day in (0, 1)]
    assert by_day[0] == by_day[1]
    assert 4 <= by_day[0] <= 6


def test_stopping_waits_for_what_is_being_sent_and_begins_nothing_new() -> None:
    async def stop_while_sending(scene: Scene) -> None:
        for _ in range(3):
            scene.answered()
            await asyncio.sleep(10)
        while not scene.prefill.sent:  # noqa: ASYNC110 - in simulated time it costs nothing
            await asyncio.sleep(0.1)

    scene = played(stop_while_sending)

    assert len(scene.times) == 1


def test_behind_a_provider_that_hangs_nothing_is_read_that_has_lapsed() -> None:
    async def many_behind_slow_ones(scene: Scene) -> None:
        scene.prefill.takes_s = 15.0
        for _ in range(3):
            for number in range(20):
                scene.answered(f"{number} {SYSTEM}")
            await asyncio.sleep(100)
        await asyncio.sleep(400)

    scene = played(many_behind_slow_ones)
    # All came at 200 s, and live for 300: of five rounds of four, two are in time.
    assert scene.times
    assert max(at for at in scene.times if at < 700) < 500
    assert len([at for at in scene.times if at < 700]) == 8


def test_a_request_that_comes_while_others_are_read_again_spares_its_own() -> None:
    async def asked_meanwhile(scene: Scene) -> None:
        scene.prefill.takes_s = 10.0
        for _ in range(3):
            for number in range(5):
                scene.answered(f"{number} {SYSTEM}")
            await asyncio.sleep(100)
        await asyncio.sleep(185)  # 485 s: four are being read
        scene.answered(f"4 {SYSTEM}")
        await asyncio.sleep(100)

    assert len(played(asked_meanwhile).times) == 4


def test_a_refresh_that_had_to_write_is_the_last() -> None:
    async def writes(scene: Scene) -> None:
        scene.prefill.usage = Usage(
            uncached_input=3, cache_read=0, cache_write_5m=4000, cache_write_1h=0, output=1
        )
        await three_and_wait(scene)

    assert len(played(writes).times) == 1


# --- another config ------------------------------------------------------------------------------


def turned(scene: Scene, when: str = "all", **upstreams: Any) -> None:
    config = Config.model_validate(
        {
            "upstreams": {**UPSTREAMS, **upstreams},
            "prompt_cache": {"refresh": {"when": when}},
        }
    )
    scene.refreshing.turn(config, Choice(config), cast("Prefill", scene.prefill))


@pytest.mark.parametrize(
    ("when", "upstream", "is_kept"),
    [
        ("all", {}, True),
        ("all", {"api_key": "sk-rotated"}, True),
        ("all", {"base_url": "https://elsewhere.example/v1", "provider": "anthropic"}, False),
        ("all", {"api_key": None}, False),
        ("local", {}, False),
        ("off", {}, False),
    ],
)
def test_another_config_keeps_what_is_still_to_be_kept_there(
    when: str, upstream: dict[str, Any], is_kept: bool
) -> None:
    async def turn(scene: Scene) -> None:
        for _ in range(3):
            scene.answered()
            await asyncio.sleep(20)
        turned(scene, when, anthropic={**UPSTREAMS["anthropic"], **upstream})
        await asyncio.sleep(3600)

    assert bool(played(turn).times) is is_kept


def test_what_an_earlier_config_had_asked_is_kept_nowhere_else() -> None:
    """A request ends after its upstream has become somebody else's."""

    async def late(scene: Scene) -> None:
        other = {"base_url": "https://elsewhere.example/v1", "provider": "anthropic"}
        turned(scene, anthropic={**UPSTREAMS["anthropic"], **other})
        await three_and_wait(scene)

    assert played(late).times == []


def test_a_new_credential_is_tried_where_the_old_one_was_refused() -> None:
    async def mended(scene: Scene) -> None:
        scene.prefill.outcome = "401"
        await three_and_wait(scene)
        scene.prefill.outcome = "ok"
        turned(scene, anthropic={**UPSTREAMS["anthropic"], "api_key": "sk-mended"})
        await three_and_wait(scene)

    assert len(played(mended).times) > 1
