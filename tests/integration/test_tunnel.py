"""WebSocket through the gateway, with the `websockets` package at both ends."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.typing import Subprotocol

from tests.helpers.echoing import echo
from tests.helpers.gateway_here import gateway_here, settings
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.raw_client import RawClient, request
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from websockets.asyncio.client import ClientConnection
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

    Handler = Callable[[ServerConnection], Awaitable[None]]

DEADLINE_S = 10.0
TARGET = "/v1/realtime?model=gpt-realtime"


@asynccontextmanager
async def realtime(
    handler: Handler = echo,
    *,
    process: bool = False,
    refusal: HTTPStatus | None = None,
    subprotocols: tuple[str, ...] = (),
) -> AsyncIterator[str]:
    """A WebSocket upstream behind a gateway; yields the URL that a client connects to."""

    def answer(connection: ServerConnection, _: Request) -> Response | None:
        return None if refusal is None else connection.respond(refusal, "not for you\n")

    known = [Subprotocol(name) for name in subprotocols] or None
    async with serve(
        handler, "127.0.0.1", 0, process_request=answer, subprotocols=known, max_size=None
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        base = f"http://127.0.0.1:{port}"
        async with contextlib.AsyncExitStack() as stack:
            if process:
                gateway = await stack.enter_async_context(GatewayProcess(settings(base)))
                api_url = gateway.api_url
            else:
                api_url = (await stack.enter_async_context(gateway_here(base))).api_url
            yield api_url.replace("http://", "ws://") + TARGET


def client(url: str, **options: object) -> connect:
    return connect(url, proxy=None, max_size=None, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("process", [False, True])
async def test_messages_of_every_kind_and_size_come_back(process: bool) -> None:
    messages: list[str | bytes] = [
        "",
        "hello",
        "é漢字😀" * 1000,
        b"",
        bytes(range(256)),
        b"\x00" * 3_000_000,
        "x" * 2_000_000,
    ]
    async with realtime(process=process) as url, client(url) as connection:
        for message in messages:
            await connection.send(message)
            assert await asyncio.wait_for(connection.recv(), DEADLINE_S) == message
        await connection.send(["in ", "three ", "frames"])
        assert await asyncio.wait_for(connection.recv(), DEADLINE_S) == "in three frames"


async def test_many_messages_in_flight_keep_their_order() -> None:
    async with realtime() as url, client(url) as connection:

        async def speak() -> None:
            for number in range(2000):
                await connection.send(f"{number} " + "." * (number % 700))

        speaker = asyncio.create_task(speak())
        async with asyncio.timeout(DEADLINE_S):
            heard = [str(await connection.recv()).split()[0] for _ in range(2000)]
            await speaker
        assert heard == [str(number) for number in range(2000)]


async def test_compression_and_subprotocol_are_agreed_between_client_and_upstream() -> None:
    async with (
        realtime(subprotocols=("realtime", "other")) as url,
        client(url, subprotocols=["unknown", "realtime"], compression="deflate") as connection,
    ):
        assert connection.subprotocol == "realtime"
        assert any(isinstance(e, PerMessageDeflate) for e in connection.protocol.extensions)
        await connection.send("again and " * 10_000)
        assert await connection.recv() == "again and " * 10_000


async def test_an_upstream_without_compression_is_spoken_to_without() -> None:
    async def plain(connection: ServerConnection) -> None:
        assert connection.protocol.extensions == []
        await echo(connection)

    async with realtime(plain) as url, client(url, compression=None) as connection:
        await connection.send("plain")
        assert await connection.recv() == "plain"


async def test_the_upstream_sees_the_clients_headers() -> None:
    async def tell(connection: ServerConnection) -> None:
        assert connection.request is not None
        sent = connection.request.headers
        await connection.send(
            "|".join(
                (
                    connection.request.path,
                    sent["Authorization"],
                    sent["OpenAI-Beta"],
                    sent["Origin"],
                    sent.get("x-gateway-tenant", "none"),
                )
            )
        )

    headers = {
        "Authorization": "Bearer sk-test",
        "OpenAI-Beta": "realtime=v1",
        "x-gateway-tenant": "acme",
    }
    async with (
        realtime(tell) as url,
        client(url, additional_headers=headers, origin="https://app.test") as connection,
    ):
        told = await connection.recv()
        assert told == f"{TARGET}|Bearer sk-test|realtime=v1|https://app.test|none"
        assert connection.response is not None
        assert connection.response.headers["x-gateway-cache"] == "pass"
        assert connection.response.headers["x-gateway-request-id"].startswith("gw_")


async def test_pings_are_answered_by_the_other_end() -> None:
    pinged = asyncio.Event()

    async def ping(connection: ServerConnection) -> None:
        pong = await connection.ping(b"from the upstream")
        await pong
        pinged.set()
        await echo(connection)

    async with realtime(ping) as url, client(url) as connection:
        pong = await connection.ping(b"from the client")
        assert await asyncio.wait_for(pong, DEADLINE_S) < 1.0
        await asyncio.wait_for(pinged.wait(), DEADLINE_S)


async def test_the_clients_close_code_reaches_the_upstream() -> None:
    ended: asyncio.Future[tuple[int | None, str | None]] = asyncio.Future()

    async def listen(connection: ServerConnection) -> None:
        await connection.wait_closed()
        ended.set_result((connection.close_code, connection.close_reason))

    async with realtime(listen) as url, client(url) as connection:
        await connection.close(4001, "enough")
        assert await asyncio.wait_for(ended, DEADLINE_S) == (4001, "enough")
        assert connection.close_code == 4001


async def test_the_upstreams_close_code_reaches_the_client() -> None:
    async def leave(connection: ServerConnection) -> None:
        await connection.send("last words")
        await connection.close(4002, "session expired")

    async with realtime(leave) as url, client(url) as connection:
        assert await connection.recv() == "last words"
        with pytest.raises(ConnectionClosedError) as closed:
            await asyncio.wait_for(connection.recv(), DEADLINE_S)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4002, "session expired")


async def test_a_refused_upgrade_is_passed_on_as_the_upstream_said_it() -> None:
    async with realtime(refusal=HTTPStatus.FORBIDDEN) as url:
        with pytest.raises(InvalidStatus) as refused:
            async with client(url):
                pass
        assert refused.value.response.status_code == 403
        assert refused.value.response.body == b"not for you\n"


async def test_after_a_refusal_the_connection_serves_the_next_request() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.answer(response(b"no", status="401 Unauthorized"))
        upstream.answer(response(b"yes"))
        async with RawClient(gateway.api_url) as raw:
            upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
            await raw.ask("GET", "/v1/realtime", None, upgrade)
            assert (await raw.response()).status == 401
            await raw.ask("GET", "/v1/models")
            assert (await raw.response()).body == b"yes"


@pytest.mark.parametrize("process", [False, True])
async def test_a_client_that_is_cut_off_ends_the_upstreams_side_within_a_second(
    process: bool,
) -> None:
    ended = asyncio.Event()

    async def listen(connection: ServerConnection) -> None:
        await connection.wait_closed()
        ended.set()

    async with realtime(listen, process=process) as url, client(url) as connection:
        connection.transport.abort()
        await asyncio.wait_for(ended.wait(), 1.0)


@pytest.mark.parametrize("process", [False, True])
async def test_an_upstream_that_is_cut_off_ends_the_clients_side_within_a_second(
    process: bool,
) -> None:
    async def die(connection: ServerConnection) -> None:
        await connection.recv()
        connection.transport.abort()

    async with realtime(die, process=process) as url, client(url) as connection:
        await connection.send("go")
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(connection.recv(), 1.0)


@pytest.mark.parametrize("ended_by", ["client", "upstream", "client cut off", "upstream cut off"])
async def test_the_end_of_a_tunnel_is_no_failure_of_ours(ended_by: str) -> None:
    async def end(connection: ServerConnection) -> None:
        await connection.recv()
        match ended_by:
            case "upstream":
                await connection.close(1000)
            case "upstream cut off":
                connection.transport.abort()
            case _:
                await connection.wait_closed()

    with capture_logs() as told:
        async with realtime(end) as url, client(url) as connection:
            await connection.send("go")
            if ended_by == "client":
                await connection.close(1000)
            elif ended_by == "client cut off":
                connection.transport.abort()
            await asyncio.wait_for(connection.wait_closed(), DEADLINE_S)
    lines = [line for line in told if line["event"] == "request"]
    assert [(line["status"], line.get("error")) for line in lines] == [(101, None)]
    assert [line for line in told if line["log_level"] == "error"] == []


async def test_what_a_client_said_last_before_it_went_reaches_the_upstream() -> None:
    heard: list[str | bytes] = []
    ended = asyncio.Event()

    async def listen(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                heard.append(message)  # noqa: PERF401 - what came before the end counts too
        ended.set()

    async with realtime(listen) as url, client(url, compression=None) as connection:
        for number in range(100):
            await connection.send(f"{number}")
        connection.transport.close()
        await asyncio.wait_for(ended.wait(), DEADLINE_S)
    assert heard == [str(number) for number in range(100)]


async def test_what_still_waits_for_a_slow_upstream_is_not_lost_when_the_client_goes() -> None:
    read_on = asyncio.Event()
    got: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
        )
        await read_on.wait()
        got.set_result(len(await reader.read(-1)))
        writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0, limit=4096)
    port = server.sockets[0].getsockname()[1]
    async with server, gateway_here(f"http://127.0.0.1:{port}") as gateway:
        host, _, number = gateway.api_url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(number))
        upgrade = [("Connection", "Upgrade"), ("Upgrade", "x")]
        writer.write(request("GET", "/v1/realtime", None, upgrade))
        await reader.readuntil(b"\r\n\r\n")
        assert gateway._client.pool is not None
        [upstream] = gateway._client.pool.busy
        assert upstream.transport is not None
        size = 0
        async with asyncio.timeout(DEADLINE_S):
            # Until the gateway's own buffers fill, then a little more: small pieces, one by one.
            left = 20
            while left:
                writer.write(b"x" * 4096)
                size += 4096
                await asyncio.sleep(0.001 if upstream._paused else 0)
                left -= upstream._paused
            writer.close()
            while "0 busy" not in repr(gateway._drain):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
        read_on.set()
        assert await asyncio.wait_for(got, DEADLINE_S) == size


async def _sent_until_blocked(connection: ClientConnection | ServerConnection) -> int:
    """How many bytes go out until nobody takes any more."""
    sent = 0
    piece = b"x" * 65536
    try:
        while sent < 256 << 20:
            async with asyncio.timeout(1):
                await connection.send(piece)
            sent += len(piece)
    except TimeoutError:
        return sent
    return sent


async def test_an_upstream_that_does_not_read_slows_the_client_down() -> None:
    done = asyncio.Event()

    async def deaf(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await done.wait()
        connection.transport.abort()

    async with realtime(deaf) as url, client(url, compression=None) as connection:
        sent = await _sent_until_blocked(connection)
        connection.transport.abort()
        done.set()
    print(f"{sent / 2**20:.1f} MiB taken")
    assert sent < 32 << 20


async def test_a_client_that_does_not_read_slows_the_upstream_down() -> None:
    sent: asyncio.Future[int] = asyncio.Future()

    async def speak(connection: ServerConnection) -> None:
        sent.set_result(await _sent_until_blocked(connection))
        connection.transport.abort()

    async with realtime(speak) as url, client(url, compression=None, ping_interval=None) as deaf:
        deaf.transport.pause_reading()
        taken = await asyncio.wait_for(sent, 30)
        deaf.transport.abort()
    print(f"{taken / 2**20:.1f} MiB taken")
    assert taken < 32 << 20


async def test_frames_that_come_right_behind_the_switch_are_not_lost() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
        # In one write, and as much as would be paused if it were a body.
        early = bytes(range(256)) * 4096
        upstream.answer(switch + early, then_close=True)
        async with RawClient(gateway.api_url) as raw:
            upgrade = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "x")]
            await raw.send(request("GET", "/v1/realtime", None, upgrade))
            assert (await raw.head()).status == 101
            assert await raw.reader.readexactly(len(early)) == early
            assert await raw.ended() == b""
        seen = await upstream.request(0)
        assert seen.headers()["upgrade"] == "x"
        assert seen.headers()["connection"] == "Upgrade"
