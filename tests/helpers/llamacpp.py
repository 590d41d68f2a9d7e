"""Real llama.cpp servers: `async with LlamaCpp(model) as engine:` it serves `engine.url`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

START_S = 30.0
STOP_S = 10.0


class LlamaCpp:
    """One server as a process, with one thread that computes."""

    def __init__(
        self, model: Path, *, slots: int = 2, slot_tokens: int = 8192, tells_slots: bool = True
    ) -> None:
        self._arguments = [
            *(str(model), "--slots", str(slots), "--slot-tokens", str(slot_tokens)),
            *([] if tells_slots else ["--no-slots"]),
        ]
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""
        """`http://127.0.0.1:PORT`, without `/v1`."""

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.helpers.llamacpp_program", *self._arguments),
            cwd=Path(__file__).parents[2],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            # It says a lot there, and nobody reads it.
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                self.url = (await self._process.stdout.readline()).decode().strip()
        except BaseException:
            await self.kill()
            raise
        assert self.url.startswith("http://"), "llama.cpp's server did not start"

    async def kill(self) -> None:
        """SIGKILL, as when its memory ran out."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM; killed where that isn't heard."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

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
