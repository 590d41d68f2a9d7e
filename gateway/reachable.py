"""Whether requests can be answered at all: the check of upstreams behind /readyz.

Rule 1: only upstreams that the config speaks of count: it sets something of them, or a route names them.
The two that are built in are there for whoever asks; that nobody set them up makes nobody ready.
Rule 2: one of them that can be asked is enough. The others' requests fail or wait, and alerts say so: to
turn all requests away would be worse.
Rule 3: an upstream that is no pool can always be asked: what it answers is known when it has answered.
Rule 4: a pool can be asked while a replica is well by its probes and not draining. Requests that fail there
don't count, or a client that makes replicas fail would take every gateway away with them; but where nobody
listened, nobody is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config import DEFAULT_UPSTREAMS, Upstream
from gateway.server.probes import Check
from gateway.upstream.backend import REFUSED, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config import Config
    from gateway.upstream.backend import Backend
    from gateway.upstream.replicas import Replicas

UPSTREAMS = "upstreams"
"""The check that must hold."""
_NOBODY_THERE = frozenset({REFUSED, "unreachable"})


class Reachable:
    """Looks at the pools of a config, and asks nobody: the time is that of a glance at each pool."""

    def __init__(self, config: Config, pools: Mapping[str, Replicas]) -> None:
        """`pools` are those of now, by the names of their upstreams."""
        self._pools = pools
        self._counted = _counted(config)

    def __repr__(self) -> str:
        return f"<Reachable {', '.join(sorted(self._counted)) or 'whatever is asked for'}>"

    def turn(self, config: Config) -> None:
        """Another config holds."""
        self._counted = _counted(config)

    def checks(self) -> dict[str, Check]:
        """`upstreams`, which must hold, and beside it each pool that counts, as `pool NAME`."""
        found = {
            name: any(map(_there, self._pools[name]))
            for name in self._counted
            if name in self._pools
        }
        ok = len(found) < len(self._counted) or any(found.values()) or not found
        told = {f"pool {name}": Check(ok=found[name], required=False) for name in sorted(found)}
        return {UPSTREAMS: Check(ok=ok, required=True), **told}


def _counted(config: Config) -> frozenset[str]:
    routed = {route.upstream for route in config.routes}
    return frozenset(
        name
        for name, upstream in config.upstreams.items()
        if name in routed
        or name not in DEFAULT_UPSTREAMS
        or upstream != Upstream.model_validate(DEFAULT_UPSTREAMS[name])
    )


def _there(backend: Backend) -> bool:
    if backend.draining or not backend.healthy:
        return False
    return backend.state is not State.EJECTED or backend.failure not in _NOBODY_THERE
