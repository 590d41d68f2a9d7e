"""The real thing: `python -m gateway serve` as a process of its own, on free ports."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

START_S = 20.0
STOP_S = 20.0
_ANNOUNCED = re.compile(r"listening on (http://\S+) \(probes (http://[^\s)]+)\)")
_TAIL = 200


class GatewayProcess:
    """`async with GatewayProcess(config) as gateway:` it is ready; afterwards it is gone.

    `config` is YAML text or a dict; ports that it leaves out are free ones, the store that it
    leaves out is memory. The environment is the test's own without `GATEWAY_*` and `OTEL_*`,
    plus `env`. `under` stands before the command: a program that executes it.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | str = "",
        env: Mapping[str, str] | None = None,
        *,
        under: Sequence[str] = (),
    ) -> None:
        settings = yaml.safe_load(config) or {} if isinstance(config, str) else dict(config)
        settings["server"] = {
            "port": 0,
            "probe_port": 0,
            # Whoever kept a connection is of this test, and over.
            "drain_idle_s": 0,
            **settings.get("server", {}),
        }
        settings["admin"] = {"port": 0, **settings.get("admin", {})}
        settings["store"] = {"url": "memory://", **settings.get("store", {})}
        self._settings = settings
        self._env = dict(env or {})
        self._under = tuple(under)
        self._folder = tempfile.TemporaryDirectory(prefix="gateway-process-")
        self._readers: list[asyncio.Task[None]] = []
        self._announced = asyncio.Event()
        self._news = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self.lines: list[str] = []
        """What it printed, stdout and stderr as they came; the latest ones."""
        self.api_url = ""
        self.probe_url = ""

    def __repr__(self) -> str:
        return f"<GatewayProcess {self.api_url or 'not started'}, pid {self.pid}>"

    @property
    def pid(self) -> int | None:
        """The process id, once started."""
        return self._process.pid if self._process is not None else None

    @property
    def returncode(self) -> int | None:
        """The exit status; None while it runs, negative after a signal."""
        return self._process.returncode if self._process is not None else None

    async def start(self) -> None:
        """Start it, and wait until it says it is ready."""
        file = self.file
        file.write_text(yaml.safe_dump(self._settings))
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith(("GATEWAY_", "OTEL_"))
        }
        self._process = await asyncio.create_subprocess_exec(
            *(*self._under, sys.executable, "-m", "gateway", "serve", "--config", str(file)),
            cwd=Path(__file__).parents[2],
            env={**inherited, "PYTHONUNBUFFERED": "1", **self._env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        loop = asyncio.get_running_loop()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            self._readers.append(loop.create_task(self._read(stream)))
        try:
            async with asyncio.timeout(START_S):
                await self._listening()
                while not await asyncio.to_thread(_is_ready, self.probe_url):  # noqa: ASYNC110 - readiness can only be polled
                    await asyncio.sleep(0.02)
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"not ready in {START_S} s:\n{self.output()}") from None
        except BaseException:
            await self.kill()
            raise

    @property
    def file(self) -> Path:
        """Where its config lies."""
        return Path(self._folder.name) / "gateway.yaml"

    async def says(self, text: str) -> None:
        """Wait until it prints a line that has this in it, since it started."""
        try:
            async with asyncio.timeout(STOP_S):
                while not any(text in line for line in self.lines):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no {text!r} in {STOP_S} s:\n{self.output()}") from None

    async def stop(self) -> int:
        """SIGTERM, wait for the drain; returns the exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                status = await self._process.wait()
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"SIGTERM, {STOP_S} s ago:\n{self.output()}") from None
        await self._finish()
        return status

    async def kill(self) -> None:
        """SIGKILL: no drain."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._finish()

    def output(self) -> str:
        """The latest lines that it printed."""
        return "\n".join(self.lines)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.returncode is None:
            await self.stop()
        self._folder.cleanup()

    async def _listening(self) -> None:
        """Wait for the announcement, or for the end of all output."""
        assert self._process is not None
        loop = asyncio.get_running_loop()
        announced = loop.create_task(self._announced.wait())
        ended = loop.create_task(self._process.wait())
        try:
            await asyncio.wait({announced, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            announced.cancel()
            ended.cancel()
        if not self._announced.is_set():
            await asyncio.gather(*self._readers)
            raise AssertionError(f"it ended with status {self.returncode}:\n{self.output()}")

    async def _read(self, stream: asyncio.StreamReader) -> None:
        # Lines of a log have no limit; a reader that stops would block the process.
        rest = b""
        while data := await stream.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._note(line.decode(errors="replace"))
        if rest:
            self._note(rest.decode(errors="replace"))

    def _note(self, line: str) -> None:
        self.lines.append(line)
        del self.lines[:-_TAIL]
        self._news.set()
        found = _ANNOUNCED.search(line)
        if found and not self._announced.is_set():
            self.api_url, self.probe_url = found.groups()
            self._announced.set()

    async def _finish(self) -> None:
        await asyncio.gather(*self._readers)
        self._folder.cleanup()


def _is_ready(probe_url: str) -> bool:
    # Without the environment's proxies.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{probe_url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
