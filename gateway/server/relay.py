"""A response that goes out as it came: nothing added that we did not mean to add."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import hdrs, web

if TYPE_CHECKING:
    from multidict import CIMultiDict


class Relay(web.StreamResponse):
    """A StreamResponse without aiohttp's own `Server` line and guessed `Content-Type`."""

    def __init__(self, status: int, reason: str | None, headers: CIMultiDict[str]) -> None:
        super().__init__(status=status, reason=reason)
        self.headers.extend(headers)

    async def _prepare_headers(self) -> None:
        # aiohttp's low-level server has no hook at this place; the byte tests hold it.
        absent = [n for n in (hdrs.SERVER, hdrs.CONTENT_TYPE) if n not in self.headers]
        await super()._prepare_headers()
        for name in absent:
            self.headers.popall(name, None)


def cut(request: web.BaseRequest) -> None:
    """End the connection without ending the response: the client must see that it is cut short.

    A chunked body that ended in order would pass for a whole one.
    """
    if request.transport is not None:
        request.transport.abort()
