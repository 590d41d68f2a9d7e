"""The deadline of store operations: who wins when our own loop was late."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from gateway.store.deadline import within

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


@contextmanager
def echo_server() -> Iterator[tuple[int, threading.Event]]:
    """Answers one connection from a thread; the event is set once it has answered."""
    answered = threading.Event()

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            while data := peer.recv(100):
                peer.sendall(data)
                answered.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], answered
        thread.join(10)


def test_a_reply_that_came_while_the_loop_was_busy_counts(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def main() -> None:
        with echo_server() as (port, answered):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)

            async def ask() -> bytes:
                writer.write(b"hello")
                return await reader.readexactly(5)

            asking = asyncio.create_task(within(0.05, ask()))
            await asyncio.sleep(0)
            try:
                # The question is out. Hold the loop up until the answer is there and time over.
                assert answered.wait(10)
                time.sleep(0.1)  # noqa: ASYNC251 - the loop shall be held up
                assert await asking == b"hello"
            finally:
                writer.close()
                await writer.wait_closed()

    run(main())


def test_an_answer_of_a_thread_that_came_while_the_loop_was_busy_counts(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def main() -> None:
        asking = asyncio.create_task(within(0.05, asyncio.to_thread(time.sleep, 0.01)))
        await asyncio.sleep(0)
        time.sleep(0.1)  # noqa: ASYNC251 - the loop shall be held up
        await asking

    run(main())


def test_what_does_not_come_is_given_up_at_the_deadline_and_cancelled(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def main() -> None:
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        with pytest.raises(TimeoutError):
            await within(0.05, never)
        assert 0.049 < time.perf_counter() - began < 1
        assert never.cancelled()

    run(main())


def test_errors_and_the_cancellation_of_the_caller_pass(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def broken() -> None:
        raise OSError("broken")

    async def main() -> None:
        with pytest.raises(OSError, match="broken"):
            await within(5, broken())
        caller = asyncio.create_task(within(5, asyncio.Event().wait()))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    run(main())
