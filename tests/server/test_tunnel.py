"""The pipe of a tunnel: bytes from a parser's place to a writer, within a bound."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from gateway.server.tunnel import Pipe


class Sender:
    """A transport that notes whether it may read."""

    def __init__(self) -> None:
        self.reading = True
        self.closing = False

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing


def pipe() -> tuple[Pipe, Sender]:
    sender = Sender()
    return Pipe(cast("asyncio.Transport", sender)), sender


async def test_what_goes_in_comes_out_in_order_until_the_end() -> None:
    made, _ = pipe()
    out: list[bytes] = []

    async def write(piece: bytes) -> None:
        out.append(piece)

    assert made.feed_data(b"one") == (False, b"")
    draining = asyncio.create_task(made.drain_to(write))
    await asyncio.sleep(0)
    assert out == [b"one"]
    made.feed_data(b"")
    made.feed_data(b"two")
    made.feed_eof()
    await asyncio.wait_for(draining, 1)
    assert out == [b"one", b"two"]


async def test_a_sender_is_stopped_while_too_much_waits() -> None:
    made, sender = pipe()
    written = asyncio.Semaphore(0)

    async def write(_: bytes) -> None:
        await written.acquire()

    for _ in range(4):
        assert sender.reading
        made.feed_data(b"x" * 65536)
    assert sender.reading
    made.feed_data(b"x")
    assert not sender.reading
    # What the socket had read already still comes in.
    made.feed_data(b"y")
    draining = asyncio.create_task(made.drain_to(write))
    for _ in range(5):
        written.release()
        await asyncio.sleep(0)
    assert not sender.reading
    written.release()
    for _ in range(3):
        await asyncio.sleep(0)
    assert sender.reading
    made.set_exception(ConnectionResetError())
    await asyncio.wait_for(draining, 1)


async def test_a_sender_that_is_closing_is_left_alone() -> None:
    made, sender = pipe()

    async def write(_: bytes) -> None:
        return None

    made.feed_data(b"x" * 300_000)
    assert not sender.reading
    sender.closing = True
    made.feed_eof()
    await made.drain_to(write)
    assert not sender.reading


async def test_what_was_not_passed_on_can_be_taken_out() -> None:
    made, _ = pipe()
    made.feed_data(b"last ")
    made.feed_data(b"words")
    assert made.rest() == b"last words"
    assert made.rest() == b""


async def test_a_writer_that_fails_ends_the_pipe() -> None:
    made, _ = pipe()

    async def write(_: bytes) -> None:
        raise ConnectionResetError

    made.feed_data(b"x")
    with pytest.raises(ConnectionResetError):
        await made.drain_to(write)
