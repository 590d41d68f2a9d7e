"""A fake engine as a process of its own: `gateway simulate engine`, killed and started again at will."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.helpers.redis_servers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    import aiohttp

START_S = 20.0


class EngineProcess:
    """`async with EngineProcess("blue") as engine:` it listens. It keeps its port for good."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.port = free_port()
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"<EngineProcess {self.name} on {self.port}>"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def v1_url(self) -> str:
        return f"{self.url}/v1"

    async def start(self) -> None:
        """Start it with an empty cache, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "simulate", "engine"),
            *("--port", str(self.port), "--name", self.name, *self._arguments),
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            line = await self._process.stdout.readline()
        assert line.startswith(b"simulating"), f"{self} said {line!r}"

    async def kill(self) -> None:
        """SIGKILL: as a pod that runs out of memory."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM."""
        await self._end(signal.SIGTERM)

    async def restart(self) -> None:
        """Killed, and back on its port with an empty cache."""
        await self.kill()
        await self.start()

    async def tell(self, session: aiohttp.ClientSession, command: str) -> None:
        """`hang`, `slow?factor=4`, ...: what is documented of `/sim/`."""
        async with session.post(f"{self.url}/sim/{command}") as response:
            assert response.status == 200, await response.text()

    async def state(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        """What it has done since it started."""
        async with session.get(f"{self.url}/sim/state") as response:
            told: dict[str, Any] = await response.json()
            return told

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

    async def _end(self, number: int) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(START_S):
            await self._process.wait()


@asynccontextmanager
async def engines(
    *names: str, arguments: tuple[str, ...] = ()
) -> AsyncIterator[list[EngineProcess]]:
    """One for each name, started side by side."""
    made = [EngineProcess(name, *arguments) for name in names]
    async with AsyncExitStack() as stack:
        # One that fails to start must not leave the others behind.
        async with asyncio.TaskGroup() as starting:
            for each in made:
                starting.create_task(stack.enter_async_context(each))
        yield made
