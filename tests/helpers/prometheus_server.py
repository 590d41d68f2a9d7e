"""A real Prometheus, and promtool: Debian's package `prometheus` has both."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import yaml

from tests.helpers.redis_servers import free_port
from tests.helpers.required import missing

if TYPE_CHECKING:
    from types import TracebackType

READY_S = 15.0


def program(name: str) -> str:
    """Where `prometheus` or `promtool` is; skips the test, or fails it, where it isn't."""
    found = shutil.which(name)
    return found or missing("prometheus", f"{name} is not installed")


def promtool(*arguments: str | Path, text: bytes | None = None) -> tuple[int, str]:
    """Run it; its status, and all that it said."""
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout.decode()


class PrometheusServer:
    """`async with PrometheusServer([url], rules) as prometheus:` it scrapes these, each half second."""

    def __init__(self, targets: list[str], rules: Path | None = None) -> None:
        """`targets` are base URLs of probe ports."""
        program("prometheus")
        self._folder = tempfile.TemporaryDirectory(prefix="prometheus-")
        self._port = free_port()
        config = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(rules)] if rules else [],
            "scrape_configs": [
                {
                    "job_name": "warmgate",
                    "scrape_timeout": "500ms",
                    "static_configs": [
                        {
                            "targets": [url.removeprefix("http://") for url in targets],
                            "labels": {"namespace": "test", "pod": "gateway-0"},
                        }
                    ],
                }
            ],
        }
        (self._home / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def _home(self) -> Path:
        return Path(self._folder.name)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(f"http://127.0.0.1:{self._port}")
        with (self._home / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - a moment, in a test
                [
                    program("prometheus"),
                    f"--config.file={self._home / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._home / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            async with asyncio.timeout(READY_S):
                while not await self._ready():  # noqa: ASYNC110 - likewise
                    await asyncio.sleep(0.05)  # polling a foreign process
        except TimeoutError:
            said = (self._home / "log").read_text()
            await self.__aexit__(None, None, None)
            raise RuntimeError(f"prometheus did not start:\n{said}") from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait, 10)
        self._folder.cleanup()

    async def get(self, path: str, **query: str) -> Any:
        """The `data` of an answer of the API. Raises AssertionError with what it says of a fault."""
        assert self._session is not None
        async with self._session.get(f"/api/v1/{path}", params=query) as response:
            told = await response.json()
        assert told["status"] == "success", f"{query}: {told.get('error')}"
        return told["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The vector that an expression gives now."""
        data = await self.get("query", query=expression)
        found: list[dict[str, Any]] = data["result"]
        return found

    async def until(self, expression: str, within_s: float = 10.0) -> list[dict[str, Any]]:
        """The same, as soon as there is anything in it."""
        async with asyncio.timeout(within_s):
            while True:
                if found := await self.query(expression):
                    return found
                await asyncio.sleep(0.1)  # polling a foreign process

    async def _ready(self) -> bool:
        assert self._session is not None
        try:
            async with self._session.get("/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False
