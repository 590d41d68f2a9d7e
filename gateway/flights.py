"""The calls that are on their way, by what they ask: where others find them.

For one process and one event loop. Another place to board (a lock in Redis, say) would stand behind
`start` and `find`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import structlog

from gateway.errors import GatewayError, let_go
from gateway.flight import Flight

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from typing import Any

    from gateway.background import Background
    from gateway.budget import Budget
    from gateway.core.model import Ask

_log = structlog.get_logger("warmgate.flights")

# Calls that have just ended; a lookup takes milliseconds.
_REMEMBERED = 4096


class Flights:
    """The calls that are on their way, by what they ask."""

    def __init__(self, background: Background, limit_bytes: int, budget: Budget) -> None:
        """`background` owns the calls; each keeps at most about `limit_bytes` of its answer, all
        together what `budget` has room for.
        """
        self._background = background
        self._budget = budget
        self.limit_bytes = limit_bytes
        self._flights: dict[bytes, Flight] = {}
        self._landings = 0
        self._gone: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def waiters(self) -> int:
        """How many requests share a call that another one makes. May be asked from any thread."""
        return sum(max(0, each.aboard - 1) for each in tuple(self._flights.values()))

    @property
    def landings(self) -> int:
        """How many have gone from the table."""
        return self._landings

    def landed_since(self, landings: int, key: bytes) -> bool:
        """Whether one under this key has gone since there were so many."""
        return self._gone.get(key, -1) >= landings

    def find(self, key: bytes) -> Flight | None:
        """The call on its way under this key, if it can be boarded."""
        flight = self._flights.get(key)
        return flight if flight is not None and flight.open else None

    def start(
        self,
        key: bytes,
        who: bytes,
        ask: Ask,
        fly: Callable[[Flight], Coroutine[Any, Any, bool]],
    ) -> Flight | None:
        """A new call under the key for the first who asks, flown by `fly`; None when there is no room for its task.

        `fly` says whether the flight is to be found until `remove` (its answer is being written
        where a lookup would find it), or goes from the table when it lands.
        """
        flight = Flight(who, ask, self.limit_bytes, self._budget.share(optional=True))

        def started(pilot: asyncio.Task[None]) -> None:
            flight.piloted_by(pilot)
            # A task that is cancelled before its first step never comes to its `finally`.
            pilot.add_done_callback(lambda _: self._land(key, flight, stays=flight.landed))

        if not self._background.spawn(self._fly(key, flight, fly), "flight", started):
            return None
        self._flights[key] = flight
        return flight

    def remove(self, key: bytes, flight: Flight) -> None:
        """It is not to be found any more."""
        if self._flights.get(key) is flight:
            del self._flights[key]
            self._gone[key] = self._landings
            self._gone.move_to_end(key)
            if len(self._gone) > _REMEMBERED:
                self._gone.popitem(last=False)
            self._landings += 1
        flight.unlisted()

    async def _fly(
        self, key: bytes, flight: Flight, fly: Callable[[Flight], Coroutine[Any, Any, bool]]
    ) -> None:
        stays = False
        try:
            stays = await fly(flight)
        except GatewayError as error:
            let_go(error)
            flight.fail(error)
        except Exception:  # noqa: BLE001 - all who wait get an answer whatever it was
            _log.exception("a shared call failed")
            flight.fail(GatewayError("the gateway failed; its log has the details"))
        finally:
            self._land(key, flight, stays=stays)

    def _land(self, key: bytes, flight: Flight, *, stays: bool = False) -> None:
        flight.land()
        if not stays:
            self.remove(key, flight)
