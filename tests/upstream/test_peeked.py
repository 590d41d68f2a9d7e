"""A response of which the beginning was read comes whole all the same."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from aiohttp.streams import StreamReader
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.upstream.peeked import Peeked, peek
from gateway.upstream.response import Response


def response(*parts: bytes, ended: bool = True) -> Response:
    loop = asyncio.get_running_loop()
    protocol: Any = SimpleNamespace(
        _reading_paused=False, pause_reading=lambda: None, resume_reading=lambda *_, **__: None
    )
    content = StreamReader(protocol, 2**16, loop=loop)
    for part in parts:
        content.feed_data(part)
    if ended:
        content.feed_eof()
    headers = CIMultiDictProxy(CIMultiDict({"content-type": "application/json"}))
    message: Any = SimpleNamespace(code=400, reason="Bad Request", headers=headers)
    return Response(cast("Any", SimpleNamespace(on_body=None)), message, content)


async def passed(peeked: Response, *, fits: bool = True) -> tuple[list[bytes], int]:
    parts: list[bytes] = []
    waited = 0

    def sink(part: bytes) -> bool:
        parts.append(part)
        return fits

    async def room() -> None:
        nonlocal waited
        waited += 1

    await peeked.pass_to(sink, room)
    return parts, waited


async def test_what_was_read_comes_first_and_the_rest_after_it() -> None:
    upstream = response(b"x" * 10, b"y" * 10)
    head = await peek(upstream, 10)
    whole = Peeked(upstream, head)

    parts, _ = await passed(whole)

    assert b"".join(parts) == b"x" * 10 + b"y" * 10
    assert (whole.status, whole.reason) == (400, "Bad Request")
    assert whole.headers["content-type"] == "application/json"


async def test_a_client_that_lags_is_waited_for() -> None:
    upstream = response(b"x" * 10)
    parts, waited = await passed(Peeked(upstream, await peek(upstream, 100)), fits=False)

    assert (parts, waited) == ([b"x" * 10], 1)


async def test_an_empty_body_is_one() -> None:
    upstream = response()

    assert await peek(upstream, 100) == b""
    assert await passed(Peeked(upstream, b"")) == ([], 0)
