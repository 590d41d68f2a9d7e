"""Answers of our own: errors in the shape of the API called, and the page at `/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from gateway import __version__

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.wire.base import WireApi


def error(problem: GatewayError, api: WireApi, request_id: str) -> web.Response:
    """The error as the API's SDKs expect it."""
    headers = {"x-gateway-request-id": request_id}
    if problem.retry is not None:
        headers["x-should-retry"] = "true" if problem.retry else "false"
    return web.Response(
        status=problem.status,
        body=api.error(problem.status, problem.message, problem.code, problem.param),
        headers=headers,
        content_type="application/json",
    )


def index() -> web.Response:
    """What answers at `/`: enough for a load balancer, and for a person who looks."""
    body = {"name": "warmgate", "version": __version__, "apis": ["/v1/", "/u/NAME/v1/"]}
    return web.Response(body=orjson.dumps(body), content_type="application/json")
