"""Requests that are to be explained instead of sent: `x-gateway-explain: 1`.

Rule 1: nobody is asked by such a request, and nothing is kept of it; who may not have it explained
gets an error, never the answer of a model that has to be paid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from gateway.errors import BadRequest, NotAllowed
from gateway.explaining import MOST_BYTES
from gateway.peers import Peers
from gateway.server import body as request_body
from gateway.server import replies

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiohttp import web

    from gateway.budget import Budget
    from gateway.exchange import Exchange
    from gateway.explaining import Explaining
    from gateway.recognition import Sender
    from gateway.upstream.choice import Asked

HEADER = "x-gateway-explain"
_NO = frozenset({"", "0", "false"})


def is_asked_to(headers: Mapping[str, str]) -> bool:
    """Is this request to be explained?"""
    value = headers.get(HEADER)
    return value is not None and value.strip().lower() not in _NO


class Explained:
    """Answers them."""

    def __init__(self, explaining: Explaining, budget: Budget, ranges: Iterable[str]) -> None:
        """`ranges` are those of the peers who may."""
        self._explaining = explaining
        self._budget = budget
        self._peers = Peers(ranges)

    async def answer(
        self, request: web.BaseRequest, asked: Asked, sender: Sender, exchange: Exchange
    ) -> web.Response:
        """The explanation. Raises `NotAllowed`, `BadRequest`, `NotFound`, and what reading does."""
        if sender.peer not in self._peers:
            raise NotAllowed(f"{HEADER} is for peers in server.explain_to; nothing was sent")
        if request.method != "POST":
            raise BadRequest(f"{HEADER} is for requests with a prompt")
        with self._budget.share() as share:
            body = await request_body.read(request, MOST_BYTES, share)
            told = await self._explaining.own(sender, asked, body)
        exchange.model, exchange.api = told["model"], told["api"]
        exchange.status = 200
        return replies.explanation(orjson.dumps(told), exchange.request_id)
