"""Load: wrk at many connections, one plain socket for latency, asyncio for paced streams."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.bodies import MARK
from bench.figures import Load, read_wrk

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECTIONS = 64
_LUA = Path(__file__).with_name("post.lua")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SENT = re.compile(rb'"content":"(\d+) "')
_TIMEOUT_S = 30.0


class Seeds:
    """Numbers that no two runs of the load share: a body is told apart by one."""

    def __init__(self) -> None:
        self._next = int(time.time()) % 100_000 * 1_000_000

    def take(self, count: int) -> int:
        self._next += count
        return self._next - count


def run_wrk(  # noqa: PLR0917
    core: str,
    port: int,
    path: str,
    body: Path,
    headers: Mapping[str, str],
    seed: int | None,
    seconds: float,
) -> Load:
    """Keep `CONNECTIONS` connections busy; with a `seed`, every body is another one."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    done = subprocess.run(
        [
            *(
                "taskset",
                "-c",
                core,
                "wrk",
                "-t1",
                f"-c{CONNECTIONS}",
                f"-d{max(1, round(seconds))}s",
            ),
            *("--latency", "--timeout", "30s", "-s", str(_LUA), f"http://127.0.0.1:{port}{path}"),
            *("--", str(body), "same" if seed is None else str(seed), *lines),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 60,
    )
    return read_wrk(done.stdout + done.stderr)


class OneConnection:
    """Requests one after the other on one kept connection, each timed."""

    def __init__(self, port: int, path: str, headers: Mapping[str, str]) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer sk-bench\r\n{lines}Content-Length: "
        )

    def ask(self, body: bytes) -> tuple[float, bytes]:
        """Microseconds until the last byte of the answer, and its head. Raises for no 200."""
        request = f"{self._head}{len(body)}\r\n\r\n".encode() + body
        began = time.perf_counter_ns()
        self._socket.sendall(request)
        got = b""
        while (end := got.find(b"\r\n\r\n")) < 0:
            got += self._more()
        head = got[: end + 2]
        length = _LENGTH.search(head)
        if length is not None:
            left = int(length[1]) - (len(got) - end - 4)
            while left > 0:
                left -= len(self._more())
        else:
            while not got.endswith(b"0\r\n\r\n"):
                got += self._more()
        took = (time.perf_counter_ns() - began) / 1000
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"no 200: {got[:600]!r}")
        return took, head

    def close(self) -> None:
        self._socket.close()

    def _more(self) -> bytes:
        data = self._socket.recv(262_144)
        if not data:
            raise RuntimeError("the server closed the connection")
        return data


def latencies(  # noqa: PLR0917
    port: int,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    seed: int | None,
    seconds: float,
) -> list[float]:
    """Microseconds of each request at one connection."""
    mark = MARK.encode()
    before, _, after = body.partition(mark)
    connection = OneConnection(port, path, headers)
    took = []
    try:
        until = time.monotonic() + seconds
        number = seed
        while time.monotonic() < until:
            if number is not None:
                number += 1
                body = b"%b%012d%b" % (before, number, after)
            took.append(connection.ask(body)[0])
    finally:
        connection.close()
    return took


class _Stream(asyncio.Protocol):
    """Asks for one stream, and notes how late each of its events is."""

    def __init__(self, request: bytes, ended: asyncio.Future[None]) -> None:
        self._request = request
        self._ended = ended
        self._rest = b""
        self._asked = 0
        self.first_us: float | None = None
        self.late_us: list[float] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._asked = time.monotonic_ns()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        text = self._rest + data
        last = 0
        for found in _SENT.finditer(text):
            last = found.end()
            self.late_us.append((now - int(found[1])) / 1000)
        if self.late_us and self.first_us is None:
            self.first_us = (now - self._asked) / 1000
        self._rest = text[max(last, len(text) - 300) :]
        if b"data: [DONE]" in text and self._transport is not None:
            self._transport.close()

    def connection_lost(self, _problem: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


async def _streams(port: int, requests: list[bytes]) -> list[_Stream]:
    loop = asyncio.get_running_loop()
    made: list[_Stream] = []
    ends: list[asyncio.Future[None]] = []
    for request in requests:
        ended: asyncio.Future[None] = loop.create_future()
        stream = _Stream(request, ended)
        await loop.create_connection(lambda s=stream: s, "127.0.0.1", port)  # type: ignore[misc]
        made.append(stream)
        ends.append(ended)
        # Spread over a gap: streams that all tick at once would measure the queue of one burst.
        await asyncio.sleep(0.0003)
    await asyncio.wait_for(asyncio.gather(*ends), _TIMEOUT_S)
    return made


def streams(  # noqa: PLR0917
    port: int, path: str, body: bytes, headers: Mapping[str, str], seed: int, count: int
) -> tuple[list[float], list[float]]:
    """First bytes and the lateness of every event, in microseconds, of `count` streams at once."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    requests = []
    for number in range(count):
        own = body.replace(MARK.encode(), b"%012d" % (seed + number))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer sk-bench\r\n{lines}Content-Length: {len(own)}\r\n\r\n"
        )
        requests.append(head.encode() + own)
    done = asyncio.run(_streams(port, requests))
    return [s.first_us for s in done if s.first_us is not None], [
        t for s in done for t in s.late_us
    ]
