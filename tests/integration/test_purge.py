"""One command purges a tag: none of what it killed is served again, by any replica."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
import yaml

from gateway.core.model import Reason
from gateway.store import codec
from tests.helpers.chat_answers import HELLO as ANSWER
from tests.helpers.entries import entry
from tests.helpers.gateway_here import gateway_here
from tests.helpers.raw_client import fetch
from tests.helpers.redis_servers import RedisServer, binary
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.app import RunningGateway

ENTRIES = int(os.environ.get("WARMGATE_PURGE_ENTRIES", "1000000"))
"""How many there are in all; every tenth carries the tag. A million takes half a minute."""

BOUND_S = 3.0
CHAT = "/v1/chat/completions"
LIVE = 40
"""Real requests through the gateways, half of them with the tag."""


def question(number: int) -> bytes:
    messages = [{"role": "user", "content": f"question {number}"}]
    return orjson.dumps({"model": "gpt-4o", "messages": messages})


def key_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def tagged(number: int) -> bool:
    return number % 10 == 0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    executable = binary("valkey")
    assert executable is not None
    server = RedisServer(executable)
    server.start()
    yield server
    server.close()


async def fill(server: RedisServer, generation: int, count: int) -> None:
    """Raw SETs, pipelined: entries as a gateway would have stored them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    now = time.time()
    plain = entry(payload=b"{}", stored_at=now, generation=generation, usage=None)
    marked = entry(
        payload=b"{}", stored_at=now, generation=generation, usage=None, tags=("handbook",)
    )
    for start in range(0, count, 1000):
        commands = []
        for number in range(start, min(start + 1000, count)):
            key = key_of(number)
            blob = codec.encode(marked if tagged(number) else plain, key)
            name = b"warmgate:" + key.hex().encode()
            commands.append(
                b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
                % (len(name), name, len(blob), blob)
            )
        writer.write(b"".join(commands))
        await writer.drain()
        assert await reader.readexactly(5 * len(commands)) == b"+OK\r\n" * len(commands)
    writer.close()
    await writer.wait_closed()


async def served(gateway: RunningGateway, numbers: list[int]) -> tuple[int, dict[Reason, int]]:
    """How many of the entries a replica would serve now, and why not the others."""
    hits, reasons = 0, dict[Reason, int]()
    for start in range(0, len(numbers), 500):
        keys = [key_of(number) for number in numbers[start : start + 500]]
        for key, blob in zip(keys, await gateway._store.get(keys), strict=True):
            assert blob is not None
            refused = gateway._generations.refuse(codec.decode(blob, key))
            if refused is None:
                hits += 1
            else:
                reasons[refused] = reasons.get(refused, 0) + 1
    return hits, reasons


def command(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", "cache", *arguments, "--config", str(config)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def result(gateway: RunningGateway, number: int) -> str:
    told = [("x-gateway-cache-tags", "handbook, other")] if tagged(number) else []
    got = await fetch(gateway.api_url, "POST", CHAT, question(number), told)
    assert got.status == 200
    await gateway.background.idle()
    return got.head.get("x-gateway-cache")


async def until(holds: Callable[[], bool], deadline_s: float) -> None:
    async with asyncio.timeout(deadline_s):
        while not holds():  # noqa: ASYNC110 - of another process, which tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_one_command_purges_a_tag_everywhere_within_the_bound(
    server: RedisServer, tmp_path: Path
) -> None:
    store = {"url": server.url, "deadline_ms": 5000}
    settings: dict[str, Any] = {"store": store, "cache": {"purge_bound_s": BOUND_S}}
    config = tmp_path / "gateway.yaml"
    config.write_text(yaml.safe_dump(settings))
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, **settings) as one,
        gateway_here(upstream.url, **settings) as other,
    ):
        upstream.otherwise(response(ANSWER))
        await fill(server, one._generations.sequence, ENTRIES)
        marked = [number for number in range(ENTRIES) if tagged(number)]
        rest = list(range(1, ENTRIES, 10))
        # Both replicas have served, so that both hold copies in memory.
        for gateway, expected in ((one, "miss"), (other, "hit")):
            assert {await result(gateway, n) for n in range(LIVE)} == {expected}
            assert await served(gateway, marked) == (len(marked), {})

        rehearsed = await asyncio.to_thread(command, config, "purge", "--tag", "handbook")
        assert rehearsed.returncode == 0, rehearsed.stderr
        assert "would be purged" in rehearsed.stdout
        assert (await served(one, marked[:500]))[0] == min(500, len(marked))

        purged = await asyncio.to_thread(
            command, config, "purge", "--tag", "handbook", "--yes", "--json"
        )
        done = time.monotonic()
        assert purged.returncode == 0, purged.stderr
        told = orjson.loads(purged.stdout)
        killed = len(marked) + LIVE // 10
        assert abs(told["entries"] - killed) < killed * 0.2
        sequence = told["sequence"]
        for gateway in (one, other):
            await until(lambda gateway=gateway: gateway._generations.sequence >= sequence, BOUND_S)  # type: ignore[misc]
        heard_s = time.monotonic() - done
        for gateway in (one, other):
            assert await served(gateway, marked) == (0, {Reason.PURGED: len(marked)})
            assert await served(gateway, rest) == (len(rest), {})
        # What is fetched anew is served again, by the other replica as well.
        for gateway, expected in ((one, "miss"), (other, "hit")):
            for number in range(LIVE):
                assert await result(gateway, number) == (expected if tagged(number) else "hit")
        print(
            f"{ENTRIES:,} entries, {killed:,} with the tag: the last replica had heard of the purge "
            f"{heard_s * 1000:.0f} ms after the command had ended"
        )
        audit = next(line for line in purged.stderr.splitlines() if '"audit"' in line)
        assert {"action": "purge", "result": "purged"}.items() <= orjson.loads(audit).items()


@pytest.mark.redis
async def test_a_replica_that_can_t_hear_of_purges_serves_no_tagged_entry_beyond_the_bound(
    server: RedisServer,
) -> None:
    settings: dict[str, Any] = {
        "store": {"url": server.url},
        "cache": {"purge_bound_s": 0.3, "samples": 1},
    }
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url, **settings) as deaf:
        upstream.otherwise(response(ANSWER))
        for number in (0, 1):
            assert await result(deaf, number) == "miss"
        server.pause()
        try:
            await until(lambda: not deaf._generations.fresh, 5)
            told = [("x-gateway-cache-tags", "handbook")]
            got = await fetch(deaf.api_url, "POST", CHAT, question(0), told)
            assert got.head.get("x-gateway-cache") == "miss"
            assert "detail=purges-unknown" in got.head.get("cache-status")
            # What nobody tagged goes on being served from memory.
            assert await result(deaf, 1) == "hit"
        finally:
            server.resume()
        await until(lambda: deaf._generations.fresh, 10)


@pytest.mark.redis
async def test_a_store_that_was_emptied_brings_nothing_back_from_memory(
    server: RedisServer,
) -> None:
    settings: dict[str, Any] = {"store": {"url": server.url, "deadline_ms": 1000}}
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, **settings) as one,
        gateway_here(upstream.url, **settings) as other,
    ):
        upstream.otherwise(response(ANSWER))
        assert await result(one, 0) == "miss"
        assert await result(other, 0) == "hit"
        async with aiohttp.ClientSession() as operator:
            asked = {"tags": ["handbook"], "dry_run": False}
            async with operator.post(f"{one.admin_url}/admin/cache/purge", json=asked) as told:
                sequence = (await told.json())["sequence"]
        await until(lambda: other._generations.sequence >= sequence, BOUND_S)
        # It comes back empty, its register too.
        await asyncio.to_thread(server.restart)
        assert await result(other, 0) == "miss"
        await until(lambda: one._generations.fresh and other._generations.fresh, 10)
        for gateway in (one, other):
            assert gateway._generations.sequence >= sequence
