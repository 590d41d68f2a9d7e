"""An answer's stream for one more client, while it is on its way: its own id, all else as it came.

Clients count an answer with a known id as one they had, so two of them never get the same; and a
tool call may not have an id that its request's history holds already.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import orjson

from gateway.core import sse

if TYPE_CHECKING:
    from gateway.core.mint import Mint
    from gateway.core.model import Ask
    from gateway.wire.base import WireApi

# No string holds a bare quote, so that only members are spelled like this. An id with an escape in
# it stays what it is.
_IDS = re.compile(
    rb'("(?:id|call_id|item_id|response_id)"[ \t]*:[ \t]*")([^"\\\x00-\x1f\x7f-\xff]+)"'
)


_ANY_ID = re.compile(rb'"(?:id|call_id|item_id)"[ \t\r\n]*:[ \t\r\n]*"((?:[^"\\]|\\.)*)"')


def ids_in(payload: bytes) -> frozenset[str] | None:
    """Whatever a stored answer says at the places of ids; None where one is spelled with escapes,
    so that it can't be told without parsing.
    """
    found = set(_ANY_ID.findall(payload))
    if any(b"\\" in each for each in found):
        return None
    return frozenset(each.decode("utf-8", "surrogateescape") for each in found)


class Live:
    """Makes the events of a stream those of another request's own answer, one after the other."""

    def __init__(self, api: WireApi, ask: Ask, mint: Mint, *, sift_usage: bool) -> None:
        """`sift_usage`: the call asked for usage, and this client (see `ask`) may not have."""
        self._api = api
        self._mint = mint
        self._keeps_id = ask.keeps_id
        self._sift = sift_usage and not ask.include_usage
        self._own = ""
        self._fresh: dict[bytes, bytes] = {}
        self._taken = ask.history_ids

    def __call__(self, event: bytes) -> bytes:
        """The raw event as this client is to get it; empty where it is to get nothing."""
        if self._sift:
            event = self._api.without_unasked_usage(event)
        if self._keeps_id or b'"' not in event:
            return event
        if not self._own and (own := self._api.answer_id(event)):
            self._own = own
            self._fresh[own.encode()] = self._mint.unlike(own, {own}).encode()
        return _IDS.sub(self._renewed, event)

    def _renewed(self, found: re.Match[bytes]) -> bytes:
        fresh = self._fresh.get(found[2])
        if fresh is None:
            given = found[2].decode()
            if given not in self._taken:
                return found[0]
            fresh = self._mint.unlike(given, self._taken).encode()
            self._taken |= {fresh.decode()}
            self._fresh[found[2]] = fresh
        return found[1] + fresh + b'"'


def member(event: bytes, *path: str) -> str:
    """The string at this path in the data of a raw event, or ""."""
    try:
        (parsed, *_) = sse.parse(event)
        value = orjson.loads(parsed.data)
    except ValueError:
        return ""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""
