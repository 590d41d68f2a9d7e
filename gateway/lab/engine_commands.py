"""`/sim/...` of a fake engine: what is to go wrong, and what it has seen, as HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from gateway.lab.engine_faults import Mishap

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.lab.engine_server import EngineServer


def commands(engine: EngineServer) -> list[web.RouteDef]:
    """The routes. Arguments are in the query; each answers with the state after it."""

    def told(act: Callable[[web.Request], None]) -> Any:
        async def handle(request: web.Request) -> web.Response:
            try:
                act(request)
            except (LookupError, ValueError) as problem:
                return _json({"error": repr(problem)}, status=400)
            return _json(state(engine))

        return handle

    def hang(request: web.Request) -> None:
        engine.faults.hang(everywhere=request.query.get("probes", "hang") == "hang")

    def mishap(kind: Mishap) -> Callable[[web.Request], None]:
        def expect(request: web.Request) -> None:
            times = int(request.query.get("times", "1"))
            engine.faults.expect(kind, times, int(request.query.get("status", "503")))

        return expect

    def refuse(request: web.Request) -> None:
        engine.refuse(float(request.query["seconds"]))

    def go(_request: web.Request) -> None:
        engine.faults.go()
        engine.slow(1.0)

    acts: dict[str, Callable[[web.Request], None]] = {
        "hang": hang,
        "go": go,
        "slow": lambda request: engine.slow(float(request.query["factor"])),
        "reset": lambda _: engine.reset_cache(),
        "refuse": refuse,
        # The answer would be lost: whoever asked sees the connection end.
        "die": lambda _: engine.die(),
        **{kind.value: mishap(kind) for kind in Mishap},
    }
    return [
        web.get("/sim/state", told(lambda _: None)),
        *(web.post(f"/sim/{name}", told(act)) for name, act in acts.items()),
    ]


def state(engine: EngineServer) -> dict[str, Any]:
    """What it has done since it started, and what it holds."""
    work = engine.work
    return {
        "name": engine.name,
        "engine": engine.engine,
        "requests": work.requests,
        "running": work.running,
        "waiting": work.waiting,
        "prompt_tokens": work.prompt_tokens,
        "cached_tokens": work.cached_tokens,
        "answer_tokens": work.answer_tokens,
        "held_tokens": work.cache.tokens,
        "hangs": engine.faults.is_hung,
        "slowness": work.slowness,
    }


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
