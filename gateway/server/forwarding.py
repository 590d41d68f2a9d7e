"""Which headers travel on, in both directions. Order, values and repetition are kept.

RFC 9110 section 7.6.1: an intermediary must remove the hop-by-hop fields, and those that
`Connection` names, before it forwards a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from multidict import CIMultiDict

from gateway.core.identity import CREDENTIALS

if TYPE_CHECKING:
    from aiohttp import web
    from multidict import CIMultiDictProxy

    from gateway.core.model import Pairs
    from gateway.upstream.choice import Endpoint

_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_OURS = "x-gateway-"
# But for what the Gateway API Inference Extension has taken of it: said to who picks the replica.
_THEIRS = "x-gateway-inference-"
# The trace is our users' own: it leaves only where `propagate_trace` says so, baggage never.
_TRACE = frozenset(("traceparent", "tracestate"))
# Beside those: what we ask and answer ourselves, which is framing, the host, and `Expect`, which our
# server has met.
_NEVER_ASKED = _HOP_BY_HOP | {"host", "content-length", "expect", "baggage"}

# The codings that `decode` of the collector can undo. A stored entry is identity-encoded.
DECODABLE = frozenset(("gzip", "deflate", "identity"))


def pairs(headers: CIMultiDictProxy[str]) -> Pairs:
    """The header lines as data: names lower-cased, in order."""
    return tuple([(name.lower(), value) for name, value in headers.items()])


def _named_by_connection(headers: CIMultiDictProxy[str]) -> frozenset[str]:
    if "Connection" not in headers:
        return _NONE
    return frozenset(
        name.strip().lower() for value in headers.getall("Connection") for name in value.split(",")
    )


_NONE: frozenset[str] = frozenset()


def request_headers(
    headers: CIMultiDictProxy[str], endpoint: Endpoint, tenant_header: str
) -> CIMultiDict[str]:
    """The client's headers as the upstream gets them: its own credential untouched, or the
    configured one in its place; our own headers stay here.
    """
    dropped = _named_by_connection(headers)
    out: CIMultiDict[str] = CIMultiDict()
    spelled: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower in _NEVER_ASKED or lower in dropped:
            continue
        if lower == tenant_header:
            continue
        if lower.startswith(_OURS) and not lower.startswith(_THEIRS):
            continue
        if lower in _TRACE and not endpoint.propagate_trace:
            continue
        if endpoint.api_key is not None and lower in CREDENTIALS:
            continue
        # aiohttp's client takes `X-A` and `x-a` for two names, and lets the later one win.
        out.add(spelled.setdefault(lower, name), value)
    if endpoint.api_key is not None:
        if endpoint.provider.credential_header == "authorization":
            out["Authorization"] = f"Bearer {endpoint.api_key}"
        else:
            out[endpoint.provider.credential_header] = endpoint.api_key
    return out


def ask_only_for_decodable(headers: CIMultiDict[str], *, plain: bool) -> None:
    """Narrow `Accept-Encoding` to codings that we can read (`plain`: to none at all).

    A request without the header stays without: then any answer in an odd coding passes through
    and is not stored.
    """
    asked = ",".join(headers.popall("Accept-Encoding", []))
    if plain:
        headers["Accept-Encoding"] = "identity"
        return
    if not asked:
        return
    kept = [
        member.strip()
        for member in asked.split(",")
        if member.split(";")[0].strip().lower() in DECODABLE
    ]
    headers["Accept-Encoding"] = ", ".join(kept) or "identity"


def response_headers(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The upstream's headers as the client gets them."""
    dropped = _named_by_connection(headers)
    return CIMultiDict(
        [
            (name, value)
            for name, value in headers.items()
            if (lower := name.lower()) not in _HOP_BY_HOP and lower not in dropped
        ]
    )


def upgrade(request: web.BaseRequest) -> str | None:
    """The protocol that the client wants to switch to, if it says so as it must."""
    tokens = {t.strip().lower() for t in request.headers.get("Connection", "").split(",")}
    return request.headers.get("Upgrade") if "upgrade" in tokens else None
