"""A provider without a model: real wire formats, answers out of thin air, calls counted.

`StubProvider` serves OpenAI's and Anthropic's APIs on one port, as a gateway's two upstreams.
It remembers a bounded number of requests as they arrived, for tests to look at.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import orjson
from aiohttp import web

from gateway.lab import stub_anthropic, stub_openai, stub_openai_other, stub_responses
from gateway.lab.stub_answers import Reply
from gateway.lab.stub_files import Shelf

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from types import TracebackType

_BODY_LIMIT = 64 * 1024 * 1024
_REQUEST_ID = web.RequestKey("request_id", str)
_OPENAI: dict[str, Callable[[dict[str, Any]], Reply]] = {
    "/v1/chat/completions": stub_openai.chat,
    "/v1/completions": stub_openai_other.completions,
    "/v1/embeddings": stub_openai_other.embeddings,
    "/v1/responses": stub_responses.responses,
}
_ANTHROPIC: dict[str, Callable[[dict[str, Any], str], Reply]] = {
    "/v1/messages": stub_anthropic.messages,
    "/v1/messages/count_tokens": lambda body, _: stub_anthropic.count_tokens(body),
}
_CLAUDES = {
    "claude-opus-5-5": "Claude Opus 5.5",
    "claude-sonnet-5-5": "Claude Sonnet 5.5",
    "claude-haiku-5-5": "Claude Haiku 5.5",
}


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came in: header names and body bytes untouched."""

    method: str
    path: str
    """With the query."""
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((v for k, v in self.headers if k.lower() == name.lower()), None)

    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.body)


class StubProvider:
    """The server. `latency_s` passes before an answer begins, `gap_s` before each later event."""

    def __init__(
        self,
        *,
        latency_s: float = 0.0,
        gap_s: float = 0.0,
        keys: Collection[str] = (),
        remember: int = 64,
    ) -> None:
        """`keys`: the credentials that are accepted; none means that any is, and none too."""
        self.latency_s = latency_s
        self.gap_s = gap_s
        self.keys = frozenset(keys)
        self.calls: Counter[str] = Counter()
        """How often each path was called, errors included; without the query."""
        self.received: deque[Received] = deque(maxlen=remember)
        self.hung_up = 0
        """Clients that went away before their answer was complete."""
        self.hang_up = asyncio.Event()
        """Set when `hung_up` grows; clear it to wait for the next one."""
        self._runner: web.AppRunner | None = None
        self._url = ""

    def __repr__(self) -> str:
        """Where it listens and how much it was asked."""
        return f"<StubProvider {self._url or 'not started'}, {self.total_calls} calls>"

    @property
    def total_calls(self) -> int:
        """All calls of provider endpoints."""
        return self.calls.total()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`: base URL for Anthropic's SDK."""
        return self._url

    @property
    def v1_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`: base URL for OpenAI's SDK and for a gateway's upstream."""
        return f"{self._url}/v1"

    def app(self) -> web.Application:
        """A fresh application that counts on this object."""
        app = web.Application(middlewares=[self._observed], client_max_size=_BODY_LIMIT)
        app.add_routes(Shelf().routes())
        app.router.add_get("/stub/calls", self._tell_calls)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._model)
        for path in (*_OPENAI, *_ANTHROPIC):
            app.router.add_post(path, self._asked)
        app.router.add_get("/v1/responses/{id}", self._response)
        app.router.add_delete("/v1/responses/{id}", self._delete_response)
        return app

    def reply_to(self, request: web.Request, body: dict[str, Any], request_id: str) -> Reply:
        """The answer to one call of a model. A simulation of more than the wire replaces this."""
        if request.path in _OPENAI:
            return _OPENAI[request.path](body)
        return _ANTHROPIC[request.path](body, request_id)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen (port 0: a free one); returns `url`."""
        # Cancelled handlers are how a hung-up client is noticed while the stub is waiting.
        runner = web.AppRunner(
            self.app(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0
        )
        await runner.setup()
        site = web.TCPSite(runner, host, port)
        await site.start()
        self._runner = runner
        bound = runner.addresses[0]
        self._url = f"http://{bound[0]}:{bound[1]}"
        return self._url

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    @web.middleware
    async def _observed(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        if request.path.startswith("/stub/"):
            return await handler(request)
        self.calls[request.path] += 1
        body = await request.read()
        raw = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in request.raw_headers)
        self.received.append(Received(request.method, request.path_qs, raw, body))
        request_id = _request_id(request)
        request[_REQUEST_ID] = request_id
        try:
            if not self._accepts(request):
                return await self.deliver(request, _unauthorised(request, request_id))
            try:
                response = await handler(request)
            except web.HTTPException as problem:
                return await self.deliver(
                    request, _problem(request, problem.status, problem.reason)
                )
        except (asyncio.CancelledError, ConnectionError):
            self.hung_up += 1
            self.hang_up.set()
            raise
        if not response.prepared:
            for name, value in _headers(request).items():
                response.headers.setdefault(name, value)
        return response

    def _accepts(self, request: web.Request) -> bool:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        return not self.keys or bool({bearer, request.headers.get("x-api-key", "")} & self.keys)

    async def deliver(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        """Send a reply at this stub's pace, whole or cut off."""
        headers = {**_headers(request), **reply.headers, "content-type": reply.content_type}
        await asyncio.sleep(self.latency_s)
        if not reply.events:
            if not reply.cut:
                return web.Response(body=reply.body, status=reply.status, headers=headers)
            headers["content-length"] = str(len(reply.body))
        response = web.StreamResponse(status=reply.status, headers=headers)
        await response.prepare(request)
        parts = reply.events or (reply.body[: len(reply.body) // 2], reply.body)
        last = len(parts) // 2 if reply.cut else len(parts)
        for number, part in enumerate(parts[:last]):
            if number and self.gap_s:
                await asyncio.sleep(self.gap_s)
            await response.write(part)
        if not reply.cut:
            await response.write_eof()
        elif request.transport is not None:
            request.transport.close()
        return response

    async def _tell_calls(self, _request: web.Request) -> web.Response:
        told = {"calls": dict(self.calls), "total": self.total_calls, "hung_up": self.hung_up}
        return web.Response(body=orjson.dumps(told), content_type="application/json")

    async def _asked(self, request: web.Request) -> web.StreamResponse:
        body = await _json_object(request)
        if body is None:
            said = "Invalid JSON" if _is_anthropic(request) else "We could not parse JSON"
            return await self.deliver(request, _problem(request, 400, said))
        return await self.deliver(request, self.reply_to(request, body, request[_REQUEST_ID]))

    async def _models(self, request: web.Request) -> web.StreamResponse:
        if not _is_anthropic(request):
            return await self.deliver(request, stub_openai_other.models())
        data = [_claude(name) for name in _CLAUDES]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]}
        listed = {"data": data, "has_more": False, **ends}
        return await self.deliver(request, Reply(body=orjson.dumps(listed)))

    async def _model(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if not _is_anthropic(request):
            return await self.deliver(request, stub_openai_other.model(name))
        if name not in _CLAUDES:
            return await self.deliver(request, _problem(request, 404, f"model: {name}"))
        return await self.deliver(request, Reply(body=orjson.dumps(_claude(name))))

    async def _response(self, request: web.Request) -> web.StreamResponse:
        return await self.deliver(request, stub_responses.retrieved(request.match_info["id"]))

    async def _delete_response(self, request: web.Request) -> web.StreamResponse:
        return await self.deliver(request, stub_responses.deleted(request.match_info["id"]))


async def _json_object(request: web.Request) -> dict[str, Any] | None:
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def _is_anthropic(request: web.Request) -> bool:
    return "anthropic-version" in request.headers or request.path.startswith("/v1/messages")


def _request_id(request: web.Request) -> str:
    if _is_anthropic(request):
        return stub_anthropic.fresh_id("req_")
    return f"req_{secrets.token_hex(16)}"


def _headers(request: web.Request) -> dict[str, str]:
    speak = stub_anthropic.headers if _is_anthropic(request) else stub_openai.headers
    return speak(request[_REQUEST_ID])


def _problem(request: web.Request, status: int, message: str) -> Reply:
    if _is_anthropic(request):
        return stub_anthropic.error(status, message, request[_REQUEST_ID])
    return stub_openai.error(status, message)


def _unauthorised(request: web.Request, request_id: str) -> Reply:
    if _is_anthropic(request):
        return stub_anthropic.error(401, "invalid x-api-key", request_id)
    if "authorization" not in request.headers:
        return stub_openai.error(401, "You didn't provide an API key.")
    return stub_openai.error(401, "Incorrect API key provided.", code="invalid_api_key")


def _claude(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": _CLAUDES[name],
        "created_at": "2026-09-29T00:00:00Z",
        "lifecycle": "active",
        "line": None,
        "max_input_tokens": 1000000,
        "max_tokens": 128000,
        "capabilities": None,
        "deprecated_at": None,
        "retires_at": None,
    }
