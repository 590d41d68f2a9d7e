"""What the way through costs at least with what the gateway is built from: aiohttp's low-level
server and the gateway's own upstream client, and nothing between them.

    python -m bench.floor PORT UPSTREAM_URL

`/proxy...` reads the body, asks the upstream and passes its answer on. Anything else reads the
body, hashes it and answers from a dict: a hit without directives, scopes, metrics, logs.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import TYPE_CHECKING

import uvloop
from aiohttp import web
from blake3 import blake3
from multidict import CIMultiDict

from gateway.config import Config
from gateway.telemetry.spans import AttemptSpan
from gateway.upstream.choice import Choice
from gateway.upstream.client import UpstreamClient

if TYPE_CHECKING:
    from gateway.upstream.choice import Endpoint

_DROPPED = frozenset(("host", "content-length", "connection", "keep-alive", "transfer-encoding"))


class Floor:
    """The handler."""

    def __init__(self, client: UpstreamClient, endpoint: Endpoint) -> None:
        self._client = client
        self._endpoint = endpoint
        self._known: dict[bytes, tuple[CIMultiDict[str], bytes]] = {}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if not request.path.startswith("/proxy"):
            return await self._hit(request, body)
        headers, answer = await self._ask(request, body)
        return web.Response(body=answer, headers=headers)

    async def _hit(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        digest = blake3(body).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._known[digest] = await self._ask(request, body)
        return web.Response(body=known[1], headers=known[0])

    async def _ask(self, request: web.BaseRequest, body: bytes) -> tuple[CIMultiDict[str], bytes]:
        headers = CIMultiDict(
            (name, value) for name, value in request.headers.items() if name.lower() not in _DROPPED
        )
        url = f"{self._endpoint.base_url}/x"
        async with self._client.call(
            "POST", url, headers, body, self._endpoint, lambda _: AttemptSpan()
        ) as answer:
            got = await answer.content.readany()
            while more := await answer.content.readany():
                got += more
            kept = CIMultiDict(
                (name, value)
                for name, value in answer.headers.items()
                if name.lower() not in _DROPPED
            )
            return kept, got


async def _serve(port: int, upstream: str) -> None:
    config = Config.model_validate({"upstreams": {"it": {"base_url": upstream}}})
    client = UpstreamClient()
    await client.start()
    floor = Floor(client, Choice(config).endpoints["it"])
    runner = web.ServerRunner(web.Server(floor.handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    gc.freeze()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
