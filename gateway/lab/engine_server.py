"""A self-hosted engine without a model: `EngineServer`, and `gateway simulate engine`.

It speaks OpenAI's API as vLLM, SGLang or llama.cpp do, computes prompts at a rate, keeps them in a
cache of a size, tells what was cached, and fails on command (`/sim/...`, or the methods here).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import orjson
from aiohttp import web

from gateway.lab import engine_answers, engine_pages, stub_openai
from gateway.lab.engine_answers import Asked, Voice
from gateway.lab.engine_cache import BlockCache, Slots
from gateway.lab.engine_commands import commands
from gateway.lab.engine_faults import Faults, Mishap
from gateway.lab.engine_port import Port
from gateway.lab.engine_work import Work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from gateway.lab.engine_answers import Answer
    from gateway.lab.stub_answers import Reply

ENGINES = ("vllm", "sglang", "llamacpp")
NAME_HEADER = "x-engine"
"""Which replica answered; `system_fingerprint` says it too."""
_EVENTS = "text/event-stream; charset=utf-8"
_HEAD_FIRST = frozenset(("vllm", "llamacpp"))
"""Who sends the head of a stream before its prompt is computed: vLLM's framework at once, llama.cpp
(since 2026-05, pull request 23884) when the prompt has its slot."""
_BODY_LIMIT = 64 * 1024 * 1024
_READ: dict[str, Callable[[dict[str, Any], int], Asked | Reply]] = {
    "/v1/chat/completions": engine_answers.chat,
    "/v1/completions": engine_answers.completion,
    "/v1/responses": engine_answers.response,
}


class EngineServer:
    """The server. `start` and `stop` may take turns: it comes back on its port, its cache empty."""

    def __init__(
        self,
        *,
        name: str = "",
        engine: str = "vllm",
        model: str = "simulated",
        cache_tokens: int = 100_000,
        prefill_rate: float = 10_000.0,
        decode_s: float = 0.02,
        slots: int = 4,
        seed: int = 0,
        tells_cached: bool | None = None,
        old_names: bool = False,
    ) -> None:
        """`prefill_rate`: prompt tokens a second; `decode_s`: of each token of an answer; `slots` of
        llama.cpp, which share `cache_tokens`; `tells_cached`: whether usage tells the tokens that
        were cached (by default SGLang doesn't: there it is a flag); `old_names`: of metrics.
        """
        self._name = name
        self.engine = engine
        self.model = model
        self.decode_s = decode_s
        self.faults = Faults()
        self.is_dead = False
        """It was told to die."""
        self.on_death: Callable[[], None] = _nobody
        self._cache_tokens, self._slots = cache_tokens, slots
        self._rate, self._seed, self._old_names = prefill_rate, seed, old_names
        self._tells_cached = engine != "sglang" if tells_cached is None else tells_cached
        self.work = self._fresh()
        self.calls: Counter[str] = Counter()
        """How often each path was asked, since the start."""
        self._port = Port()

    def __repr__(self) -> str:
        return f"<EngineServer {self.name} {self.engine} on {self.port}, {self.work!r}>"

    @property
    def name(self) -> str:
        """How it names itself; `engine-PORT` if it wasn't named."""
        return self._name or f"engine-{self.port}"

    @property
    def port(self) -> int:
        """Where it listens, or listened."""
        return self._port.number

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://{self._port.host}:{self.port}"

    @property
    def v1_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`: base URL for OpenAI's SDK and for a gateway's backend."""
        return f"{self.url}/v1"

    # --- life -------------------------------------------------------------------------------------

    async def start(self, host: str = "127.0.0.1", port: int | None = None) -> str:
        """Listen (0: a free port; unset: that of the last time), with an empty cache; returns `url`."""
        self.work, self.faults = self._fresh(), Faults()
        self.is_dead = False
        self.calls.clear()
        await self._port.open(self._app(), host, self.port if port is None else port)
        return self.url

    async def stop(self) -> None:
        """Close the port and every connection."""
        await self._port.close()

    async def restart(self) -> None:
        """As a pod that was replaced: gone at once, and back on its port with an empty cache."""
        await self.stop()
        await self.start(self._port.host)

    def die(self) -> None:
        """No port, no connection, nothing is said any more. `stop` still tidies up."""
        self._port.abort()
        self.is_dead = True
        self.on_death()

    def refuse(self, seconds: float | None = None) -> None:
        """Take no new connections and end those that are idle; what was asked is still answered.
        Until `accept`, or for so many seconds.
        """
        if seconds is None:
            self._port.refuse()
        else:
            self._port.refuse_for(seconds)

    async def accept(self) -> None:
        """Take connections again."""
        await self._port.accept()

    def reset_cache(self) -> None:
        """Forget all prompts, as `POST /reset_prefix_cache` and `/flush_cache` do."""
        self.work.cache.clear()

    def slow(self, factor: float) -> None:
        """Everything takes so many times longer; 1 is as usual."""
        self.work.slowness = factor

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

    def _fresh(self) -> Work:
        if self.engine == "llamacpp":
            return Work(Slots(self._slots, self._cache_tokens), self._rate)
        return Work(BlockCache(self._cache_tokens), self._rate)

    # --- what it serves ---------------------------------------------------------------------------

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._named], client_max_size=_BODY_LIMIT)
        for path in _READ:
            app.router.add_post(path, self._asked)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        if self.engine == "llamacpp":
            app.router.add_get("/slots", self._tell_slots)
            app.router.add_get("/props", self._tell_props)
        else:
            reset = "/reset_prefix_cache" if self.engine == "vllm" else "/flush_cache"
            app.router.add_post(reset, self._reset)
        app.add_routes(commands(self))
        return app

    @web.middleware
    async def _named(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not request.path.startswith(("/sim/", "/v1/c", "/v1/r")):
            await self.faults.pass_by(probe=True)
        self.calls[request.path] += 1
        connection = request.transport
        if connection is None:  # it has gone away
            raise ConnectionResetError
        self._port.busy.add(connection)
        try:
            response = await handler(request)
        finally:
            self._port.busy.discard(connection)
        if not response.prepared:
            response.headers[NAME_HEADER] = self.name
        return response

    async def _asked(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        await self.faults.pass_by()
        mishap, status = self.faults.next()
        if mishap is Mishap.FAIL:
            return _whole(stub_openai.error(status, "The engine was told to fail."))
        try:
            body = orjson.loads(raw)
            asked = _READ[request.path](body, self._seed)
        except (AttributeError, LookupError, TypeError, ValueError):
            return _whole(
                stub_openai.error(400, "The request does not have the shape of this API.")
            )
        if not isinstance(asked, Asked):
            return _whole(asked)
        refused = asked.refused or self._too_long(asked)
        if refused is not None:
            return _whole(refused)
        wanted = body.get("id_slot", -1)
        wanted = wanted if isinstance(wanted, int) else -1
        streams = body.get("stream") is True
        response: web.StreamResponse | None = None

        async def begin() -> None:
            nonlocal response
            if streams and self.engine in _HEAD_FIRST and mishap is not Mishap.DROP:
                response = await self._begun(request, _EVENTS)

        async with self.work.computed(asked.prompt, wanted, begin) as computed:
            await self.faults.pass_by()
            if mishap is Mishap.DROP:
                return _dropped(request)
            voice = Voice(self.name, self.engine, self._seed, self._tells_cached)
            answer = asked.answer(computed, voice, self.decode_s)
            is_cut = mishap is Mishap.CUT or answer.reply.cut
            if streams:
                response = response or await self._begun(request, _EVENTS)
                sent = await self._stream(request, response, answer, is_cut=is_cut)
            else:
                sent = await self._whole(request, answer, is_cut=is_cut)
            if not is_cut:
                self.work.spoke(computed, answer.text, answer.tokens)
            return sent

    async def _begun(
        self, request: web.Request, content_type: str, length: int | None = None
    ) -> web.StreamResponse:
        headers = {"content-type": content_type, NAME_HEADER: self.name}
        response = web.StreamResponse(headers=headers)
        response.content_length = length
        await response.prepare(request)
        return response

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, answer: Answer, *, is_cut: bool
    ) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        events = answer.reply.events
        gap_s = self.decode_s * answer.tokens / max(1, len(events) - 1)
        due = loop.time()
        for number, event in enumerate(events[: len(events) // 2] if is_cut else events):
            if number:
                # By the clock: what one nap takes too long, the next gives back.
                due += gap_s * self.work.slowness
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
            await self.faults.pass_by()
            await response.write(event)
        if is_cut:
            return _dropped(request)
        await response.write_eof()
        return response

    async def _whole(
        self, request: web.Request, answer: Answer, *, is_cut: bool
    ) -> web.StreamResponse:
        reply = answer.reply
        # Nothing of it is told before all of it is there.
        await asyncio.sleep(self.decode_s * answer.tokens * self.work.slowness)
        await self.faults.pass_by()
        if not is_cut:
            return _whole(reply)
        response = await self._begun(request, reply.content_type, len(reply.body))
        await response.write(reply.body[: len(reply.body) // 2])
        return _dropped(request)

    def _too_long(self, asked: Asked) -> Reply | None:
        cache, size = self.work.cache, asked.prompt.tokens
        limit = cache.slot_tokens if isinstance(cache, Slots) else self._cache_tokens
        return engine_answers.too_long(self.engine, size, limit) if size >= limit else None

    async def _models(self, _request: web.Request) -> web.Response:
        card = {
            "id": self.model,
            "object": "model",
            "created": 1_700_000_000,
            "owned_by": self.engine,
        }
        return _json({"object": "list", "data": [card]})

    async def _health(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok"}) if self.engine == "llamacpp" else web.Response()

    async def _metrics(self, _request: web.Request) -> web.Response:
        page = engine_pages.metrics(self.engine, self.model, self.work, old_names=self._old_names)
        return web.Response(body=page.encode(), headers={"content-type": engine_pages.CONTENT_TYPE})

    async def _tell_slots(self, _request: web.Request) -> web.Response:
        return _json(engine_pages.slots(self.work))

    async def _tell_props(self, _request: web.Request) -> web.Response:
        return _json(engine_pages.props(self.work, self.model))

    async def _reset(self, _request: web.Request) -> web.Response:
        self.reset_cache()
        return web.Response()


def _nobody() -> None:
    """Without anybody who waits for its death."""


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _whole(reply: Reply) -> web.Response:
    headers = {**reply.headers, "content-type": reply.content_type}
    return web.Response(body=reply.body, status=reply.status, headers=headers)


def _dropped(request: web.Request) -> web.StreamResponse:
    """Close the connection as it is; what aiohttp would still send goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
