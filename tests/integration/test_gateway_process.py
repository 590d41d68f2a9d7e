"""The gateway as a process: it announces itself, gets ready, serves, and ends on SIGTERM."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import aiohttp
import pytest

from gateway.lab.stub_provider import StubProvider
from tests.helpers.gateway_process import GatewayProcess

if TYPE_CHECKING:
    from pathlib import Path


async def test_it_serves_and_ends_cleanly() -> None:
    async with StubProvider() as stub:
        upstream = {"base_url": stub.v1_url, "provider": "openai"}
        async with GatewayProcess({"upstreams": {"openai": upstream}}) as gateway:
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
            url = f"{gateway.api_url}/v1/chat/completions"
            async with aiohttp.ClientSession() as session:
                for expected in ("miss", "hit"):
                    async with session.post(url, json=body) as answer:
                        assert answer.status == 200
                        assert answer.headers["x-gateway-cache"] == expected
            assert stub.total_calls == 1
            assert await gateway.stop() == 0


async def test_a_start_that_fails_shows_what_it_printed() -> None:
    gateway = GatewayProcess("server: {port: -1}")
    with pytest.raises(AssertionError, match=r"status 2:(?s:.*)server\.port"):
        await gateway.start()


async def test_it_can_be_killed() -> None:
    async with GatewayProcess() as gateway:
        await gateway.kill()
        assert gateway.returncode == -9


async def test_a_log_that_nobody_reads_holds_up_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    os.mkfifo(log)
    # There is a reader, so that it can be written; it stands still.
    descriptor = os.open(log, os.O_RDWR | os.O_NONBLOCK)
    under = ("/bin/sh", "-c", f'exec "$@" 2>{log}', "sh")
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    count = 5_000
    try:
        async with StubProvider() as stub, aiohttp.ClientSession() as session:
            upstream = {"base_url": stub.v1_url, "provider": "openai"}
            gateway = GatewayProcess({"upstreams": {"openai": upstream}}, under=under)
            async with gateway:
                for _ in range(count):
                    url = f"{gateway.api_url}/v1/chat/completions"
                    async with session.post(url, json=body) as answer:
                        assert answer.status == 200
                async with session.get(f"{gateway.probe_url}/metrics") as answer:
                    (lost,) = (
                        int(float(line.split()[-1]))
                        for line in (await answer.text()).splitlines()
                        if line.startswith("gateway_log_lost_total")
                    )
                # 64 KiB are in the pipe, a MiB waits.
                assert 0 < lost < count - 1_500
                assert await gateway.stop() == 0
        told = os.read(descriptor, 1 << 20).splitlines()
        assert {json.loads(line)["level"] for line in told[:-1]} == {"info"}
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-"])
async def test_it_serves_with_streams_closed(closed: str) -> None:
    # As some supervisors start what they run. A connection would get their numbers.
    under = ("/bin/sh", "-c", f'exec "$@" {closed}', "sh")
    async with GatewayProcess(under=under) as gateway:
        assert await gateway.stop() == 0
