"""A request through a pool whose replicas end connections: the conversation stays where it lives."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import orjson
import pytest

from tests.helpers.gateway_here import gateway_here
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.app import RunningGateway

ANSWER = response(
    orjson.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hello."},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
        }
    )
)
TEXT = "A long text about houses. " * 100


class Scene(NamedTuple):
    gateway: RunningGateway
    replicas: dict[str, ScriptedUpstream]
    client: aiohttp.ClientSession

    async def say(self, *texts: str) -> tuple[int, str, str]:
        """Status, replica and branch."""
        roles = ("user", "assistant")
        messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
        body: dict[str, Any] = {"model": "m", "messages": messages}
        url = f"{self.gateway.api_url}/u/gpu/v1/chat/completions"
        async with self.client.post(url, json=body) as answer:
            await answer.read()
            headers = answer.headers
            return (
                answer.status,
                headers.get("x-gateway-backend", ""),
                headers.get("x-gateway-affinity", ""),
            )

    def told(self, name: str) -> dict[str, Any]:
        pools = self.gateway._assembled.pools
        told: dict[str, Any] = pools["gpu"][name].told()
        return told


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        replicas = {
            name: await stack.enter_async_context(ScriptedUpstream()) for name in ("a", "b")
        }
        for each in replicas.values():
            each.otherwise(ANSWER)
        backends = [{"url": f"{each.url}/v1", "name": name} for name, each in replicas.items()]
        pool = {
            "engine": "vllm",
            "backends": backends,
            "health": {"interval_s": 0},
            "metrics_interval_s": 0,
        }
        gateway = await stack.enter_async_context(
            gateway_here(
                backends[0]["url"].removesuffix("/v1"),
                upstreams={"gpu": pool},
                cache={"when": "off"},
            )
        )
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield Scene(gateway, replicas, client)


async def test_a_kept_connection_that_breaks_does_not_send_a_conversation_away() -> None:
    async with scene() as pool:
        _, home, _ = await pool.say(TEXT)
        # The server ends it while the next request is under way.
        pool.replicas[home].answer(then_close=True)
        status, where, branch = await pool.say(TEXT, "Hello.", "And now?")
        connections = pool.replicas[home].connections
        told = pool.told(home)

    assert (status, where, branch) == (200, home, "extended")
    assert connections == 2
    assert told["failures_in_a_row"] == 0
    assert told["recent"] == {"requests": 2, "failed": 0}


async def test_a_new_connection_that_breaks_as_well_is_the_replicas_fault() -> None:
    async with scene() as pool:
        _, home, _ = await pool.say(TEXT)
        for _ in range(2):
            pool.replicas[home].answer(then_close=True)
        status, where, branch = await pool.say(TEXT, "Hello.", "And now?")
        told = pool.told(home)

    assert (status, branch) == (200, "moved-health")
    assert where != home
    assert told["failures_in_a_row"] == 1


async def test_a_replica_that_breaks_off_each_answer_is_left_alone() -> None:
    async with scene() as pool:
        for each in pool.replicas.values():
            each.otherwise(ANSWER[:-40], then_close=True)
        for _ in range(8):
            with suppress(aiohttp.ClientError):
                await pool.say(TEXT)
        states = {pool.told(name)["state"] for name in pool.replicas}

    assert states == {"ejected"}


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_what_a_replica_keeps_and_cannot_give_now_is_not_denied_by_another(
    status: str,
) -> None:
    made = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "model": "m",
        "output": [],
        "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
    }
    async with scene() as pool:
        for each in pool.replicas.values():
            each.otherwise(response(orjson.dumps(made)))
        base = f"{pool.gateway.api_url}/u/gpu/v1/responses"
        async with pool.client.post(base, json={"model": "m", "input": TEXT}) as answer:
            await answer.read()
            home = answer.headers["x-gateway-backend"]
        for name, each in pool.replicas.items():
            each.otherwise(response(b"{}", status=status if name == home else "404 Not Found"))
        told = []
        for call in (
            pool.client.get(f"{base}/resp_1"),
            pool.client.delete(f"{base}/resp_1"),
            pool.client.post(
                base, json={"model": "m", "input": "And?", "previous_response_id": "resp_1"}
            ),
        ):
            async with call as answer:
                told.append((answer.status, answer.headers["x-gateway-backend"]))

    assert told == [(int(status[:3]), home)] * 3


async def test_what_may_change_something_is_done_by_one_replica_at_most() -> None:
    async with scene() as pool:
        url = f"{pool.gateway.api_url}/u/gpu/v1/files"
        for _ in pool.replicas:
            async with pool.client.get(url) as answer:
                await answer.read()
        # Whichever connection it goes out on, new or kept: it is taken, and nothing is said of it.
        for each in pool.replicas.values():
            each.otherwise(then_close=True)
        before = sum(len(each.seen) for each in pool.replicas.values())
        async with pool.client.post(url, data=b"a file") as answer:
            posted = answer.status
        after = sum(len(each.seen) for each in pool.replicas.values())
        async with pool.client.get(url) as answer:
            got = answer.status
        again = sum(len(each.seen) for each in pool.replicas.values())

    assert (posted, after - before) == (502, 1)
    assert got == 502
    assert again - after >= 2


@pytest.mark.parametrize(
    ("status", "asked"), [("503 Service Unavailable", 2), ("502 Bad Gateway", 1)]
)
async def test_what_may_change_something_goes_on_from_who_did_not_take_it(
    status: str, asked: int
) -> None:
    async with scene() as pool:
        for each in pool.replicas.values():
            each.otherwise(response(b"{}", status=status))
        url = f"{pool.gateway.api_url}/u/gpu/v1/files"
        async with pool.client.post(url, data=b"a file") as answer:
            assert answer.status == int(status[:3])
        assert sum(len(each.seen) for each in pool.replicas.values()) == asked
