"""Every address behind the config's upstreams: what each is called, and what it is asked with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from gateway.config import DEFAULT_UPSTREAMS, Upstream
from gateway.config.pools import default_name, is_pool
from gateway.doctorcmd.reach import Place, Unreached, resolve
from gateway.upstream.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config import Config
    from gateway.upstream.choice import Endpoint

MOST_REPLICAS = 32
"""Of one pool that are asked."""
_ANTHROPIC_VERSION = "2023-06-01"


class Asked(NamedTuple):
    """One upstream of the config."""

    name: str
    endpoint: Endpoint
    upstream: Upstream
    meant: bool
    """The config speaks of it: it sets something of it, or a route names it."""

    @property
    def is_pool(self) -> bool:
        """Has it replicas?"""
        return self.endpoint.pool

    def headers(self) -> dict[str, str]:
        """What goes with every question: the configured credential, as the gateway sends it."""
        found: dict[str, str] = {}
        key, header = self.endpoint.api_key, self.endpoint.provider.credential_header
        if key is not None:
            found[header] = f"Bearer {key}" if header == "authorization" else key
        if self.endpoint.provider.name == "anthropic":
            found["anthropic-version"] = _ANTHROPIC_VERSION
        return found


class Replica(NamedTuple):
    """One address of an upstream."""

    check: str
    """`upstream.NAME`, or `upstream.NAME.REPLICA` in a pool."""
    base: Place

    def page(self, url: str) -> Place:
        """Another URL at the same server."""
        return Place(url, self.base.authority)


def upstreams(config: Config) -> Iterator[Asked]:
    """All of them."""
    endpoints = Choice(config).endpoints
    routed = {route.upstream for route in config.routes}
    for name, upstream in config.upstreams.items():
        default = DEFAULT_UPSTREAMS.get(name)
        meant = default is None or name in routed or upstream != Upstream.model_validate(default)
        yield Asked(name, endpoints[name], upstream, meant)


async def replicas(asked: Asked, timeout_s: float) -> list[Replica]:
    """Its addresses, those of DNS as they are now. Raises `Unreached` where there are none."""
    check = f"upstream.{asked.name}"
    if not is_pool(asked.upstream.model_dump(include={"backends", "dns"})):
        return [Replica(check, Place(asked.endpoint.base_url))]
    found = [
        Replica(f"{check}.{each.named()}", Place(each.url)) for each in asked.upstream.backends
    ]
    dns = asked.upstream.dns
    if dns is not None:
        try:
            addresses = await resolve(urlsplit(dns).hostname or "", timeout_s)
        except Unreached:
            if not found:
                raise
            addresses = ()
        places = [_at(dns, address) for address in addresses if "%" not in address]
        found += [Replica(f"{check}.{default_name(each.url)}", each) for each in places]
    return found


def _at(url: str, address: str) -> Place:
    parts = urlsplit(url)
    shown = f"[{address}]" if ":" in address else address
    port = f":{parts.port}" if parts.port else ""
    return Place(f"{parts.scheme}://{shown}{port}{parts.path}", parts.netloc)
