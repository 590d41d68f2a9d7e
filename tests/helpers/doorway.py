"""A gateway before a stub, or before answers that a test wrote itself, and one client of it."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from aiohttp import web

from gateway.core import sse
from gateway.lab.stub_provider import StubProvider
from tests.helpers.gateway_here import gateway_here
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.app import RunningGateway
    from gateway.cache import Clock

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"


@dataclass(frozen=True, slots=True)
class Told:
    """A response: what the cache said of it, and its bytes."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def cache(self) -> str:
        """What `x-gateway-cache` says."""
        return self.headers.get("x-gateway-cache", "")

    @property
    def document(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.raw)

    @property
    def events(self) -> list[Any]:
        """The data of each event, parsed; `[DONE]` left out."""
        return [orjson.loads(e.data) for e in sse.parse(self.raw) if e.data != "[DONE]"]


class Doorway:
    """`calls` counts what reached the upstream."""

    def __init__(
        self, stub: StubProvider, gateway: RunningGateway, session: aiohttp.ClientSession
    ) -> None:
        self.stub = stub
        self.gateway = gateway
        self._session = session

    @property
    def calls(self) -> int:
        return self.stub.total_calls

    async def ask(
        self, path: str, body: Mapping[str, Any] | bytes, key: str = "sk-1", **headers: str
    ) -> Told:
        """Post it, and wait until what is written behind the response is written."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        told |= {"content-type": "application/json", "authorization": f"Bearer {key}"}
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        url = f"{self.gateway.api_url}{path}"
        async with self._session.post(url, data=raw, headers=told) as response:
            try:
                answer = Told(response.status, response.headers, await response.read())
            except aiohttp.ClientPayloadError:
                answer = Told(0, response.headers, b"")
        await self.gateway.background.idle()
        return answer

    async def caches(self, path: str, *bodies: Mapping[str, Any]) -> list[str]:
        """What the cache says of each, one after another."""
        return [(await self.ask(path, body)).cache for body in bodies]

    async def metrics(self) -> str:
        """The page that Prometheus reads."""
        async with self._session.get(f"{self.gateway.probe_url}/metrics") as response:
            return await response.text()


class Canned(StubProvider):
    """Answers every POST with what the test says: bytes that begin with `{` are a document, any
    other a stream.
    """

    def __init__(self, *answers: Mapping[str, Any] | bytes, status: int = 200) -> None:
        """Each answer once, then the last one again."""
        super().__init__()
        self._answers = [a if isinstance(a, bytes) else orjson.dumps(a) for a in answers]
        self._status = status

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        self.calls[request.path] += 1
        raw = self._answers[min(self.total_calls, len(self._answers)) - 1]
        kind = "application/json" if raw.startswith(b"{") else "text/event-stream"
        return web.Response(body=raw, status=self._status, headers={"content-type": kind})


@asynccontextmanager
async def doorway(
    provider: str = "openai",
    stub: StubProvider | None = None,
    clock: Clock | None = None,
    **sections: Any,
) -> AsyncIterator[Doorway]:
    """`provider` is whose table holds for the upstream `openai`; `sections` of the config."""
    stub = stub or StubProvider()
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(serve_app(stub.app()))
        named = {"openai": {"base_url": f"{base}/v1", "provider": provider}}
        sections["upstreams"] = {**named, **sections.get("upstreams", {})}
        gateway = await stack.enter_async_context(gateway_here(base, clock, **sections))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Doorway(stub, gateway, session)


def chat(text: str = "What is a cache?", **more: Any) -> dict[str, Any]:
    """A chat completion request."""
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}
