"""Who is at the other end of a connection, as far as the config names them: `Peers`."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Peers:
    """Addresses in some ranges."""

    def __init__(self, ranges: Iterable[str]) -> None:
        """`ranges` as in CIDR: `10.0.0.0/8`."""
        self._ranges = tuple(ipaddress.ip_network(each) for each in ranges)

    def __contains__(self, peer: str | None) -> bool:
        if peer is None:
            return False
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        # A socket that listens on both families shows IPv4 peers as ::ffff:a.b.c.d.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in each for each in self._ranges)
