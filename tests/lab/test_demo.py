"""The demo: its table, its verdict, and what it says when the SDKs are missing."""

from __future__ import annotations

import io
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from gateway.app import start as start_gateway
from gateway.lab import demo, stub_anthropic, stub_openai
from gateway.lab.demo_guises import guises
from gateway.lab.stub_answers import meaning
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.config import Config


class ModelGateway:
    """What a gateway should do, in its simplest form: remember meanings, and answer from them."""

    def __init__(self, config: Config, *, forgets: str = "", lies: bool = False) -> None:
        self._upstream = (config.upstreams["openai"].base_url or "").removesuffix("/v1")
        self._known: set[bytes] = set()
        self._forgets = forgets
        self._lies = lies

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/{path:.+}", self._handle)
        async with serve_app(app) as url:
            yield url

    async def _handle(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = orjson.loads(raw)
        forgotten = bool(self._forgets) and self._forgets in raw.decode()
        regenerate = request.headers.get("cache-control") == "no-cache"
        if meaning(body) in self._known and not regenerate and not forgotten:
            return self._hit(request.path, body)
        self._known.add(meaning(body))
        headers = {
            "content-type": "application/json",
            "x-api-key": "a",
            "authorization": "Bearer a",
        }
        if "anthropic-version" in request.headers:
            headers["anthropic-version"] = "2023-06-01"
        async with (
            aiohttp.ClientSession() as session,
            session.post(self._upstream + request.path, data=raw, headers=headers) as answer,
        ):
            told = {"x-gateway-cache": "miss", "content-type": answer.headers["content-type"]}
            return web.Response(body=await answer.read(), status=answer.status, headers=told)

    def _hit(self, path: str, body: dict[str, Any]) -> web.Response:
        if self._lies:
            body = {**body, "temperature": 2}
        chat = path.endswith("chat/completions")
        reply = stub_openai.chat(body) if chat else stub_anthropic.messages(body, "req_a")
        headers = {"x-gateway-cache": "hit", "content-type": reply.content_type}
        return web.Response(body=reply.body or b"".join(reply.events), headers=headers)


class Started:
    """A model gateway in the shape that the demo expects of the real one."""

    def __init__(self, url: str, closing: Any) -> None:
        self.api_url = url
        self._closing = closing

    async def stop(self) -> None:
        await self._closing.__aexit__(None, None, None)


async def shown(out: io.StringIO, **faults: Any) -> int:
    async def start(config: Config) -> Started:
        serving = ModelGateway(config, **faults).serve()
        return Started(await serving.__aenter__(), serving)

    return await demo.show(start, out=out, latency_s=0, gap_s=0)


async def test_a_gateway_that_does_its_job_passes() -> None:
    out = io.StringIO()
    status = await shown(out)
    assert status == demo.OK, out.getvalue()
    *lines, _, total = out.getvalue().splitlines()
    assert len(lines) == len(guises()) + 2
    assert total.startswith("16 requests, 6 upstream calls, ")


async def test_the_real_gateway_passes() -> None:
    out = io.StringIO()
    assert await demo.show(start_gateway, out=out, latency_s=0, gap_s=0) == demo.OK, out.getvalue()


async def test_a_miss_where_a_hit_was_due_is_wrong() -> None:
    out = io.StringIO()
    assert await shown(out, forgets="cache_control") == demo.WRONG
    assert "WRONG: anthropic, with cache_control markers: expected a hit, got miss" in (
        out.getvalue()
    )


async def test_another_answer_to_the_same_question_is_wrong() -> None:
    out = io.StringIO()
    assert await shown(out, lies=True) == demo.WRONG
    assert "the answer differs from the first one" in out.getvalue()


async def test_a_request_that_fails_is_wrong_and_the_others_still_run() -> None:
    async def start(config: Config) -> Started:
        serving = serve_app(web.Application())
        return Started(await serving.__aenter__(), serving)

    out = io.StringIO()
    assert await demo.show(start, out=out, latency_s=0, gap_s=0) == demo.WRONG
    assert out.getvalue().count("WRONG: ") == len(guises())
    assert "NotFoundError: " in out.getvalue()


async def test_a_terminal_gets_a_table_with_lines() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    assert await shown(out) == demo.OK
    assert "other member order and escapes" in out.getvalue()
    assert "16 requests, 6 upstream calls" in out.getvalue()


@pytest.mark.parametrize("missing", ["openai", "anthropic", "rich"])
def test_without_the_sdks_it_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert demo.run() == demo.MISSING
    assert f"{missing}, which is not installed: pip install 'warmgate[demo]'" in (
        capsys.readouterr().err
    )
