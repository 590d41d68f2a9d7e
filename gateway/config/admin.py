"""The admin port: where it is, and who may use it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from gateway.config.kinds import AdminToken, Count, Host, Port
from gateway.config.section import Section


class Admin(Section):
    """The port of /admin/*: statistics, and what is in the cache."""

    host: Host = Field(
        "127.0.0.1", description="Address of the admin port; beyond loopback it needs a token."
    )
    port: Port = Field(9181, description="Port of /admin/*; 0 takes a free one.")
    token: AdminToken | None = Field(
        None,
        description="What requests must bring (`Authorization: Bearer ...`); unset: nothing, so "
        "whoever is on this host may.",
    )
    recent_requests: Count = Field(
        10_000,
        description="Requests that the page at /admin/ remembers, in at most 64 MiB, without their "
        "content; 0: none, and no history.",
    )


def admin_contradictions(admin: Any) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """An admin port that others can reach, and no token."""
    if not isinstance(admin, Mapping) or admin.get("token"):
        return
    host = admin.get("host")
    if isinstance(host, str) and not is_loopback(host):
        yield (
            ("admin", "host"),
            "can be reached from other hosts, and no token is asked for",
            "set admin.token, such as the output of `openssl rand -hex 32`, or use 127.0.0.1",
        )


def is_loopback(host: str) -> bool:
    """Does the address or name stay on this host?"""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
