from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from gateway.cache import Clock
from gateway.lab.provider_sim import ProviderSim
from tests.helpers.doorway import CHAT, MESSAGES, Canned, doorway

if TYPE_CHECKING:
    from gateway.app import RunningGateway

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


def agent(*, stream: bool = False) -> dict[str, Any]:
    """A prompt that is looked at before it is sent."""
    messages = [{"role": "user", "content": "And?"}]
    body = {"model": "claude-sonnet-4-5", "max_tokens": 9, "system": RULES, "messages": messages}
    return {**body, "stream": True} if stream else body


async def on_page(gateway: RunningGateway, what: str) -> Any:
    """What the admin page is told."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.admin_url}/admin/page/{what}") as response,
    ):
        assert response.status == 200
        return await response.json()


BROKEN = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message",'
    b'"role":"assistant","model":"claude-sonnet-4-5","content":[]}}\n\n'
)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b'{"type":"error","error":{"type":"overloaded_error","message":"Later."}}', 529),
        (b'{"type":"message","content":[]}', 200),
        (BROKEN, 200),
    ],
    ids=["refused", "without usage", "broken off"],
)
async def test_what_was_foreseen_is_no_miss_where_no_answer_bears_it_out(
    answer: bytes, status: int
) -> None:
    async with doorway(
        provider="anthropic",
        stub=Canned(answer, status=status),
        cache={"when": "off"},
    ) as door:
        with capture_logs() as lines:
            told = await door.ask(MESSAGES, agent(stream=answer is BROKEN))
        assert "cause=cold" in told.headers[HEADER]
        (line,) = [each for each in lines if each["event"] == "request"]
        assert line["cache_expected"] == 0
        assert "cache_miss" not in line
        assert "cache_lost" not in line
        (row,) = (await on_page(door.gateway, "requests"))["requests"]
        assert row["cause"] is None
        assert (await on_page(door.gateway, "summary"))["total"]["misses"] == {}
        assert "gateway_prompt_cache_misses_total{" not in await door.metrics()


def counted(prompt_tokens: int, details: dict[str, int] | None) -> dict[str, Any]:
    """An answer of an upstream that speaks as OpenAI does."""
    usage: dict[str, Any] = {"prompt_tokens": prompt_tokens, "completion_tokens": 5}
    usage["total_tokens"] = prompt_tokens + 5
    if details is not None:
        usage["prompt_tokens_details"] = details
    message = {"role": "assistant", "content": "Yes."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    base = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4.1"}
    return {**base, "choices": [choice], "usage": usage}


@pytest.mark.parametrize(
    ("details", "causes"),
    [(None, ["cold", None, None]), ({"cached_tokens": 0}, ["cold", "evicted", "evicted"])],
    ids=["silent", "none, it says"],
)
async def test_an_upstream_that_says_nothing_of_reads_is_not_said_to_have_missed_any(
    details: dict[str, int] | None, causes: list[str | None]
) -> None:
    size = len(RULES) // 4
    stub = Canned(*(counted(size + 10 * n, details) for n in range(3)))
    seen = []
    async with doorway(stub=stub, cache={"when": "off"}) as door:
        for turns in (1, 3, 5):
            body = chat(RULES)
            roles = ("user", "assistant")
            talk = [{"role": roles[n % 2], "content": f"Turn {n}."} for n in range(turns)]
            body["messages"][1:] = talk
            with capture_logs() as lines:
                assert (await door.ask(CHAT, body)).status == 200
            (line,) = [each for each in lines if each["event"] == "request"]
            seen.append(line.get("cache_miss"))
        page = await door.metrics()
    assert seen == causes
    assert page.count("gateway_prompt_cache_misses_total{") == len({*causes} - {None})
