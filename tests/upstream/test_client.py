"""How we ask: what is retried, what every failure is called, and what is never added or changed."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from multidict import CIMultiDict

from gateway.config import Config
from gateway.errors import (
    BadRequest,
    GatewayError,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.telemetry.spans import AttemptSpan
from gateway.upstream.choice import Choice, Endpoint
from gateway.upstream.client import UpstreamClient
from tests.helpers.scripted_upstream import ScriptedUpstream, chunk, response, stream_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def client() -> AsyncIterator[UpstreamClient]:
    made = UpstreamClient()
    await made.start()
    yield made
    await made.close()


def endpoint(base: str, **changes: float) -> Endpoint:
    config = Config.model_validate({"upstreams": {"it": {"base_url": f"{base}/v1"}}})
    return replace(Choice(config).endpoints["it"], **changes)  # type: ignore[arg-type]


@dataclass
class Spans:
    """Counts attempts, and remembers what each was told."""

    told: list[list[str]] = field(default_factory=list)

    def __call__(self, attempt: int) -> AttemptSpan:
        assert attempt == len(self.told)
        words: list[str] = []
        self.told.append(words)

        class Span(AttemptSpan):
            def status(self, code: int) -> None:
                words.append(str(code))

            def error(self, type_: str) -> None:
                words.append(type_)

            def end(self) -> None:
                words.append("end")

        return Span()


async def call(
    client: UpstreamClient,
    to: Endpoint,
    *,
    method: str = "POST",
    path: str = "/x",
    body: bytes | AsyncIterator[bytes] | None = b"{}",
    headers: dict[str, str] | None = None,
    spans: Spans | None = None,
) -> tuple[int, bytes]:
    url = f"{to.base_url}{path}"
    lines = CIMultiDict(headers or {})
    async with client.call(method, url, lines, body, to, spans or Spans()) as answer:
        return answer.status, await answer.content.read()


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_refused_connection_is_tried_once_more(client: UpstreamClient, host: str) -> None:
    spans = Spans()
    with pytest.raises(UpstreamUnreachable):
        await call(client, endpoint(f"http://{host}:{unused_port()}"), spans=spans)
    assert spans.told == [["ClientConnectorError", "end"]] * 2


async def test_an_upstream_that_has_just_restarted_is_reached_by_the_second_try(
    client: UpstreamClient,
) -> None:
    port = unused_port()
    bodies: list[bytes] = []
    listening: list[asyncio.Server] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        bodies.append(await reader.readuntil(b"0\r\n\r\n"))
        writer.write(response(b"ok"))
        await writer.drain()
        writer.close()

    class LateSpans(Spans):
        def __call__(self, attempt: int) -> AttemptSpan:
            if attempt == 1:
                # Up again: bound here, served by the loop.
                sock = socket.create_server(("127.0.0.1", port))
                starting.append(asyncio.create_task(asyncio.start_server(serve, sock=sock)))
            return super().__call__(attempt)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"not taken "
        yield b"by the first try"

    starting: list[asyncio.Task[asyncio.Server]] = []
    spans = LateSpans()
    to = endpoint(f"http://127.0.0.1:{port}")
    assert await call(client, to, body=pieces(), spans=spans) == (200, b"ok")
    assert spans.told == [["ClientConnectorError", "end"], ["200", "end"]]
    assert bodies == [chunk(b"not taken ") + chunk(b"by the first try") + b"0\r\n\r\n"]
    listening = [await task for task in starting]
    for server in listening:
        server.close()


async def test_a_host_without_an_address_is_not_tried_again(client: UpstreamClient) -> None:
    spans = Spans()
    with pytest.raises(UpstreamUnreachable, match=r"no-such-host\.invalid"):
        await call(client, endpoint("http://no-such-host.invalid"), spans=spans)
    assert len(spans.told) == 1


async def test_a_connection_that_takes_too_long_is_unreachable(client: UpstreamClient) -> None:
    # A full backlog: the kernel drops further connections without a word.
    with socket.socket() as full, contextlib.ExitStack() as held:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        to = endpoint(f"http://127.0.0.1:{full.getsockname()[1]}", connect_timeout_s=0.2)
        spans = Spans()
        with pytest.raises(UpstreamUnreachable):
            await asyncio.wait_for(call(client, to, spans=spans), 5)
        assert len(spans.told) == 1


async def test_a_request_that_was_sent_is_not_sent_again(client: UpstreamClient) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(then_close=True)
        spans = Spans()
        with pytest.raises(UpstreamBroken):
            await call(client, endpoint(upstream.url), spans=spans)
        assert len(upstream.seen) == 1
        assert spans.told == [["ServerDisconnectedError", "end"]]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "POST"])
async def test_a_kept_connection_that_breaks_is_no_reason_to_send_again(
    client: UpstreamClient, method: str
) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(response(b"first"))
        to = endpoint(upstream.url)
        assert (await call(client, to))[0] == 200
        upstream.answer(then_close=True)
        with pytest.raises(UpstreamBroken):
            await call(client, to, method=method, body=b"x" if method in {"PUT", "POST"} else None)
        assert [s.connection for s in upstream.seen] == [0, 0]


async def test_silence_is_a_timeout_that_names_its_setting(client: UpstreamClient) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer((asyncio.Event(), b""))
        with pytest.raises(UpstreamTimeout, match=r"upstreams\.it\.idle_timeout_s"):
            await call(client, endpoint(upstream.url, idle_timeout_s=0.1))
        assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        ((stream_head(), chunk(b"half")), UpstreamBroken),
        ((response(b"x" * 100)[:-50],), UpstreamBroken),
        ((b"HTTP/1.1 two hundred OK\r\n\r\n",), UpstreamBroken),
        ((b"220 smtp.test ESMTP\r\n",), UpstreamBroken),
        ((stream_head(), b"not-a-size\r\n"), UpstreamBroken),
        ((b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",), UpstreamBroken),
    ],
)
async def test_what_is_no_whole_answer_is_broken(
    client: UpstreamClient, pieces: tuple[bytes, ...], problem: type[GatewayError]
) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(*pieces, then_close=True)
        with pytest.raises(problem) as told:
            await call(client, endpoint(upstream.url), path="/x?key=secret")
        assert "secret" not in told.value.message
        assert "\n" not in told.value.message


async def test_nothing_is_added_to_a_request(client: UpstreamClient) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.otherwise(response(b""))
        to = endpoint(upstream.url)
        await call(client, to, method="GET", body=None)
        await call(client, to, headers={"X-Own": "1"})
        host = upstream.url.removeprefix("http://").encode()
        assert upstream.seen[0].header_lines == [b"Host: " + host]
        assert upstream.seen[1].header_lines == [
            b"Host: " + host,
            b"X-Own: 1",
            b"Content-Length: 2",
        ]


async def test_nothing_is_decoded(client: UpstreamClient) -> None:
    packed = gzip.compress(b"text")
    async with ScriptedUpstream() as upstream:
        upstream.answer(response(packed, headers={"content-encoding": "gzip"}))
        assert await call(client, endpoint(upstream.url)) == (200, packed)


@pytest.mark.parametrize("size", [0, 1, 64 * 1024 * 8, 64 * 1024 * 8 + 1, 5_000_000])
async def test_a_body_of_any_size_goes_out_with_its_length(
    client: UpstreamClient, size: int
) -> None:
    body = b"x" * size
    async with ScriptedUpstream() as upstream:
        upstream.answer(response(b"ok"))
        await call(client, endpoint(upstream.url), body=body)
        assert upstream.seen[0].body == body
        assert upstream.seen[0].headers()["content-length"] == str(size)
        assert "transfer-encoding" not in upstream.seen[0].headers()


@pytest.mark.parametrize("base_path", ["", "/v1", "/openai/deployments/gpt%2F4o/"])
@pytest.mark.parametrize("target", ["/x", "/x?", "/x/?a=%2f&b", "//y", "/{z}|^`"])
async def test_the_target_goes_out_as_it_is_spelled(
    client: UpstreamClient, base_path: str, target: str
) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(response(b"ok"))
        to = replace(endpoint(upstream.url), base_url=upstream.url + base_path.rstrip("/"))
        await call(client, to, path=target)
        line = f"POST {base_path.rstrip('/')}{target} HTTP/1.1"
        assert upstream.seen[0].request_line == line.encode()


async def test_a_body_that_fails_is_not_the_upstreams_fault(client: UpstreamClient) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"half"
        raise BadRequest("the request body stopped arriving")

    async with ScriptedUpstream() as upstream:
        with pytest.raises(BadRequest, match="stopped arriving"):
            await call(client, endpoint(upstream.url), body=failing())
        assert upstream.seen == []


async def test_leaving_early_ends_the_call_at_once(client: UpstreamClient) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), chunk(b"one"), (asyncio.Event(), b""))
        to = endpoint(upstream.url)
        with contextlib.suppress(LookupError):
            async with client.call(
                "POST", f"{to.base_url}/x", CIMultiDict(), b"{}", to, Spans()
            ) as answer:
                assert await answer.content.readany() == b"one"
                raise LookupError
        await asyncio.wait_for(upstream.seen[0].hung_up.wait(), 1)


async def test_a_call_given_up_ends_even_if_the_upstream_reads_nothing(
    client: UpstreamClient,
) -> None:
    accepted: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    class Deaf(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.pause_reading()
            accepted.set_result(transport)

    server = await asyncio.get_running_loop().create_server(Deaf, "127.0.0.1", 0)
    to = endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    asking = asyncio.create_task(call(client, to, body=b"x" * 50_000_000))
    transport = await asyncio.wait_for(accepted, 5)
    # Stuck: what the kernel takes is taken, and the rest waits in the connection's own buffer.
    open_files = _open_files()
    async with asyncio.timeout(5):
        while not _writing(client):  # noqa: ASYNC110 - a full socket buffer tells nobody
            await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert _open_files() == open_files - 1
    transport.abort()
    server.close()


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _writing(client: UpstreamClient) -> bool:
    """Is anything held back in the one connection there is?"""
    assert client.pool is not None
    return any(
        connection.transport is not None and connection.transport.get_write_buffer_size() > 0
        for connection in client.pool.busy
    )
