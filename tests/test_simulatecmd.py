"""`gateway simulate`, as a process of its own, asked by the official SDKs."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import anthropic
import openai
import pytest

from gateway import simulatecmd
from gateway.cli import main

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LONG = "The house rules, word by word. " * 200
START_S = 20.0


@asynccontextmanager
async def simulating(*arguments: str, status: int = 0) -> AsyncIterator[str]:
    """The base URL that it prints; it ends with this status, at the latest when it is told to."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "simulate", *arguments),
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"http://[\d.:]+(/v1)?", line)
        assert found, line
        yield found[0]
    finally:
        if not status:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(START_S):
            ended = await process.wait()
    assert ended == status


async def test_it_serves_anthropics_sdk_at_the_times_that_headers_say() -> None:
    asked: Any = {
        "model": "claude-sonnet-5-5",
        "max_tokens": 10,
        "system": [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "Hello?"}],
    }
    async with (
        simulating("anthropic", "--clock", "header", "--ttft", "2") as url,
        anthropic.AsyncAnthropic(base_url=url, api_key="mine", max_retries=0) as client,
    ):
        answers = [
            await client.messages.create(**asked, extra_headers={"x-simulated-now": str(now)})
            for now in (0, 1, 2, 303)
        ]

    assert [each.usage.cache_read_input_tokens for each in answers] == [0, 0, 1550, 0]


async def test_it_serves_openais_sdk_and_nobody_elses() -> None:
    asked: Any = {"model": "gpt-6-sol", "messages": [{"role": "user", "content": LONG}]}
    async with (
        simulating("openai") as url,
        openai.AsyncOpenAI(base_url=url, api_key="mine", max_retries=0) as client,
        anthropic.AsyncAnthropic(base_url=url.removesuffix("/v1"), api_key="mine") as other,
    ):
        await client.chat.completions.create(**asked)
        again = await client.chat.completions.create(**asked)
        with pytest.raises(anthropic.NotFoundError):
            await other.messages.create(**asked, max_tokens=1)

    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    assert again.usage.prompt_tokens_details.cached_tokens == 1550


async def test_it_serves_openais_sdk_as_an_engine_of_ones_own() -> None:
    asked: Any = {"model": "mine", "messages": [{"role": "user", "content": LONG}]}
    flags = ("--engine", "sglang", "--cache-report", "--decode-s", "0", "--name", "blue")
    async with (
        simulating("engine", *flags) as url,
        openai.AsyncOpenAI(base_url=url, api_key="mine", max_retries=0) as client,
    ):
        await client.chat.completions.create(**asked)
        again = await client.chat.completions.create(**asked)

    assert again.system_fingerprint == "blue"
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    assert again.usage.prompt_tokens_details.cached_tokens == 1552


async def test_an_engine_that_is_told_to_die_ends_as_one_that_was_killed() -> None:
    async with (
        asyncio.timeout(2 * START_S),
        aiohttp.ClientSession() as session,
        simulating("engine", status=simulatecmd.KILLED) as url,
    ):
        with pytest.raises(aiohttp.ClientError):
            await session.post(f"{url.removesuffix('/v1')}/sim/die")


@pytest.mark.parametrize(
    "flags",
    [
        ["--engine", "triton"],
        ["--cache-tokens", "0"],
        ["--prefill-rate", "0"],
        ["--decode-s", "-1"],
        ["--slots", "0"],
    ],
)
def test_an_engine_that_cant_be_is_refused(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["simulate", "engine", *flags])

    assert left.value.code == 2


def test_a_port_that_is_taken_is_said_to_be() -> None:
    out, err = io.StringIO(), io.StringIO()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status = simulatecmd.run(
            "openai", "127.0.0.1", port, ttft_s=0.0, clock="real", out=out, err=err
        )

    assert status == simulatecmd.TROUBLE
    assert f"can't listen on 127.0.0.1:{port}" in err.getvalue()
    assert not out.getvalue()


@pytest.mark.parametrize(
    "arguments",
    [
        ["gemini"],
        [],
        ["openai", "--clock", "wrong"],
        ["openai", "--port", "x"],
        ["engine", "--port", "65536"],
        ["engine", "--port", "-1"],
    ],
)
def test_wrong_usage_is_said_to_be(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["simulate", *arguments])

    assert left.value.code == 2
