"""The end of serving: what runs may finish, nothing new begins, and nobody's request is lost on the way.

Rule 1: connections that are there are used to their end: the next request on one is answered, and the
answer says that it closes (so that what was sent behind it, unasked, is not answered). One that nobody uses is closed only after a while: a request may be on its way to it.
Rule 2: who connects anew is refused in words: 503, `Retry-After`, `Connection: close`. A port that is
deaf would be an error of the network, which not every client tries again.
Rule 3: it ends: when nothing runs and nobody is left, at the deadline, or at once when told to `cut`.

aiohttp's own shutdown deafens every connection first, busy ones included: an upload would never
end, and a tunnel would lose what its client says. So we wait before it, with open ears.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from gateway.server.listener import Connection, Listener
    from gateway.server.probes import Readiness

_log = structlog.get_logger("warmgate.drain")

# How often is looked for connections that nobody uses; and how often at most, however many end.
_LOOK_S = 0.25
_LOOK_LEAST_S = 0.02


class Drain:
    """Ends the serving of one listener. For one event loop."""

    def __init__(
        self, listener: Listener, readiness: Readiness, *, delay_s: float, idle_s: float
    ) -> None:
        """`readiness` says that it began. For `delay_s` new connections are still taken: time for balancers to look elsewhere, where
        nobody else gives it to them. A connection that is not used for `idle_s` is closed.
        """
        self._listener = listener
        self._readiness = readiness
        self._delay_s = delay_s
        self._idle_s = idle_s
        self._begun_at: float | None = None
        self._changed = asyncio.Event()
        self._cut = asyncio.Event()
        # Since when each connection is not used, by the loop's clock.
        self._idle: dict[Connection, float] = {}

    def __repr__(self) -> str:
        return f"<Drain {self.busy} busy{', draining' if self.begun else ''}>"

    @property
    def begun(self) -> bool:
        """There is no way back."""
        return self._begun_at is not None

    @property
    def busy(self) -> int:
        """Requests that are being answered, or about to be."""
        return sum(each.busy for each in self._listener.open)

    @property
    def connections(self) -> int:
        """Open ones."""
        return len(self._listener.open)

    def begin(self) -> None:
        """From now on answers say that their connection closes. Again: nothing."""
        if self._begun_at is not None:
            return
        loop = asyncio.get_running_loop()
        self._begun_at = loop.time()
        _log.info("draining", requests=self.busy, connections=self.connections)
        self._readiness.drain()
        self._listener.leave()
        self._listener.on_closed = self._changed.set
        if self._delay_s:
            loop.call_later(self._delay_s, self._listener.refuse_newcomers)
        else:
            self._listener.refuse_newcomers()

    def cut(self) -> None:
        """Wait for nothing any more."""
        self._cut.set()
        self._changed.set()

    async def drain(self, timeout_s: float) -> bool:
        """Begin, if nobody has; then wait until nothing runs and nobody is left. False when some
        still run after `timeout_s`, beside the delay, or when it was cut.
        """
        self.begin()
        assert self._begun_at is not None
        clock = asyncio.get_running_loop().time
        if (left := self._begun_at + self._delay_s - clock()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._cut.wait()
        until = clock() + timeout_s
        while not self._cut.is_set():
            # What lies in the sockets is read before anything is closed.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self._changed.clear()
            self._look(clock())
            if all(each.late and not each.busy for each in self._listener.open):
                return True
            if (left := until - clock()) <= 0:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _LOOK_S)):
                    await self._changed.wait()
                    await asyncio.sleep(_LOOK_LEAST_S)
        return not self.busy

    def _look(self, now: float) -> None:
        """Close what is not used."""
        # Newcomers have something to ask, and are answered that they are not: nobody waits for them.
        idle = [each for each in self._listener.open if not (each.busy or each.late)]
        self._idle = {each: self._idle.get(each, now) for each in idle}
        for each, since in self._idle.items():
            # (The head of a request that comes in pieces is no silence.)
            if now - max(since, each.heard_at) >= self._idle_s:
                each.force_close()
