"""What the process holds stays within what the settings say: entries and bodies."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiohttp import web

from gateway.lab.stub_openai import completion, reply, usage
from tests.helpers.chat_answers import ask
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.scripted_upstream import serve_app

MIB = 1 << 20
ROOT = Path(__file__).parents[2]

FILL = """
import asyncio, os, time
from gateway.store.memory import MemoryStore

def rss():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def main():
    piece = os.urandom((1 << 20) - 8)
    store = MemoryStore(256 << 20, time.time)
    base = peak = rss()
    for number in range(10_000):
        await store.put(number.to_bytes(32, "big"), number.to_bytes(8, "big") + piece, 3600)
        if number % 50 == 0:
            peak = max(peak, rss())
    print(base, max(peak, rss()), store.size_bytes)

asyncio.run(main())
"""


def rss(gateway: GatewayProcess, kind: str = "VmRSS") -> int:
    """Bytes; VmHWM is the most there ever were."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) * 1024


@pytest.mark.slow
async def test_ten_thousand_entries_of_a_megabyte_stay_within_the_budget() -> None:
    run = await asyncio.to_thread(
        subprocess.run,
        (sys.executable, "-c", FILL),
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=100,
    )
    base, peak, held = map(int, run.stdout.split())
    print(f"base {base / MIB:.0f}, peak {peak / MIB:.0f}, counted {held / MIB:.0f} MiB")
    assert held <= 256 * MIB
    assert held > 250 * MIB
    assert peak <= base + 256 * MIB + 8 * MIB


@pytest.mark.slow
async def test_a_gateway_that_stores_more_than_its_memory_holds_stays_within_it() -> None:
    async def chat(request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        # Not to be compressed away: the tier shall hold the bytes.
        text = base64.b64encode(os.urandom(MIB * 3 // 4)).decode()
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        sent = reply(completion("gpt-4o", [choice], usage(9, 5)), body)
        return web.Response(body=sent.body, headers={"content-type": sent.content_type})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    async with serve_app(app) as upstream:
        config = {
            "store": {"url": "memory://", "memory_bytes": 64 * MIB},
            "upstreams": {"openai": {"base_url": f"{upstream}/v1", "provider": "openai"}},
            "log": {"level": "error"},
        }
        async with GatewayProcess(config) as gateway, aiohttp.ClientSession() as session:
            idle = rss(gateway)
            url = f"{gateway.api_url}/v1/chat/completions"

            async def client(number: int) -> None:
                for turn in range(100):
                    words = [{"role": "user", "content": f"{number} {turn}"}]
                    await ask(session, url, {"model": "gpt-4o", "messages": words})

            await asyncio.gather(*map(client, range(4)))
            peak = rss(gateway, "VmHWM")
    print(f"idle {idle / MIB:.0f}, peak {peak / MIB:.0f} MiB")
    # The rest is four answers on their way: each as received, read, split into the chunks of a
    # stream and merged again (the proof that it can be served as one), and packed.
    assert peak <= idle + 64 * MIB + 4 * 20 * MIB


@pytest.mark.slow
async def test_more_bodies_than_the_budget_holds_get_503_before_memory_is_gone() -> None:
    budget, body_bytes, clients = 32 * MIB, 3 * MIB, 100
    may_answer = asyncio.Event()

    async def chat(request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        await asyncio.wait_for(may_answer.wait(), 60)
        message = {"role": "assistant", "content": "ok", "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        sent = reply(completion("gpt-4o", [choice], usage(9, 5)), body)
        return web.Response(body=sent.body, headers={"content-type": sent.content_type})

    app = web.Application(client_max_size=body_bytes * 2)
    app.router.add_post("/v1/chat/completions", chat)
    async with serve_app(app) as upstream:
        config = {
            "server": {"memory_budget_bytes": budget},
            "upstreams": {"openai": {"base_url": f"{upstream}/v1", "provider": "openai"}},
            "log": {"level": "error"},
        }
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            GatewayProcess(config) as gateway,
            aiohttp.ClientSession(connector=connector) as session,
        ):
            idle = rss(gateway)
            url = f"{gateway.api_url}/v1/chat/completions"
            headers = {"authorization": "Bearer sk-test", "content-type": "application/json"}
            refused: list[float] = []

            async def client(number: int) -> int:
                words = [{"role": "user", "content": f"{number} " + "x" * body_bytes}]
                body = orjson.dumps({"model": "gpt-4o", "messages": words})
                began = time.perf_counter()
                sent = io.BytesIO(body)
                async with session.post(url, data=sent, headers=headers) as response:
                    answer = await response.json()
                    if response.status == 503:
                        refused.append(time.perf_counter() - began)
                        assert response.headers["Retry-After"] == "1"
                        assert answer["error"]["code"] == "gateway_overloaded"
                        if len(refused) >= clients - budget // body_bytes:
                            may_answer.set()
                    return response.status

            statuses = await asyncio.gather(*map(client, range(clients)))
            peak = rss(gateway, "VmHWM")
            print(
                f"{statuses.count(200)} answered, {statuses.count(503)} refused within "
                f"{max(refused):.2f} s; idle {idle / MIB:.0f}, peak {peak / MIB:.0f} MiB"
            )
            assert set(statuses) == {200, 503}
            assert statuses.count(200) == budget // body_bytes
            # A body is held as it came, and on its way out; its parsed form comes and goes.
            assert peak <= idle + 4 * budget
            may_answer.set()
            assert await client(1000) == 200
