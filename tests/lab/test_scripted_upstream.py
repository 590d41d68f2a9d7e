"""The scripted upstream: what it sees, what it sends, and when."""

from __future__ import annotations

import asyncio

from tests.helpers.scripted_upstream import (
    DEADLINE_S,
    LAST_CHUNK,
    ScriptedUpstream,
    chunk,
    response,
    stream_head,
)


async def connect(upstream: ScriptedUpstream) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = upstream.url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


async def test_it_records_a_request_byte_for_byte() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(response(b"{}"))
        reader, writer = await connect(upstream)
        writer.write(
            b"POST /v1/x?a=%2F HTTP/1.1\r\nX-B: 1\r\nx-a:  2\r\nContent-Length: 3\r\n\r\n\x00{\n"
        )
        assert await reader.readuntil(b"{}") == response(b"{}")
        seen = await upstream.request(0)
        assert seen.request_line == b"POST /v1/x?a=%2F HTTP/1.1"
        assert seen.header_lines == [b"X-B: 1", b"x-a:  2", b"Content-Length: 3"]
        assert seen.body == b"\x00{\n"
        writer.close()


async def test_it_decodes_chunked_requests_and_reuses_connections() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.otherwise(response(b"ok"))
        reader, writer = await connect(upstream)
        head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        for _ in range(2):
            writer.write(head + chunk(b"ab") + chunk(b"c") + LAST_CHUNK)
            await reader.readuntil(b"ok")
        seen = [await upstream.request(i) for i in range(2)]
        assert [s.body for s in seen] == [b"abc", b"abc"]
        assert [s.connection for s in seen] == [0, 0]
        writer.close()


async def test_it_sends_each_piece_when_its_event_is_set() -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), (gate, chunk(b"data: 1\n\n")), LAST_CHUNK)
        reader, writer = await connect(upstream)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == stream_head()
        seen = await upstream.request(0)
        assert not seen.answered.is_set()
        gate.set()
        assert await reader.readuntil(LAST_CHUNK) == chunk(b"data: 1\n\n") + LAST_CHUNK
        await asyncio.wait_for(seen.answered.wait(), DEADLINE_S)
        assert len(seen.sent) == 3
        writer.close()


async def test_it_notices_a_client_that_hangs_up_in_the_middle() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), (asyncio.Event(), b"never"))
        reader, writer = await connect(upstream)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        seen = await upstream.request(0)
        await asyncio.wait_for(seen.hung_up.wait(), DEADLINE_S)
        assert seen.hung_up_at is not None
        assert not seen.answered.is_set()


async def test_what_a_client_does_not_read_does_not_count_as_sent() -> None:
    piece = b"x" * (1 << 20)
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), *[chunk(piece)] * 64, LAST_CHUNK)
        reader, writer = await connect(upstream)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        seen = await upstream.request(0)
        await reader.readuntil(b"\r\n\r\n")
        assert not seen.answered.is_set()
        assert seen.sent_bytes < 64 << 20
        received = 0
        while not seen.answered.is_set():
            received += len(await reader.read(1 << 20))
        assert seen.sent_bytes > 64 << 20
        writer.close()
        assert received > 32 << 20


async def test_it_can_close_in_the_middle_of_an_answer() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), chunk(b"half"), then_close=True)
        reader, writer = await connect(upstream)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.read() == stream_head() + chunk(b"half")
        writer.close()
