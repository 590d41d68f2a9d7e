"""Requests that other gateways have at our replicas: `Elsewhere`.

They count as waiting from when they are heard of until it is heard that they have begun to answer,
for `FOREIGN_S` at most: who says nothing more has gone, or isn't heard.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.route_records import RecordKind

if TYPE_CHECKING:
    from gateway.core.route_fleet import Fleet
    from gateway.core.route_records import RouteRecord
    from gateway.core.route_replica import Replica
    from gateway.core.shared_head import SharedHead
    from gateway.core.trail import Trail

FOREIGN_S = 120.0
MOST_FOREIGN = 1 << 15


class _Foreign(NamedTuple):
    """A request that another gateway sent."""

    replica: Replica
    stamp: int
    at: float
    trail: Trail


class Elsewhere:
    """Of one pool."""

    def __init__(self, fleet: Fleet, shared: SharedHead) -> None:
        self._fleet = fleet
        self._shared = shared
        self._requests: OrderedDict[tuple[int, int], _Foreign] = OrderedDict()

    def __len__(self) -> int:
        """Requests that are not over."""
        return len(self._requests)

    def knows(self, record: RouteRecord) -> bool:
        """Its request was heard of, and isn't over."""
        return (record.gateway, record.number) in self._requests

    def placed(self, record: RouteRecord, replica: Replica, stamp: int, at: float) -> None:
        """It was sent at that time, which may be over."""
        fleet, tokens = self._fleet, record.uncached
        replica.asked(tokens, at)
        rate, tells = fleet.rate_of(replica), record.streamed
        replica.backlog.sent(stamp, tokens, at, rate, tells=tells, watched=False)
        key = (record.gateway, record.number)
        self._requests[key] = _Foreign(replica, stamp, at, record.trail)
        if len(self._requests) > MOST_FOREIGN:
            self._over(next(iter(self._requests)), at)

    def changed(self, record: RouteRecord, now: float) -> None:
        """It has begun to answer, or is over."""
        key = (record.gateway, record.number)
        foreign = self._requests.get(key)
        if foreign is None:
            return
        if record.kind is RecordKind.OVER:
            self._over(key, now)
            return
        replica = foreign.replica
        replica.unbegun.discard(foreign.stamp)
        replica.backlog.begun(foreign.stamp, now, self._fleet.rate_of(replica))

    def expire(self, now: float) -> None:
        """Let go of those that have not been heard of for too long."""
        while self._requests:
            key, oldest = next(iter(self._requests.items()))
            if now - oldest.at < FOREIGN_S:
                return
            self._over(key, now)

    def _over(self, key: tuple[int, int], now: float) -> None:
        foreign = self._requests.pop(key)
        replica = foreign.replica
        self._shared.answered(foreign.trail)
        replica.unbegun.discard(foreign.stamp)
        replica.backlog.gone(foreign.stamp, now, self._fleet.rate_of(replica))
        replica.mirror.done(foreign.stamp)
