"""What each server is made to do, and how it is seen that it did it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CHAT = "/v1/chat/completions"
UNKNOWN = "/v1/bench"
"""A route that the gateway passes through without a look at its body."""


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table: a server, a request, and the proof that it was what it says.

    `distinct`: no two requests have the same body. `proof`: a header of the answer and what it
    must hold; measured figures of a case that did something else are worth nothing.
    """

    name: str
    server: str
    path: str
    distinct: bool
    what: str
    proof: tuple[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    sizes: tuple[str, ...] = ("1k", "32k", "256k")


_STATUS = "cache-status"

PLAIN: tuple[Case, ...] = (
    Case("direct", "", CHAT, False, "the stub and the load alone"),
    Case("nginx proxy", "nginx", CHAT, False, "plain proxy, keep-alive on both sides"),
    Case(
        "nginx cache hit",
        "nginx",
        f"/cached{CHAT}",
        False,
        "proxy_cache, its files in the page cache, keyed on path, credential and the whole body "
        "(which nginx can't beyond 64 KiB)",
        ("x-cache", "HIT"),
        sizes=("1k", "32k"),
    ),
    Case(
        "nginx cache hit, digest",
        "nginx",
        f"/digest{CHAT}",
        False,
        "the same, keyed on the body's MD5 (by nginx's Perl module)",
        ("x-cache", "HIT"),
    ),
    Case(
        "floor, proxy",
        "floor",
        f"/proxy{CHAT}",
        False,
        "aiohttp's low-level server, our upstream client, nothing between",
    ),
    Case(
        "floor, hit",
        "floor",
        CHAT,
        False,
        "the same server, the body hashed, an answer from a dict",
    ),
    Case(
        "pass-through",
        "gateway",
        UNKNOWN,
        False,
        "a route that is not understood: bytes both ways, telemetry's metrics on",
        (_STATUS, "fwd=bypass"),
    ),
    Case(
        "miss, stored",
        "gateway",
        CHAT,
        True,
        "distinct bodies: parsed, keyed, looked up, forwarded, answer read and stored; markers and causes "
        "off, since nobody beside us has them",
        (_STATUS, "fwd=miss"),
    ),
    Case(
        "miss, planned",
        "gateway-planned",
        CHAT,
        True,
        "the same as shipped, with markers and causes: the prompt read, planned, marked, compared with "
        "those before it, and learned from",
        (_STATUS, "fwd=miss"),
    ),
    Case(
        "hit by door",
        "gateway",
        CHAT,
        False,
        "the same bytes again, from memory",
        (_STATUS, "; hit"),
    ),
    Case(
        "hit by full parse",
        "gateway-parse",
        CHAT,
        False,
        "the same, with no door: parsed, canonicalised, keyed each time",
        (_STATUS, "; hit"),
    ),
    Case(
        "hit from Redis",
        "gateway-redis",
        CHAT,
        False,
        "by door, no memory tier: each lookup asks Redis (whose own CPU is not counted)",
        (_STATUS, "; hit"),
    ),
)

TELEMETRY = ("off", "1 %", "100 %", "dead collector")


def telemetry(variant: str) -> tuple[Case, Case]:
    """The two cases on which the price of tracing is measured."""
    server = f"gateway-traces-{variant}"
    return (
        Case(f"hit, traces {variant}", server, CHAT, False, "", (_STATUS, "; hit")),
        Case(f"miss, traces {variant}", server, CHAT, True, "", (_STATUS, "fwd=miss")),
    )


PACED: tuple[Case, ...] = (
    Case("direct", "direct", CHAT, True, "the stub and the load alone"),
    Case("nginx proxy", "nginx", f"/paced{CHAT}", True, "plain proxy, buffering off"),
    Case("pass-through", "gateway-paced", UNKNOWN, True, "a route that is not understood"),
    Case("miss, stored", "gateway-paced", CHAT, True, "teed, read, stored"),
)
