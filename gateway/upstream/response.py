"""A response as it is handed on: its head, and its body as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
