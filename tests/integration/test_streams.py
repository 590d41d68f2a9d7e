"""Streams: chunks arrive as they were sent, nobody works for a client that left, many run at once.

The gateway is a process of its own, as in production; client and upstream share this loop, so
that one clock tells when a chunk was sent and when it arrived.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.raw_client import RawClient, fetch, request
from tests.helpers.scripted_upstream import (
    LAST_CHUNK,
    ScriptedUpstream,
    Seen,
    chunk,
    response,
    stream_head,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
PASSED = "/v1/responses"


def gateway_for(upstream: ScriptedUpstream, **server: float) -> GatewayProcess:
    base = f"{upstream.url}/v1"
    return GatewayProcess(
        {
            "server": {"drain_timeout_s": 1, **server},
            "telemetry": {"traces": "off"},
            "upstreams": {
                "openai": {"base_url": base, "provider": "openai"},
                "anthropic": {"base_url": base, "provider": "anthropic"},
            },
        }
    )


def chat(question: str, **more: object) -> bytes:
    messages = [{"role": "user", "content": question}]
    return orjson.dumps({"model": "gpt-4o", "messages": messages, "max_tokens": 99, **more})


def event(data: object) -> bytes:
    return b"data: %b\n\n" % (data if isinstance(data, bytes) else orjson.dumps(data))


def delta(content: str = "", finish: str | None = None, **more: object) -> bytes:
    top = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    choice = {"index": 0, "delta": {"content": content} if content else {}, "finish_reason": finish}
    return event({**top, "choices": [choice], **more})


USAGE_EVENT = event(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o",
        "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12},
    }
)
DONE = event(b"[DONE]")


def rss_mib(pid: int | None) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kib) / 1024


# --- chunks arrive as they were sent --------------------------------------------------------------

PACE_S = 0.01
WORDS = 60


@dataclass(frozen=True)
class Way:
    """A stream, its path and what of it the client is to see."""

    name: str
    path: str
    body: bytes
    events: Sequence[bytes]
    withheld: bytes = b""


def ways() -> list[Way]:
    words = [delta(f"word {i} ") for i in range(WORDS)]
    spoken = [*words, delta(finish="stop"), USAGE_EVENT, DONE]
    others = [b'event: content_block_delta\ndata: {"n":%d}\n\n' % i for i in range(WORDS)]
    anthropic = orjson.dumps(
        {
            "model": "claude-sonnet-4-5",
            "max_tokens": 9,
            "stream": True,
            "messages": [{"role": "user", "content": "hi"}],
        }
    )
    return [
        Way("chat, recorded and sieved", CHAT, chat("a", stream=True), spoken, USAGE_EVENT),
        Way(
            "chat, recorded, usage asked for",
            CHAT,
            chat("b", stream=True, stream_options={"include_usage": True}),
            spoken,
        ),
        Way("messages, recorded", MESSAGES, anthropic, others),
        Way("passed through", PASSED, b'{"stream":true}', others),
    ]


async def lateness(url: str, upstream: ScriptedUpstream, way: Way) -> list[float]:
    """Seconds between the upstream's sending and the client's having, for each event."""
    number = len(upstream.seen)
    upstream.answer(stream_head(), *((PACE_S, chunk(e)) for e in way.events), LAST_CHUNK)
    loop = asyncio.get_running_loop()
    had: list[tuple[int, float]] = []
    got = b""
    async with RawClient(url) as client:
        await client.ask("POST", way.path, way.body, [("Content-Type", "application/json")])
        head = await client.head()
        async for piece in client.pieces(head):
            got += piece
            had.append((len(got), loop.time()))
    seen = await upstream.request(number)
    assert head.status == 200
    direct = url == upstream.url
    assert got == b"".join(e for e in way.events if direct or e != way.withheld)
    late: list[float] = []
    size = 0
    for sent_event, (sent_at, _) in zip(way.events, seen.sent[1:], strict=False):
        if direct or sent_event != way.withheld:
            size += len(sent_event)
            late.append(next(at for total, at in had if total >= size) - sent_at)
    return late


def told(late: list[float]) -> tuple[float, float, float]:
    """Median, 90th and 99th percentile, in milliseconds."""
    percentiles = statistics.quantiles((each * 1e3 for each in late), n=100)
    return percentiles[49], percentiles[89], percentiles[98]


@pytest.mark.slow
async def test_each_chunk_arrives_within_a_few_ms_of_its_sending() -> None:
    async with ScriptedUpstream() as upstream, gateway_for(upstream) as gateway:
        for way in ways():
            direct = told(await lateness(upstream.url, upstream, way))
            through = told(await lateness(gateway.api_url, upstream, way))
            figures = (f"{m:.2f} / {p90:.2f} / {p99:.2f}" for m, p90, p99 in (direct, through))
            print(f"{way.name}, ms late (p50 / p90 / p99): {' direct, '.join(figures)} through")
            assert through[0] - direct[0] < 3.0
            # The last percentiles of 60 chunks belong to whatever else the machine has to do.
            assert through[1] - direct[1] < 10.0


async def test_the_usage_that_only_we_asked_for_is_kept_back_however_it_is_cut() -> None:
    text = b"".join([delta("hé"), delta("llo"), delta(finish="stop"), USAGE_EVENT, DONE])
    wanted = text.replace(USAGE_EVENT, b"")
    async with ScriptedUpstream() as upstream, gateway_for(upstream) as gateway:
        for number, size in enumerate((1, 7, 64, len(text))):
            cut = [text[i : i + size] for i in range(0, len(text), size)]
            upstream.answer(stream_head(), *map(chunk, cut), LAST_CHUNK)
            answer = await fetch(gateway.api_url, "POST", CHAT, chat(f"cut {size}", stream=True))
            assert answer.body == wanted
            seen = await upstream.request(number)
            assert b'"include_usage":true' in seen.body
            assert seen.headers()["accept-encoding"] == "identity"


# --- backpressure ---------------------------------------------------------------------------------

PIECE = b"x" * (1 << 20)
PIECES = 96


async def _stalled(seen: Seen) -> int:
    """How much the upstream could send until it was stopped."""
    before = -1
    async with asyncio.timeout(20):
        while seen.sent_bytes != before:
            before = seen.sent_bytes
            # There is no event for "nothing happens any more"; half a second is 5,000 chunks.
            await asyncio.sleep(0.5)
    return before


@pytest.mark.slow
@pytest.mark.parametrize("path", [CHAT, PASSED])
async def test_a_client_that_reads_slowly_slows_the_upstream_down(path: str) -> None:
    async with ScriptedUpstream() as upstream, gateway_for(upstream) as gateway:
        upstream.answer(stream_head(), *[chunk(PIECE)] * PIECES, LAST_CHUNK)
        before = rss_mib(gateway.pid)
        async with RawClient(gateway.api_url, receive_buffer=65536) as client:
            await client.ask("POST", path, chat("slow", stream=True))
            head = await client.head()
            seen = await upstream.request(0)
            sent = await _stalled(seen)
            grown = rss_mib(gateway.pid) - before
            print(f"{path}: {sent / 2**20:.1f} MiB sent, gateway grew by {grown:.1f} MiB")
            assert not seen.answered.is_set()
            assert sent < 40 << 20
            # A recording holds cache.max_entry_bytes (8 MiB) at most; buffers make the rest.
            assert grown < 40
            size = sum([len(piece) async for piece in client.pieces(head)])
        assert size == PIECES * len(PIECE)


@pytest.mark.slow
async def test_an_upload_that_the_upstream_does_not_read_stops_the_client() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # It never reads; what the kernel takes is all that it takes.
        try:
            await hung_up.wait()
        finally:
            writer.transport.abort()

    hung_up = asyncio.Event()
    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=4096)
    port = server.sockets[0].getsockname()[1]
    async with server:
        config = {"upstreams": {"openai": {"base_url": f"http://127.0.0.1:{port}/v1"}}}
        async with GatewayProcess({**config, "server": {"drain_timeout_s": 1}}) as gateway:
            before = rss_mib(gateway.pid)
            async with RawClient(gateway.api_url) as client:
                size = PIECES * len(PIECE)
                head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
                await client.send(head.encode())
                taken = 0
                try:
                    while taken < size:
                        await client.send(PIECE, deadline_s=1)
                        taken += len(PIECE)
                except TimeoutError:
                    pass
                assert taken < size
                grown = rss_mib(gateway.pid) - before
                print(f"{taken / 2**20:.0f} MiB taken, gateway grew by {grown:.1f} MiB")
                assert grown < 16
            hung_up.set()


# --- a client that hangs up -----------------------------------------------------------------------

NEVER = asyncio.Event
UPGRADE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
]
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


ASKED: tuple[tuple[str, bytes | None], ...] = (
    (CHAT, chat("gone", stream=True)),
    (CHAT, chat("gone")),
    (MESSAGES, chat("gone", stream=True)),
    (PASSED, b'{"stream":true}'),
    ("/v1/models", None),
)


@pytest.mark.parametrize("moment", ["before the head", "before a byte", "in the middle"])
async def test_a_client_that_hangs_up_ends_the_upstream_call(moment: str) -> None:
    async with ScriptedUpstream() as upstream, gateway_for(upstream) as gateway:
        for number, (path, body) in enumerate(ASKED):
            match moment:
                case "before the head":
                    upstream.answer((NEVER(), stream_head()))
                case "before a byte":
                    upstream.answer(stream_head(), (NEVER(), b""))
                case _:
                    upstream.answer(stream_head(), chunk(delta("hi")), (NEVER(), b""))
            async with RawClient(gateway.api_url) as client:
                await client.ask("GET" if body is None else "POST", path, body)
                seen = await upstream.request(number)
                if moment != "before the head":
                    head = await client.head()
                    if moment == "in the middle":
                        assert await anext(client.pieces(head)) == delta("hi")
                left = asyncio.get_running_loop().time()
            await _ended(seen, left)
        # And it does so without a traceback in its log.
        assert await gateway.stop() == 0
        assert "Traceback" not in gateway.output()


async def _ended(seen: Seen, left: float) -> None:
    async with asyncio.timeout(5):
        await seen.hung_up.wait()
    assert seen.hung_up_at is not None
    assert seen.hung_up_at - left < 1.0


async def test_a_client_that_leaves_a_tunnel_ends_the_upstreams_side() -> None:
    async with ScriptedUpstream() as upstream, gateway_for(upstream) as gateway:
        upstream.answer(SWITCH, b"\x81\x02hi", (NEVER(), b""))
        async with RawClient(gateway.api_url) as client:
            await client.ask("GET", "/v1/realtime?model=x", None, UPGRADE)
            assert (await client.head()).status == 101
            assert await client.reader.readexactly(4) == b"\x81\x02hi"
            seen = await upstream.request(0)
            left = asyncio.get_running_loop().time()
        await _ended(seen, left)


async def test_a_client_that_leaves_in_the_middle_of_its_upload_ends_the_call() -> None:
    gone = asyncio.Event()
    began = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        began.set()
        try:
            while await reader.read(4096):
                pass
        except ConnectionError:
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        config = {"upstreams": {"openai": {"base_url": f"http://127.0.0.1:{port}/v1"}}}
        async with GatewayProcess(config) as gateway:
            async with RawClient(gateway.api_url) as client:
                await client.send(
                    b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf"
                )
                await asyncio.wait_for(began.wait(), 5)
            await asyncio.wait_for(gone.wait(), 1)


# --- an upstream that breaks off ------------------------------------------------------------------

PART = [delta("one "), delta("two "), b'data: {"unfinished']


async def test_a_stream_that_breaks_off_is_broken_for_the_client_after_all_that_came() -> None:
    async with ScriptedUpstream() as upstream, gateway_for(upstream) as gateway:
        for pause_s in (None, 0.02):
            for path in (CHAT, PASSED):
                # Asked twice, because nothing may be stored of the first.
                for _ in range(2):
                    number = len(upstream.seen)
                    pieces = [(pause_s, chunk(part)) for part in PART]
                    upstream.answer(stream_head(), *pieces, (pause_s, b""), then_close=True)
                    async with RawClient(gateway.api_url) as client:
                        await client.ask("POST", path, chat("broken", stream=True))
                        head = await client.head()
                        assert head.status == 200
                        assert await client.received(head) == (b"".join(PART), False)
                    assert len(upstream.seen) == number + 1
        assert await gateway.stop() == 0
        assert "Traceback" not in gateway.output()


async def test_a_body_that_is_shorter_than_it_said_is_broken_for_the_client() -> None:
    async with ScriptedUpstream() as upstream, gateway_for(upstream) as gateway:
        for path in (CHAT, PASSED):
            upstream.answer(response(b'{"half": "of it"}')[:-5], then_close=True)
            async with RawClient(gateway.api_url) as client:
                await client.ask("POST", path, chat("short"))
                head = await client.head()
                assert await client.received(head) == (b'{"half": "of', False)


async def test_a_client_without_chunks_sees_a_reset_where_the_upstream_broke_off() -> None:
    async with ScriptedUpstream() as upstream, gateway_for(upstream) as gateway:
        gate = asyncio.Event()
        upstream.answer(stream_head(), chunk(PART[0]), (gate, b""), then_close=True)
        async with RawClient(gateway.api_url) as client:
            await client.send(request("POST", PASSED, b"{}", version="1.0"))
            head = await client.head()
            assert head.get("transfer-encoding") == ""
            assert await client.reader.readexactly(len(PART[0])) == PART[0]
            gate.set()
            with pytest.raises(ConnectionResetError):
                await client.reader.read()


async def test_a_slow_reader_still_gets_all_that_came_of_a_broken_stream() -> None:
    async with ScriptedUpstream() as upstream, gateway_for(upstream) as gateway:
        upstream.answer(stream_head(), *[chunk(PIECE)] * 8, then_close=True)
        async with RawClient(gateway.api_url, receive_buffer=65536) as client:
            await client.ask("POST", PASSED, b"{}")
            head = await client.head()
            seen = await upstream.request(0)
            await _stalled(seen)
            got, whole = await client.received(head)
            assert (len(got), whole) == (8 * len(PIECE), False)


# --- many at once ---------------------------------------------------------------------------------

STREAMS = 1000
BEATS = 10
BEAT_S = 0.5


@pytest.mark.slow
async def test_a_thousand_slow_streams_run_at_once() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    words = [delta(f"beat {i} ") for i in range(BEATS)]
    spoken = [*words, delta(finish="stop"), USAGE_EVENT, DONE]
    wanted = b"".join(e for e in spoken if e != USAGE_EVENT)
    door = asyncio.Semaphore(100)
    running = most = 0

    async def one(url: str, number: int) -> bool:
        nonlocal running, most
        async with RawClient(url) as client:
            async with door:
                await client.ask("POST", CHAT, chat(f"stream {number}", stream=True))
                head = await client.head(deadline_s=30)
            running += 1
            most = max(most, running)
            got, whole = await client.received(head)
            running -= 1
        return whole and got == wanted

    async with ScriptedUpstream() as upstream, gateway_for(upstream) as gateway:
        paced = [(BEAT_S, chunk(word)) for word in words]
        upstream.otherwise(stream_head(), *paced, *map(chunk, spoken[BEATS:]), LAST_CHUNK)
        before = rss_mib(gateway.pid)
        began = time.perf_counter()
        tasks = [asyncio.create_task(one(gateway.api_url, i)) for i in range(STREAMS)]
        whole = 0
        peak = before
        for task in asyncio.as_completed(tasks):
            whole += await task
            if whole % 100 == 1:
                peak = max(peak, rss_mib(gateway.pid))
        took = time.perf_counter() - began
        print(
            f"{whole} of {STREAMS} streams of {BEATS * BEAT_S:.0f} s whole in {took:.1f} s, "
            f"{most} at once; RSS {before:.0f} -> {peak:.0f} MiB "
            f"({(peak - before) * 1024 / STREAMS:.0f} KiB each)"
        )
        assert whole == STREAMS
        assert most == STREAMS
        assert took < 30
        assert peak - before < 150
