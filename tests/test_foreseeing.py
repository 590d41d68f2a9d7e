from __future__ import annotations

from typing import Any

from gateway.cache import Clock
from gateway.lab.provider_sim import ProviderSim
from tests.helpers.doorway import CHAT, MESSAGES, doorway

HEADER = "x-gateway-prompt-cache"
RULES = "".join(f"Rule {n}: ships of class {n} pay {n} crowns.\n" for n in range(300))


class Time:
    """A clock that stands still unless told."""

    now = 1_763_800_000.0

    def __call__(self) -> float:
        return self.now


def chat(system: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "And?"}]
    return {"model": "gpt-4.1", "messages": messages}


async def test_a_prompt_that_needs_no_plan_is_looked_at_behind_its_answer() -> None:
    time = Time()
    clock = Clock(now=time, monotonic=time)
    async with doorway(
        stub=ProviderSim(clock=time),
        clock=clock,
        cache={"when": "off"},
        prompt_cache={"hints": False},
    ) as door:
        for stamp in ("2026-11-22T10:15:07Z", "2026-11-22T10:16:41Z"):
            time.now += 10
            told = await door.ask(CHAT, chat(f"Current time: {stamp}\n\n{RULES}"))
            assert told.status == 200
            assert HEADER not in told.headers
        page = await door.metrics()
        counted = [
            line for line in page.splitlines() if "gateway_prompt_cache_misses_total{" in line
        ]
        assert len(counted) == 1
        assert 'cause="cold"' in counted[0]
        assert 'provider="openai"' in counted[0]


async def test_nothing_is_told_where_it_is_switched_off() -> None:
    time = Time()
    clock = Clock(now=time, monotonic=time)
    body = {"model": "claude-sonnet-4-5", "max_tokens": 9, "system": RULES}
    body["messages"] = [{"role": "user", "content": "And?"}]
    for causes in (True, False):
        async with doorway(
            stub=ProviderSim(clock=time),
            clock=clock,
            cache={"when": "off"},
            prompt_cache={"causes": causes},
        ) as door:
            told = await door.ask(MESSAGES, body)
            assert (HEADER in told.headers) is causes
