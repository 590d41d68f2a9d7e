"""Three replicas replaced one by one under load, as Kubernetes does it: no request fails.

The balancer hears late, as the proxies of nodes do: a pod that goes is asked for some time after it was
told to end. What makes up for that is a preStop hook that sleeps, or `server.drain_delay_s`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from tests.helpers.balancer import Balancer
from tests.helpers.gateway_here import settings
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.raw_client import Broken, fetch
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
REPLICAS = 3
CLIENTS = 20
DONE = b"data: [DONE]\n\n"
TEXT = "0123456789"
# Seconds, of what Kubernetes takes ten times as long for.
PROBE_S = 0.1
PROBE_FAILURES = 2
HEARD_AFTER_S = 0.25
WAY_S = 0.01
WAIT_S = 0.6
"""Of the preStop hook, or the delay: longer than it takes until the balancer has heard."""


def event(content: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    shape = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + orjson.dumps({**shape, "choices": [choice]}) + b"\n\n"


def text_of(stream: bytes) -> str:
    """What its events say together; of one without its end, nothing."""
    *events, done, _ = stream.split(b"\n\n") if stream.endswith(DONE) else (b"", b"")
    told = [orjson.loads(each.removeprefix(b"data: ")) for each in events] if done else []
    return "".join(c["delta"].get("content") or "" for each in told for c in each["choices"])


@asynccontextmanager
async def engine() -> AsyncIterator[str]:
    """Streams of half a second, documents at once."""

    async def chat(request: web.Request) -> web.StreamResponse:
        if not orjson.loads(await request.read())["stream"]:
            return web.json_response({"choices": []})
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await out.prepare(request)
        for each in TEXT:
            await out.write(event(each))
            await asyncio.sleep(0.05)
        await out.write(event("", "stop") + DONE)
        return out

    app = web.Application()
    app.router.add_post(CHAT, chat)
    async with serve_app(app) as base:
        yield base


@dataclass
class Load:
    """Clients that ask, one after the other, and never try again."""

    url: str
    statuses: Counter[str] = field(default_factory=Counter)
    stopping: bool = False

    async def client(self, session: aiohttp.ClientSession, number: int) -> None:
        turn = 0
        while not self.stopping:
            turn += 1
            # Every third client streams; some say twice the same, and are served what was stored.
            stream = number % 3 == 0
            messages = [{"role": "user", "content": f"{number} {turn // 2}"}]
            body = {"model": "m", "messages": messages, "stream": stream, "temperature": 0}
            try:
                async with session.post(self.url + CHAT, json=body) as answer:
                    said = await answer.read()
                    whole = text_of(said) == TEXT if stream else said.startswith(b"{")
                    self.statuses[f"{answer.status} {'whole' if whole else 'cut'}"] += 1
            except (aiohttp.ClientError, OSError) as problem:
                self.statuses[repr(problem)] += 1
            await asyncio.sleep(0.1)


class Cluster:
    """Pods of one Deployment, and which of them the balancer asks."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._failures: dict[GatewayProcess, int] = {}
        self.pods: list[GatewayProcess] = []
        # Those whose end the balancer has not heard of are in here too.
        self._asked: list[GatewayProcess] = []

    async def add(self, tree: dict[str, Any]) -> None:
        """A pod is asked when it has passed its readiness probe."""
        pod = GatewayProcess(tree)
        await pod.start()
        self.pods.append(pod)
        self._asked.append(pod)
        self._failures[pod] = 0
        self._heard()

    async def replace(
        self, pod: GatewayProcess, tree: dict[str, Any], *, pre_stop_s: float
    ) -> None:
        """First its successor, then it goes: preStop and the word to the balancer begin together."""
        await self.add(tree)
        self.pods.remove(pod)
        asyncio.get_running_loop().call_later(HEARD_AFTER_S, self._asked.remove, pod)
        await asyncio.sleep(pre_stop_s)
        assert await pod.stop() == 0

    def _heard(self) -> None:
        ready = [each for each in self._asked if self._failures[each] < PROBE_FAILURES]
        self._balancer.endpoints = [each.api_url for each in ready]

    async def probe(self) -> None:
        """As the kubelet: again and again; who fails twice is asked no more."""
        while True:
            for pod in tuple(self._asked):
                self._failures[pod] = 0 if await _ready(pod) else self._failures[pod] + 1
            self._heard()
            await asyncio.sleep(PROBE_S)


async def _ready(pod: GatewayProcess) -> bool:
    try:
        ready = await fetch(pod.probe_url, "GET", "/readyz", None, [("Connection", "close")])
    except (OSError, Broken):
        return False
    return ready.status == 200


async def test_replicas_are_replaced_one_by_one_and_no_request_fails() -> None:
    """All three get SIGTERM after a preStop hook; then one of their successors gets it at once."""
    async with engine() as base, Balancer(WAY_S) as balancer:
        hooked, waiting = (
            settings(
                base,
                server={"drain_timeout_s": 20, "drain_idle_s": 0.5, "drain_delay_s": delay_s},
                cache={"when": "deterministic"},
            )
            for delay_s in (0.0, WAIT_S)
        )
        cluster, load = Cluster(balancer), Load(balancer.url)
        keeping = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        forgetting = aiohttp.TCPConnector(limit=0, force_close=True)
        try:
            await asyncio.gather(*(cluster.add(hooked) for _ in range(REPLICAS)))
            async with (
                aiohttp.ClientSession(connector=keeping) as kept,
                aiohttp.ClientSession(connector=forgetting) as anew,
            ):
                probing = asyncio.create_task(cluster.probe())
                clients = [
                    asyncio.create_task(load.client((kept, anew)[n % 2], n)) for n in range(CLIENTS)
                ]
                try:
                    for pod in tuple(cluster.pods):
                        await cluster.replace(pod, waiting, pre_stop_s=WAIT_S)
                    await cluster.replace(cluster.pods[0], waiting, pre_stop_s=0.0)
                finally:
                    load.stopping = True
                    probing.cancel()
                    await asyncio.gather(*clients)
                    await asyncio.gather(probing, return_exceptions=True)
        finally:
            await asyncio.gather(*(pod.kill() for pod in cluster.pods))
        print(f"\n{dict(load.statuses)} on {balancer.connections} connections")
        assert load.statuses.total() > 100
        assert set(load.statuses) == {"200 whole"}, load.statuses
        assert balancer.refused == 0
