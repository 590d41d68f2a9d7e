"""Answers of our own: errors in the shape of the API called, and the page at `/`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
from aiohttp import web
from multidict import CIMultiDict

from gateway import __version__
from gateway.core.pacing import paced
from gateway.server.relay import Relay
from gateway.server.stream import STALL_S, ClientGone
from gateway.server.whole import Counted, Whole, lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.budget import Share
    from gateway.errors import GatewayError
    from gateway.wire.base import WireApi


def error(problem: GatewayError, api: WireApi, request_id: str) -> web.Response:
    """The error as the API's SDKs expect it."""
    headers = {**_OWN, "x-gateway-request-id": request_id, api.request_id_header: request_id}
    if problem.retry is not None:
        headers["x-should-retry"] = "true" if problem.retry else "false"
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(problem.retry_after_s)
    return web.Response(
        status=problem.status,
        body=api.error(problem.status, problem.message, problem.code, problem.param),
        headers=headers,
        content_type="application/json",
    )


# Not which software of which version answers, for whoever scans for it.
_OWN = {"Server": "warmgate"}
_STREAM = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    # nginx and its kin would hold events back to fill a buffer.
    "X-Accel-Buffering": "no",
}
_DOCUMENT = lines({**_OWN, "Content-Type": "application/json"})
_WHOLE_STREAM = lines({**_OWN, **_STREAM})


def document(payload: bytes, headers: Mapping[str, str], share: Share | None = None) -> Whole:
    """A stored answer as a JSON document; `share` is what it takes of a budget."""
    return _whole(payload, _DOCUMENT, headers, share)


def joined(payload: bytes, headers: CIMultiDict[str]) -> web.Response:
    """A document made of stored parts and an upstream's answer, under that answer's headers."""
    headers["Content-Type"] = "application/json"
    return web.Response(body=payload, headers=headers)


def whole_stream(payload: bytes, headers: Mapping[str, str], share: Share | None = None) -> Whole:
    """A stored answer as a stream that is sent at once; `share` is what it takes of a budget."""
    return _whole(payload, _WHOLE_STREAM, headers, share)


def _whole(payload: bytes, kind: bytes, headers: Mapping[str, str], share: Share | None) -> Whole:
    return (
        Whole(payload, kind, headers) if share is None else Counted(payload, kind, headers, share)
    )


def stream_head(headers: Mapping[str, str]) -> Relay:
    """The head of a stream whose events come from another request's call."""
    return Relay(200, None, CIMultiDict({**_OWN, **headers, **_STREAM}))


async def paced_stream(
    request: web.BaseRequest, payload: bytes, headers: Mapping[str, str], gaps_ms: Sequence[int]
) -> web.StreamResponse:
    """A stored answer as a stream at its own pace. Raises `ClientGone`."""
    out = web.StreamResponse(headers={**_OWN, **headers, **_STREAM})
    try:
        await out.prepare(request)
        for wait_s, piece in paced(payload, gaps_ms):
            if wait_s:
                await asyncio.sleep(wait_s)
            async with asyncio.timeout(STALL_S):
                await out.write(piece)
        await out.write_eof()
    except (ConnectionError, TimeoutError) as error:
        raise ClientGone from error
    return out


def explanation(payload: bytes, request_id: str) -> web.Response:
    """What becomes of a request that is explained instead of sent."""
    headers = {
        **_OWN,
        "x-gateway-explain": "1",
        "x-gateway-request-id": request_id,
        "Cache-Control": "no-store",
    }
    return web.Response(body=payload, headers=headers, content_type="application/json")


def index() -> web.Response:
    """What answers at `/`: enough for a load balancer, and for a person who looks."""
    body = {"name": "warmgate", "version": __version__, "apis": ["/v1/", "/u/NAME/v1/"]}
    return web.Response(body=orjson.dumps(body), headers=_OWN, content_type="application/json")
