"""What is on the wire between us and an upstream: framing, reuse, early ends, pace."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from multidict import CIMultiDict

from gateway.errors import UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from gateway.upstream import pool as pools
from gateway.upstream.client import UpstreamClient
from gateway.upstream.request import request_head
from tests.helpers.scripted_upstream import (
    LAST_CHUNK,
    ScriptedUpstream,
    chunk,
    response,
    stream_head,
)
from tests.upstream.test_client import Spans, call, endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.upstream.choice import Endpoint

DEADLINE_S = 10.0
TLS = Path(__file__).parents[1] / "helpers" / "tls"


@pytest.fixture
async def client() -> AsyncIterator[UpstreamClient]:
    made = UpstreamClient()
    await made.start()
    yield made
    await made.close()


def head(*lines: str, version: str = "1.1", status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/{version} {status}", *lines, "", ""]).encode("latin-1")


@dataclass(frozen=True)
class Answer:
    """What an upstream says, and what is to be made of it."""

    what: str
    pieces: tuple[bytes, ...]
    body: bytes = b"body"
    status: int = 200
    kept: bool = True
    method: str = "POST"
    closes: bool = False


WHOLE = [
    Answer("a length", (head("content-length: 4"), b"body")),
    Answer("nothing", (head("content-length: 0"),), b""),
    Answer("byte by byte", tuple(bytes([b]) for b in response(b"body"))),
    Answer("chunks", (stream_head(), chunk(b"bo") + chunk(b"dy"), LAST_CHUNK)),
    Answer(
        "chunks with an extension and trailers",
        (stream_head(), b"4;x=y\r\nbody\r\n", b"0\r\nx-checksum: 1\r\n\r\n"),
    ),
    Answer("a chunk cut anywhere", (stream_head() + b"4\r", b"\nbo", b"dy\r", b"\n0\r\n\r\n")),
    Answer("the connection's end", (head(), b"bo", b"dy"), kept=False, closes=True),
    Answer("HTTP/1.0", (head("content-length: 4", version="1.0"), b"body"), kept=False),
    Answer(
        "HTTP/1.0 that stays",
        (head("content-length: 4", "connection: keep-alive", version="1.0"), b"body"),
    ),
    Answer(
        "a length and a close",
        (head("content-length: 4", "connection: close"), b"body"),
        kept=False,
    ),
    Answer("204", (head(status="204 No Content"),), b"", 204),
    Answer("304 with a length", (head("content-length: 9", status="304 Not Modified"),), b"", 304),
    Answer("HEAD with a length", (head("content-length: 9"),), b"", method="HEAD"),
    Answer("HEAD with chunks", (head("transfer-encoding: chunked"),), b"", method="HEAD"),
    Answer("HEAD with neither", (head(),), b"", method="HEAD", kept=False),
    Answer(
        "interim responses",
        (
            head(status="100 Continue") + head("link: x", status="103 Early Hints"),
            response(b"body"),
        ),
    ),
    Answer("no reason", (head("content-length: 4", status="200 "), b"body")),
    Answer("an error", (head("content-length: 4", status="529 Overloaded"), b"body"), status=529),
    Answer("a folded line", (head("x-folded: a\r\n b", "content-length: 4"), b"body")),
    Answer("line ends too many", (response(b"body") + b"\r\n",)),
    Answer("half a second response", (response(b"body") + b"HTTP/1.1 200",), kept=False),
    Answer("a second response", (response(b"body") + response(b"not asked for"),), kept=False),
    Answer(
        "a second one after chunks",
        (stream_head() + chunk(b"body") + LAST_CHUNK + response(b"no"),),
        kept=False,
    ),
    Answer("a short stay", (response(b"body", headers={"keep-alive": "timeout=1"}),), kept=False),
    Answer("a long stay", (response(b"body", headers={"keep-alive": "timeout=60, max=9"}),)),
]


@pytest.mark.parametrize("answer", WHOLE, ids=lambda a: a.what)
async def test_an_answer_is_read_as_it_is_framed_and_the_next_one_is_its_own(
    client: UpstreamClient, answer: Answer
) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(*answer.pieces, then_close=answer.closes)
        upstream.answer(response(b"the next"))
        to = endpoint(upstream.url)
        body = None if answer.method == "HEAD" else b"{}"
        got = await call(client, to, method=answer.method, body=body)
        assert got == (answer.status, answer.body)
        assert await call(client, to) == (200, b"the next")
        assert [seen.connection for seen in upstream.seen] == [0, 0 if answer.kept else 1]


BROKEN = [
    ("a length that is not reached", (head("content-length: 9"), b"body")),
    ("no last chunk", (stream_head(), chunk(b"body"))),
    ("half a head", (b"HTTP/1.1 200 OK\r\ncontent-le",)),
    ("two lengths", (head("content-length: 4", "content-length: 5"), b"body")),
    ("a negative length", (head("content-length: -4"), b"body")),
    ("a length with a sign", (head("content-length: +4"), b"body")),
    ("a length in hexadecimal", (head("content-length: 0x4"), b"body")),
    ("a length beyond 64 bits", (head("content-length: 99999999999999999999"), b"body")),
    (
        "a length beside chunks",
        (head("content-length: 4", "transfer-encoding: chunked"), b"4\r\nbody\r\n", LAST_CHUNK),
    ),
    ("a chunk size that is none", (stream_head(), b"four\r\nbody\r\n", LAST_CHUNK)),
    ("a chunk size with a sign", (stream_head(), b"-4\r\nbody\r\n", LAST_CHUNK)),
    ("a chunk size beyond 64 bits", (stream_head(), b"fffffffffffffffff\r\nbody\r\n")),
    ("a chunk that is longer than it says", (stream_head(), b"2\r\nbody\r\n", LAST_CHUNK)),
    ("a zero in a header", (head("x-a: a\x00b", "content-length: 4"), b"body")),
    ("a header without a name", (head(": x", "content-length: 4"), b"body")),
    ("a space before the colon", (head("content-length : 4"), b"body")),
    ("too large a head", (head(f"x-a: {'y' * 70_000}", "content-length: 4"), b"body")),
    ("too many headers", (head(*(f"x-{n}: y" for n in range(200))),)),
    ("interim responses without end", (head(status="100 Continue") * 40, response(b"body"))),
    ("a tab in a name", (head("x\ta: 1", "content-length: 4"), b"body")),
    ("a byte too many", (response(b"body") + b"x",)),
    ("another protocol", (b"SSH-2.0-OpenSSH_9.6\r\n",)),
    ("HTTP/2", (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",)),
]


@pytest.mark.parametrize(("pieces"), [p for _, p in BROKEN], ids=[what for what, _ in BROKEN])
async def test_what_is_framed_wrongly_is_broken_and_ends_its_connection(
    client: UpstreamClient, pieces: tuple[bytes, ...]
) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(*pieces, then_close=True)
        upstream.answer(response(b"the next"))
        to = endpoint(upstream.url)
        with pytest.raises(UpstreamBroken):
            await asyncio.wait_for(call(client, to), DEADLINE_S)
        assert await call(client, to) == (200, b"the next")
        assert upstream.connections == 2


async def test_a_body_cut_by_a_reset_is_not_taken_for_a_whole_one(client: UpstreamClient) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(head() + b"half")
        await writer.drain()
        await went_on.wait()
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    went_on = asyncio.Event()
    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    to = endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:

        async def read() -> None:
            async with client.call(
                "POST", f"{to.base_url}/x", CIMultiDict(), b"{}", to, Spans()
            ) as answer:
                assert await answer.content.readany() == b"half"
                went_on.set()
                await asyncio.wait_for(answer.content.readany(), DEADLINE_S)

        with pytest.raises(UpstreamBroken):
            await read()


async def test_what_comes_unasked_on_a_kept_connection_ends_it(client: UpstreamClient) -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream() as upstream:
        upstream.answer(response(b"first"), (gate, response(b"unasked")))
        upstream.answer(response(b"second"))
        to = endpoint(upstream.url)
        assert await call(client, to) == (200, b"first")
        gate.set()
        await asyncio.wait_for(upstream.seen[0].hung_up.wait(), DEADLINE_S)
        assert await call(client, to) == (200, b"second")
        assert upstream.connections == 2


async def test_a_kept_connection_that_the_upstream_closes_is_not_used(
    client: UpstreamClient,
) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(response(b"first"), then_close=True)
        upstream.answer(response(b"second"))
        to = endpoint(upstream.url)
        assert await call(client, to) == (200, b"first")
        async with asyncio.timeout(DEADLINE_S):
            while "0 kept" not in repr(client.pool):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
        assert await call(client, to) == (200, b"second")


async def test_connections_are_kept_for_a_while_only(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "KEEPALIVE_S", 0.05)
    async with ScriptedUpstream() as upstream:
        upstream.otherwise(response(b"x"))
        await call(client, endpoint(upstream.url))
        await asyncio.wait_for(upstream.seen[0].hung_up.wait(), DEADLINE_S)
        assert repr(client.pool) == "<Pool 0 busy, 0 kept>"


async def never_ending(sent: list[bytes]) -> AsyncIterator[bytes]:
    while True:
        sent.append(b"x" * 1000)
        yield sent[-1]
        await asyncio.sleep(0)


@pytest.mark.parametrize("body", ["pieces", "bytes"])
async def test_an_answer_that_comes_before_the_body_is_out_is_told_at_once(
    client: UpstreamClient, body: str
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(b"too large", status="413 Content Too Large"))
        await writer.drain()
        with contextlib.suppress(ConnectionError):
            await gone.wait()
        writer.close()

    gone = asyncio.Event()
    server = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=4096)
    to = endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        sent = never_ending([]) if body == "pieces" else b"x" * 30_000_000
        got = await asyncio.wait_for(call(client, to, body=sent), DEADLINE_S)
        assert got == (413, b"too large")
        assert repr(client.pool) == "<Pool 0 busy, 0 kept>"
        gone.set()


@pytest.mark.parametrize(("said", "problem"), [("3", "longer"), ("9", "shorter")])
async def test_a_body_of_another_length_than_was_said_is_not_sent_as_if_it_were(
    client: UpstreamClient, said: str, problem: str
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"12"
        yield b"34"

    async with ScriptedUpstream() as upstream:
        with pytest.raises(UpstreamBroken, match=problem):
            await call(
                client, endpoint(upstream.url), body=pieces(), headers={"Content-Length": said}
            )
        assert repr(client.pool) == "<Pool 0 busy, 0 kept>"


async def test_a_steady_stream_may_take_longer_than_a_silence(client: UpstreamClient) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), *[(0.05, chunk(b"x"))] * 10, LAST_CHUNK)
        to = endpoint(upstream.url, idle_timeout_s=0.25)
        assert await call(client, to) == (200, b"x" * 10)


async def test_silence_in_the_middle_of_a_body_is_a_timeout(client: UpstreamClient) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), chunk(b"x"), (asyncio.Event(), b""))
        to = endpoint(upstream.url, idle_timeout_s=0.1)
        with pytest.raises(UpstreamTimeout):
            await call(client, to)
        await asyncio.wait_for(upstream.seen[0].hung_up.wait(), DEADLINE_S)


async def test_the_time_in_which_nobody_reads_is_not_the_upstreams(client: UpstreamClient) -> None:
    size = 3_000_000
    async with ScriptedUpstream() as upstream:
        upstream.answer(response(b"x" * size))
        to = endpoint(upstream.url, idle_timeout_s=0.1)
        async with client.call(
            "POST", f"{to.base_url}/x", CIMultiDict(), b"{}", to, Spans()
        ) as answer:
            connection = answer.connection
            async with asyncio.timeout(DEADLINE_S):
                while not connection._reading_paused:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0)
            # Several times the silence that is allowed.
            await asyncio.sleep(0.4)
            # And what is held meanwhile is bounded.
            assert answer.content.total_bytes < size / 2
            assert len(await answer.content.read()) == size


async def test_the_time_in_which_the_client_sends_is_not_the_upstreams(
    client: UpstreamClient,
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(0.4)
        yield b"b"

    async with ScriptedUpstream() as upstream:
        upstream.answer(response(b"ok"))
        to = endpoint(upstream.url, idle_timeout_s=0.1)
        assert await call(client, to, body=slow()) == (200, b"ok")
        assert upstream.seen[0].body == b"ab"


async def test_an_upstream_that_reads_nothing_is_silent(client: UpstreamClient) -> None:
    async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    done = asyncio.Event()
    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=4096)
    to = endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", idle_timeout_s=0.2)
    async with server:
        with pytest.raises(UpstreamTimeout):
            await asyncio.wait_for(call(client, to, body=b"x" * 50_000_000), DEADLINE_S)
        done.set()


async def test_headers_go_out_and_come_in_byte_by_byte_as_they_are(client: UpstreamClient) -> None:
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")
    async with ScriptedUpstream() as upstream:
        upstream.answer(head("X-A: 1", "x-a: 2", "X-b: caf\xe9", "content-length: 0"))
        to = endpoint(upstream.url)
        sent = CIMultiDict([("X-One", "1"), ("x-one", "a\tb"), ("aUthorization", odd)])
        async with client.call("POST", f"{to.base_url}/x", sent, None, to, Spans()) as answer:
            assert list(answer.headers.items()) == [
                ("X-A", "1"),
                ("x-a", "2"),
                ("X-b", odd),
                ("Content-Length", "0"),
            ]
        assert upstream.seen[0].header_lines[1:] == [
            b"X-One: 1",
            b"x-one: a\tb",
            b"aUthorization: caf\xe9",
            b"Content-Length: 0",
        ]


@pytest.mark.parametrize(
    ("target", "name", "value"),
    [
        ("/x", "x-a", "1\r\nx-b: 2"),
        ("/x", "x-a", "1\n"),
        ("/x", "x-a\r\nx-b", "1"),
        ("/x", "x-a", "1\x00"),
        ("/x HTTP/1.1\r\nx-b: 2", "x-a", "1"),
        ("/x y", "x-a", "1"),
    ],
)
def test_one_line_never_becomes_two(target: str, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"head|target"):
        request_head("POST", target, "host", CIMultiDict({name: value}))


@pytest.mark.parametrize(
    ("base", "line"),
    [
        ("http://a.test", "a.test"),
        ("http://a.test:80", "a.test"),
        ("https://a.test:443", "a.test"),
        ("https://a.test:8443", "a.test:8443"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
async def test_the_host_line_names_a_port_that_is_not_the_schemes(
    client: UpstreamClient, base: str, line: str
) -> None:
    assert client.pool is not None
    assert client.pool.origin(base).host_line == line
    assert client.pool.origin(base) is client.pool.origin(base)


async def test_a_certificate_that_nobody_trusts_is_refused_and_a_trusted_one_is_named(
    client: UpstreamClient,
) -> None:
    asked: list[str | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"{}")
            writer.write(response(b"sealed"))
            await writer.drain()
        writer.close()

    def named(_: ssl.SSLObject | ssl.SSLSocket, name: str | None, __: ssl.SSLContext) -> None:
        asked.append(name)

    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    ours.sni_callback = named
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ours)
    port = server.sockets[0].getsockname()[1]
    async with server:
        to = endpoint(f"https://localhost:{port}")
        with pytest.raises(UpstreamUnreachable, match="certificate"):
            await asyncio.wait_for(call(client, to), DEADLINE_S)
        assert asked == ["localhost"]
        assert client.pool is not None
        client.pool._connector._ssl = ssl.create_default_context(cafile=str(TLS / "cert.pem"))
        to = endpoint(f"https://127.0.0.1:{port}")
        assert await asyncio.wait_for(call(client, to), DEADLINE_S) == (200, b"sealed")


async def test_calls_at_the_same_time_have_connections_of_their_own(client: UpstreamClient) -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream() as upstream:
        to: Endpoint = endpoint(upstream.url)
        for _ in range(20):
            upstream.answer((gate, response(b"x")))
        asking = [asyncio.create_task(call(client, to)) for _ in range(20)]
        await upstream.request(19)
        assert repr(client.pool) == "<Pool 20 busy, 0 kept>"
        gate.set()
        assert await asyncio.gather(*asking) == [(200, b"x")] * 20
        assert repr(client.pool) == "<Pool 0 busy, 20 kept>"
        upstream.otherwise(response(b"y"))
        assert await call(client, to) == (200, b"y")
        assert upstream.connections == 20


class Basin:
    """A sink that is full every now and then, and counts how often it was waited for."""

    def __init__(self, every: int = 0) -> None:
        self.parts: list[bytes] = []
        self.waited = 0
        self._every = every

    def take(self, part: bytes) -> bool:
        self.parts.append(part)
        return not self._every or len(self.parts) % self._every != 0

    async def room(self) -> None:
        self.waited += 1
        await asyncio.sleep(0)


async def handed(client: UpstreamClient, to: Endpoint, basin: Basin) -> None:
    async with client.call("POST", f"{to.base_url}/x", CIMultiDict(), b"{}", to, Spans()) as answer:
        await answer.pass_to(basin.take, basin.room)


@pytest.mark.parametrize("every", [0, 1, 3])
@pytest.mark.parametrize("size", [0, 1, 5_000_000])
async def test_a_sink_gets_all_parts_in_order(
    client: UpstreamClient, size: int, every: int
) -> None:
    whole = b"".join(b"%08d" % n for n in range(size // 8)) + b"x" * (size % 8)
    pieces = [whole[at : at + 300_007] for at in range(0, size, 300_007)]
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), *map(chunk, pieces), LAST_CHUNK)
        upstream.answer(response(whole))
        for _ in range(2):
            basin = Basin(every)
            await asyncio.wait_for(handed(client, endpoint(upstream.url), basin), DEADLINE_S)
            assert b"".join(basin.parts) == whole
            assert basin.waited == (len(basin.parts) // every if every else 0)
        assert upstream.connections == 1


async def test_a_sink_gets_each_part_as_it_comes(client: UpstreamClient) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), *[(gate, chunk(b"x")) for gate in gates], LAST_CHUNK)
        basin = Basin()
        asking = asyncio.create_task(handed(client, endpoint(upstream.url), basin))
        for number, gate in enumerate(gates):
            assert len(basin.parts) == number
            gate.set()
            async with asyncio.timeout(DEADLINE_S):
                while len(basin.parts) == number:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0)
        await asyncio.wait_for(asking, DEADLINE_S)


async def test_a_sink_gets_what_came_before_a_body_broke_off(client: UpstreamClient) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), chunk(b"half") + b"4\r\nan", then_close=True)
        basin = Basin()
        with pytest.raises(UpstreamBroken):
            await asyncio.wait_for(handed(client, endpoint(upstream.url), basin), DEADLINE_S)
        assert b"".join(basin.parts) == b"halfan"


async def test_a_sink_that_fails_ends_the_call(client: UpstreamClient) -> None:
    class Leaky(Basin):
        def take(self, part: bytes) -> bool:
            raise LookupError

    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), (0.05, chunk(b"x")), (asyncio.Event(), b""))
        with pytest.raises(LookupError):
            await asyncio.wait_for(handed(client, endpoint(upstream.url), Leaky()), DEADLINE_S)
        await asyncio.wait_for(upstream.seen[0].hung_up.wait(), DEADLINE_S)
