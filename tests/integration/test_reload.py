"""Another config while requests run: it holds as a whole, or not at all, and nobody's request notices."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from gateway.reloading import Outcome
from tests.helpers.raw_client import fetch
from tests.helpers.reloaded import gateway_in_file
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from pathlib import Path

CHAT = "/v1/chat/completions"
_JSON = [("Content-Type", "application/json"), ("Authorization", "Bearer sk-client")]


class Upstream:
    """Answers with its own name, whole or as a stream of some events."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = 0
        self.keys: list[str] = []
        self.pause_s = 0.0

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.keys.append(request.headers.get("Authorization", ""))
        asked = await request.json()
        if asked.get("stream"):
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for number in range(5):
                delta = {"content": f"{self.name}{number}"}
                await response.write(_event({"choices": [{"index": 0, "delta": delta}]}))
                await asyncio.sleep(self.pause_s)
            last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            await response.write(_event(last) + b"data: [DONE]\n\n")
            return response
        await asyncio.sleep(self.pause_s)
        message = {"role": "assistant", "content": self.name}
        return web.json_response(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": asked["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
            }
        )

    def app(self) -> web.Application:
        """What serves."""
        app = web.Application()
        app.router.add_post(CHAT, self._chat)
        return app


def _event(delta: dict[str, Any]) -> bytes:
    whole = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **delta}
    return b"data: " + orjson.dumps(whole) + b"\n\n"


def body(text: str, *, stream: bool = False) -> bytes:
    return orjson.dumps(
        {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": text}],
            "stream": stream,
            "temperature": 0,
        }
    )


async def ask(url: str, text: str) -> str:
    """Who answered."""
    answer = await fetch(url, "POST", CHAT, body(text), _JSON)
    assert answer.status == 200, answer
    told: str = orjson.loads(answer.body)["choices"][0]["message"]["content"]
    return told


async def test_a_proxy_is_turned_over_under_load_and_no_request_fails(tmp_path: Path) -> None:
    one, two = Upstream("one"), Upstream("two")
    one.pause_s = two.pause_s = 0.002
    stop, some = asyncio.Event(), asyncio.Event()
    answered: dict[str, int] = {"one": 0, "two": 0}
    broken: list[str] = []

    async def client(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            stream = turn % 2 == 0
            text = f"{number} {turn % 7} {turn if turn % 3 else ''}"
            answer = await fetch(url, "POST", CHAT, body(text, stream=stream), _JSON)
            whole = answer.body
            ends = b"data: [DONE]" in whole if stream else whole.endswith(b"}")
            names = [name for name in ("one", "two") if name.encode() in whole]
            if answer.status != 200 or not ends or len(names) != 1:
                broken.append(f"{answer.status} {whole!r}")
            else:
                answered[names[0]] += 1
                if sum(answered.values()) % 8 == 0:
                    some.set()

    async with (
        serve_app(one.app()) as first,
        serve_app(two.app()) as second,
        gateway_in_file(tmp_path / "gateway.yaml", first) as there,
    ):
        url = there.gateway.api_url
        async with asyncio.TaskGroup() as clients:
            for number in range(16):
                clients.create_task(client(number))
            for turn in range(40):
                base = (second, first)[turn % 2]
                done = await there.say(
                    upstreams={"openai": {"base_url": f"{base}/v1", "provider": "openai"}},
                    cache={"ttl_s": 60 + turn, "coalesce": ("all", "off")[turn % 2]},
                    prompt_cache={"hints": bool(turn % 2)},
                )
                assert done.outcome is Outcome.APPLIED, done
                some.clear()
                async with asyncio.timeout(5):
                    await some.wait()
            stop.set()

    assert not broken
    assert min(answered.values()) > 50


async def test_a_config_with_faults_changes_nothing_and_every_fault_is_told(tmp_path: Path) -> None:
    upstream = Upstream("one")
    async with (
        serve_app(upstream.app()) as base,
        gateway_in_file(tmp_path / "gateway.yaml", base) as there,
    ):
        before = there.gateway._assembled

        refused = await there.say(cache={"ttl_s": -1}, server={"nonsense": 1})

        assert refused.outcome is Outcome.REFUSED
        assert {"cache.ttl_s", "server.nonsense"} == {each.path for each in refused.faults}
        assert there.gateway._assembled is before
        assert await ask(there.gateway.api_url, "hello") == "one"
        metrics = (await fetch(there.gateway.probe_url, "GET", "/metrics")).body.decode()
        assert 'gateway_config_reloads_total{outcome="refused"} 1.0' in metrics
        assert "gateway_config_refused 1.0" in metrics
