"""A gateway beside one app is small: soon ready, little at rest, and little more while it works."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
import yaml
from aiohttp import web

from gateway.lab import stub_anthropic, stub_openai
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.memory_cgroup import memory_cgroup
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from gateway.lab.stub_answers import Reply

ROOT = Path(__file__).parents[2]
MB = 1_000_000
STREAMS = 100
PROMPT_BYTES = 32 * 1024
ANSWER_TOKENS = 2000
DEADLINE_S = 60.0
STARTS = 12
CROWD = 60
BODIES_THAT_FIT = 16
"""Of a megabyte, in the 16 MiB that requests may hold in so small a container; some never fill."""


def sidecar() -> dict[str, Any]:
    """The settings that the chart gives a sidecar."""
    values = yaml.safe_load((ROOT / "helm/warmgate/values.yaml").read_text())
    settings, wins = values["sidecar"]["config"], values["config"]
    return {**settings, **wins, "store": {**settings["store"], **wins["store"]}}


SETTINGS = pytest.mark.parametrize("settings", [{}, sidecar()], ids=["default", "sidecar"])


def size(gateway: GatewayProcess, kind: str = "VmRSS") -> int:
    """Bytes; VmHWM is the most there ever were."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) * 1024


@pytest.mark.slow
@SETTINGS
async def test_it_is_ready_within_a_second_and_takes_80_megabytes_at_rest(
    settings: dict[str, Any],
) -> None:
    took: list[float] = []
    sizes: list[int] = []
    # Other work on the machine makes a start later than it is: the quickest of some counts.
    while len(took) < STARTS and (len(took) < 3 or min(took) >= 1):
        began = time.perf_counter()
        async with GatewayProcess(settings) as gateway:
            took.append(time.perf_counter() - began)
            sizes.append(size(gateway))
    print(f"ready after {min(took):.2f} s, the quickest of {len(took)}; {max(sizes) / MB:.1f} MB")
    assert min(took) < 1
    assert max(sizes) <= 80 * MB


@pytest.mark.slow
@SETTINGS
async def test_100_streams_of_32_kilobyte_prompts_at_once_stay_below_128_megabytes(
    settings: dict[str, Any],
) -> None:
    upstream = Upstream()
    async with serve_app(upstream.app()) as url:
        config = {
            **settings,
            "upstreams": {
                "openai": {"base_url": f"{url}/v1", "provider": "openai"},
                "anthropic": {"base_url": f"{url}/v1", "provider": "anthropic"},
            },
            "log": {"level": "error"},
        }
        with memory_cgroup(128 * MB) as cgroup:
            under = cgroup.under if cgroup is not None else ()
            async with (
                asyncio.timeout(DEADLINE_S),
                GatewayProcess(config, under=under) as gateway,
                aiohttp.ClientSession(
                    gateway.api_url, connector=aiohttp.TCPConnector(limit=0)
                ) as session,
            ):
                idle = size(gateway)
                answers = await asyncio.gather(*(_stream(session, n) for n in range(STREAMS)))
                peak = size(gateway, "VmHWM")
                print(
                    f"{STREAMS} streams, {sum(answers) / MB:.1f} MB of answers; "
                    f"idle {idle / MB:.1f}, peak {peak / MB:.1f} MB; {cgroup}"
                )
                assert peak < 128 * MB
            assert upstream.most == STREAMS
            # As a container with that limit would, had it been too much.
            assert cgroup is None or cgroup.killed == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["texts", "members"])
async def test_a_crowd_of_bodies_in_a_container_of_128_megabytes_kills_nothing(kind: str) -> None:
    may_answer = asyncio.Event()
    refused = 0

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        await may_answer.wait()
        return web.json_response({"error": {"message": "not this time"}}, status=400)

    app = web.Application(client_max_size=4 * MB)
    app.router.add_post("/v1/chat/completions", chat)
    async with serve_app(app) as url:
        config = {
            **sidecar(),
            "upstreams": {"openai": {"base_url": f"{url}/v1", "provider": "openai"}},
            "log": {"level": "error"},
        }
        with memory_cgroup(128 * MB) as cgroup:
            if cgroup is None:
                pytest.skip("no cgroup can be made here, and so there is no small container")
            async with (
                asyncio.timeout(DEADLINE_S),
                GatewayProcess(config, under=cgroup.under) as gateway,
                aiohttp.ClientSession(
                    gateway.api_url, connector=aiohttp.TCPConnector(limit=0)
                ) as session,
            ):

                async def client(number: int) -> int:
                    nonlocal refused
                    more: object = "x" * MB if kind == "texts" else [[]] * (MB // 3)
                    body = orjson.dumps({"model": "gpt-4o", "messages": [], "n": number, "m": more})
                    headers = {"content-type": "application/json"}
                    path = "/v1/chat/completions"
                    async with session.post(path, data=io.BytesIO(body), headers=headers) as answer:
                        await answer.read()
                        refused += answer.status == 503
                        if refused + BODIES_THAT_FIT >= CROWD:
                            may_answer.set()
                        return answer.status

                statuses = await asyncio.gather(*map(client, range(CROWD)))
                print(f"{statuses.count(503)} of {CROWD} refused; {cgroup}")
                assert set(statuses) == {400, 503}
                assert cgroup.killed == 0


class Upstream:
    """Answers half of a stream, waits until all have come as far, and goes on."""

    def __init__(self) -> None:
        self.most = 0
        self._all = asyncio.Event()

    def app(self) -> web.Application:
        """Both APIs."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/messages", self._messages)
        return app

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await _whole(request)
        message = {"role": "assistant", "content": "word " * ANSWER_TOKENS, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        spent = stub_openai.usage(8000, ANSWER_TOKENS)
        return await self._answer(
            request,
            stub_openai.reply(stub_openai.completion("gpt-4o", [choice], spent), body),
        )

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await _whole(request)
        query = stub_anthropic.read(body)
        document = stub_anthropic.document(body, query)
        document["content"] = [{"type": "text", "text": "word " * ANSWER_TOKENS}]
        return await self._answer(
            request, stub_anthropic.reply(document, query, "req_1", streaming=True)
        )

    async def _answer(self, request: web.Request, sent: Reply) -> web.StreamResponse:
        out = web.StreamResponse(headers={"content-type": sent.content_type})
        await out.prepare(request)
        half = len(sent.events) // 2
        for number, event in enumerate(sent.events):
            await out.write(event)
            if number == half:
                self.most += 1
                if self.most == STREAMS:
                    self._all.set()
                await self._all.wait()
        return out


async def _whole(request: web.Request) -> dict[str, Any]:
    raw = await request.read()
    assert len(raw) >= PROMPT_BYTES
    body: dict[str, Any] = orjson.loads(raw)
    return body


async def _stream(session: aiohttp.ClientSession, number: int) -> int:
    """One conversation of its own behind a system prompt of all; how many bytes were answered."""
    path = "/v1/messages" if number % 2 else "/v1/chat/completions"
    headers = {"authorization": "Bearer sk-test", "content-type": "application/json"}
    async with session.post(path, data=_body(number), headers=headers) as response:
        answer = await response.read()
        assert response.status == 200, answer[:300]
    last = answer.rstrip().rpartition(b"\n")[2]
    assert b"message_stop" in last or last == b"data: [DONE]"
    assert answer.count(b"word") == ANSWER_TOKENS
    return len(answer)


def _body(number: int) -> bytes:
    dice = Random(number)
    system = "You answer tersely, and name your sources. " * 190
    turns: list[dict[str, str]] = []
    while len(turns) % 2 == 0 or len(orjson.dumps(turns)) + len(system) < PROMPT_BYTES:
        role = ("user", "assistant")[len(turns) % 2]
        turns.append({"role": role, "content": f"{number} {dice.randbytes(500).hex()}"})
    if number % 2:
        asked = {"model": "claude-sonnet-4-5", "max_tokens": 4096, "system": system}
        return orjson.dumps({**asked, "stream": True, "messages": turns})
    turns.insert(0, {"role": "system", "content": system})
    return orjson.dumps({"model": "gpt-4o", "stream": True, "messages": turns})
