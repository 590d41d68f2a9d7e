"""A response as it is handed on: its head, and its body as it comes."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader
    from multidict import CIMultiDictProxy

    from gateway.upstream.connection import Connection


class Response:
    """A response, its body still to come: read `content` until it gives b""."""

    __slots__ = ("connection", "content", "headers", "reason", "status")

    def __init__(
        self, connection: Connection, message: RawResponseMessage, content: StreamReader
    ) -> None:
        self.status: int = message.code
        self.reason: str | None = message.reason
        self.headers: CIMultiDictProxy[str] = message.headers
        self.content = content
        self.connection = connection

    def __repr__(self) -> str:
        return f"<Response {self.status}>"

    async def begun(self) -> None:
        """Wait until something of the body is there, or its end; nothing is taken of it. Raises what
        ended it before anything came.
        """
        content = self.content
        while not content.total_bytes and not content.is_eof():
            if (error := content.exception()) is not None:
                raise error
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.connection.on_body = partial(_come, turn)
            try:
                await turn
            finally:
                self.connection.on_body = None

    async def pass_to(
        self, sink: Callable[[bytes], bool], room: Callable[[], Awaitable[None]]
    ) -> None:
        """Hand each part of the body to `sink` in the very turn of the loop in which it came.

        No task is woken for a part, which is most of what an event of a stream costs otherwise.
        `sink` says whether it can take more at once; where it can't, `room` is awaited, and what
        comes meanwhile is held, within the bounds of `content`. Returns at the end of the body.
        Raises what ended it before, after all that came was handed over, and what `sink` raised.
        """
        content = self.content
        loop = asyncio.get_running_loop()
        while True:
            if content.total_bytes and (part := content._read_nowait(-1)):  # noqa: SLF001
                if not sink(part):
                    await room()
                continue
            if (error := content.exception()) is not None:
                raise error
            if content.is_eof():
                return
            turn: asyncio.Future[None] = loop.create_future()
            handing = self.connection.on_body = _Handing(content, sink, turn)
            try:
                await turn
            finally:
                self.connection.on_body = None
            if handing.full:
                await room()


def _come(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


class _Handing:
    """What a connection calls when something of a body has come, or its end."""

    __slots__ = ("_busy", "_content", "_sink", "_turn", "full")

    def __init__(
        self, content: StreamReader, sink: Callable[[bytes], bool], turn: asyncio.Future[None]
    ) -> None:
        self._content = content
        self._sink = sink
        self._turn = turn
        self._busy = False
        self.full = False
        """The sink can take no more for now."""

    def __call__(self) -> None:
        turn, content = self._turn, self._content
        # Taking a part out may let the parser go on, and that calls us again.
        if self._busy or turn.done():
            return
        self._busy = True
        try:
            # (The public one raises what ended the body before it gives what came ahead of it.)
            while part := content._read_nowait(-1):  # noqa: SLF001
                if not self._sink(part):
                    # From here on a task has to wait for it.
                    self.full = True
                    turn.set_result(None)
                    return
        except Exception as error:  # noqa: BLE001 - told to the task that waits
            turn.set_exception(error)
            return
        finally:
            self._busy = False
        if content.is_eof() or content.exception() is not None:
            turn.set_result(None)
