"""A response that goes out as it came, and one that is cut so that it can be seen."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from multidict import CIMultiDict

from gateway.server.relay import Cut, Relay, cut
from tests.helpers.raw_client import RawClient, fetch, request
from tests.server.test_body import served

if TYPE_CHECKING:
    from aiohttp import web

    from tests.server.test_body import Handler


def relaying(status: int, reason: str | None, lines: list[tuple[str, str]], body: bytes) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        out = Relay(status, reason, CIMultiDict(lines))
        await out.prepare(request)
        if body:
            await out.write(body)
        await out.write_eof()
        return out

    return handle


async def test_nothing_is_guessed() -> None:
    async with served(relaying(200, "Fine", [("X-A", "1"), ("x-a", "2")], b"body")) as url:
        answer = await fetch(url, "GET", "/")
        assert answer.head.status_line == b"HTTP/1.1 200 Fine"
        names = [name for name, _ in answer.head.pairs]
        assert names == ["x-a", "x-a", "transfer-encoding", "date"]
        assert answer.body == b"body"


async def test_what_the_upstream_said_of_itself_stays() -> None:
    lines = [
        ("Server", "theirs"),
        ("Content-Type", "odd/type; Charset=X"),
        ("Date", "never"),
        ("Content-Length", "2"),
    ]
    async with served(relaying(200, "", lines, b"ok")) as url:
        answer = await fetch(url, "GET", "/")
        assert answer.head.status_line == b"HTTP/1.1 200 "
        assert answer.head.end_to_end() == sorted((n.lower(), v.encode()) for n, v in lines)


@pytest.mark.parametrize(
    ("status", "method", "kept"), [(304, "GET", True), (200, "HEAD", True), (204, "GET", False)]
)
async def test_a_length_without_a_body_is_kept_where_it_may_be(
    status: int, method: str, kept: bool
) -> None:
    async with (
        served(relaying(status, None, [("Content-Length", "99")], b"")) as url,
        RawClient(url) as client,
    ):
        for _ in range(2):
            await client.ask(method, "/")
            answer = await client.response(method)
            assert answer.status == status
            assert answer.head.get("content-length") == ("99" if kept else "")
            assert answer.head.get("transfer-encoding") == ""


def cutting(pieces: list[bytes], headers: list[tuple[str, str]]) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        out = Relay(200, None, CIMultiDict(headers))
        await out.prepare(request)
        for piece in pieces:
            await out.write(piece)
        return cut(request)

    return handle


@pytest.mark.parametrize("headers", [[], [("Content-Length", "100")]])
async def test_a_cut_body_comes_as_far_as_it_was_and_never_ends_in_order(
    headers: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    async with served(cutting([b"one", b"two"], headers)) as url, RawClient(url) as client:
        await client.ask("GET", "/")
        assert await client.received(await client.head()) == (b"onetwo", False)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_a_slow_reader_gets_everything_that_was_written_before_the_cut() -> None:
    done = asyncio.Event()
    written = 0

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal written
        out = Relay(200, None, CIMultiDict())
        await out.prepare(request)
        assert request.transport is not None
        # Until the kernel takes no more, and something waits in the transport.
        while not request.transport.get_write_buffer_size():
            await out.write(b"x" * 16384)
            written += 16384
        done.set()
        return cut(request)

    async with served(handle) as url, RawClient(url, receive_buffer=8192) as client:
        client.reader._limit = 1024  # type: ignore[attr-defined]  # nor does the test's own reader
        await client.ask("GET", "/")
        await asyncio.wait_for(done.wait(), 10)
        client.reader._limit = 1 << 20  # type: ignore[attr-defined]
        got, whole = await client.received(await client.head())
        assert (len(got), whole) == (written, False)


async def test_a_client_without_chunks_is_reset() -> None:
    async with served(cutting([b"one"], [])) as url, RawClient(url) as client:
        await client.send(request("GET", "/", version="1.0"))
        with pytest.raises(ConnectionResetError):
            await client.reader.read()


async def test_a_cut_before_anything_was_said_closes_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handle(_: web.BaseRequest) -> web.StreamResponse:
        return Cut()

    async with served(handle) as url, RawClient(url) as client:
        await client.ask("GET", "/")
        assert await client.ended() == b""
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
