"""Warm-ups of the config: when they are sent, and how long they may hold readiness up. In simulated
time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from gateway.config import Config
from gateway.upstream.choice import Choice
from gateway.warming import Warming
from tests.helpers.simulated_clock import run_simulated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.prefill import Prefill


class FakePrefill:
    """Takes `takes_s` for each prompt, and says of it what the test wants."""

    def __init__(self, outcomes: Sequence[str] = ("ok",), takes_s: float = 1.0) -> None:
        self.sent: list[tuple[float, str, str]] = []
        self.outcomes = list(outcomes)
        self.takes_s = takes_s
        self.cancelled = 0

    async def write(
        self, endpoint: Any, path: str, body: bytes, *, why: str, hold_s: float, timeout_s: float
    ) -> tuple[str, None]:
        now = asyncio.get_running_loop().time()
        self.sent.append((now, endpoint.name, why))
        assert path == "/v1/chat/completions"
        assert b'"model":"m"' in body
        assert hold_s >= 0
        assert timeout_s > 0
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        place = min(len(self.sent), len(self.outcomes)) - 1
        return self.outcomes[place], None


def warming(prefill: FakePrefill, *warm: dict[str, Any], **prompt_cache: Any) -> Warming:
    base = {"upstream": "vllm", "body": {"model": "m", "messages": []}}
    config = Config.model_validate(
        {
            "upstreams": {"vllm": {"base_url": "http://gpu/v1", "provider": "vllm"}},
            "warm": [{**base, **each} for each in warm],
            "prompt_cache": prompt_cache,
        }
    )
    return Warming(config, Choice(config), cast("Prefill", prefill))


def times(prefill: FakePrefill) -> list[float]:
    return [round(at, 6) for at, _, _ in prefill.sent]


async def run_for(seconds: float, owner: Warming) -> list[float]:
    """When it was ready."""
    ready: list[float] = []
    loop = asyncio.get_running_loop()
    owner.start(lambda: ready.append(loop.time()))
    await asyncio.sleep(seconds)
    await owner.close(5.0)
    return ready


def test_without_warm_ups_the_gateway_is_ready_at_once() -> None:
    prefill = FakePrefill()

    assert run_simulated(run_for(10, warming(prefill))) == [0.0]
    assert prefill.sent == []


def test_ready_waits_for_the_prompts_of_the_start() -> None:
    prefill = FakePrefill(takes_s=3.0)

    ready = run_simulated(run_for(100, warming(prefill, {}, {"name": "other"})))

    assert ready == [3.0]
    assert times(prefill) == [0.0, 0.0]


def test_ready_waits_no_longer_than_its_deadline() -> None:
    prefill = FakePrefill(takes_s=50.0)

    ready = run_simulated(run_for(100, warming(prefill, {}, warm_timeout_s=7)))

    assert ready == [7.0]
    assert prefill.cancelled == 0


def test_a_prompt_that_can_not_be_warmed_keeps_nobody_from_being_ready() -> None:
    prefill = FakePrefill(outcomes=["404"])

    assert run_simulated(run_for(1000, warming(prefill, {}))) == [1.0]
    assert times(prefill) == [0.0]


def test_a_schedule_is_kept() -> None:
    prefill = FakePrefill()

    run_simulated(run_for(1000, warming(prefill, {"interval_s": 240})))

    assert times(prefill) == [0.0, 241.0, 482.0, 723.0, 964.0]
    assert [why for _, _, why in prefill.sent] == ["start"] + ["interval"] * 4


def test_one_that_is_not_for_the_start_waits_for_its_first_interval() -> None:
    prefill = FakePrefill()

    ready = run_simulated(run_for(300, warming(prefill, {"interval_s": 240, "at_start": False})))

    assert ready == [0.0]
    assert times(prefill) == [240.0]


def test_failures_that_pass_are_tried_again_ever_later() -> None:
    prefill = FakePrefill(outcomes=["503", "timeout", "429", "ok"])

    run_simulated(run_for(1000, warming(prefill, {})))

    assert times(prefill) == [0.0, 6.0, 17.0, 38.0]


@pytest.mark.parametrize("interval_s", [0, 60])
def test_a_credential_that_is_refused_is_not_tried_again(interval_s: float) -> None:
    prefill = FakePrefill(outcomes=["401"])

    run_simulated(run_for(1000, warming(prefill, {"interval_s": interval_s})))

    assert times(prefill) == [0.0]


def test_what_is_being_sent_may_end_when_the_gateway_stops() -> None:
    prefill = FakePrefill(takes_s=3.0)

    async def stop_soon() -> float:
        owner = warming(prefill, {"interval_s": 60})
        owner.start(lambda: None)
        await asyncio.sleep(1)
        await owner.close(5.0)
        return asyncio.get_running_loop().time()

    assert run_simulated(stop_soon()) == 3.0
    assert prefill.cancelled == 0


def test_what_takes_too_long_is_cancelled_when_the_gateway_stops() -> None:
    prefill = FakePrefill(takes_s=300.0)

    async def stop_soon() -> float:
        owner = warming(prefill, {})
        owner.start(lambda: None)
        await asyncio.sleep(1)
        await owner.close(5.0)
        return asyncio.get_running_loop().time()

    assert run_simulated(stop_soon()) == 6.0
    assert prefill.cancelled == 1


# --- another config ------------------------------------------------------------------------------


def test_another_config_sends_what_is_new_ends_what_is_gone_and_leaves_the_rest() -> None:
    prefill = FakePrefill()

    def config(key: str, *warm: dict[str, Any]) -> Config:
        base = {"upstream": "vllm", "body": {"model": "m", "messages": []}}
        vllm = {"base_url": "http://gpu/v1", "provider": "vllm", "api_key": key}
        return Config.model_validate(
            {"upstreams": {"vllm": vllm}, "warm": [{**base, **each} for each in warm]}
        )

    async def play() -> None:
        stays, goes = {"name": "stays", "interval_s": 100}, {"name": "goes", "interval_s": 30}
        first = config("sk-1", stays, goes)
        owner = Warming(first, Choice(first), cast("Prefill", prefill))
        owner.start(lambda: None)
        await asyncio.sleep(50)
        second = config("sk-1", {"name": "new"}, stays)
        owner.turn(second, Choice(second), cast("Prefill", prefill))
        await asyncio.sleep(100)
        third = config("sk-2", {"name": "new"}, stays)
        owner.turn(third, Choice(third), cast("Prefill", prefill))
        await asyncio.sleep(10)
        await owner.close(5.0)

    run_simulated(play())

    # At the start both, `goes` again; `new` at the turn; `stays` in its time; with another key all.
    assert times(prefill) == [0, 0, 31, 50, 101, 150, 150]


def test_who_waits_for_a_warm_up_that_another_config_has_not_is_told() -> None:
    prefill = FakePrefill()
    prefill.takes_s = 1000.0
    ready: list[float] = []

    async def play() -> None:
        loop = asyncio.get_running_loop()
        owner = warming(prefill, {"name": "slow"}, warm_timeout_s=500)
        owner.start(lambda: ready.append(loop.time()))
        await asyncio.sleep(5)
        empty = Config.model_validate({})
        owner.turn(empty, Choice(empty), cast("Prefill", prefill))
        await asyncio.sleep(5)
        await owner.close(5.0)

    run_simulated(play())

    assert ready == [5]
