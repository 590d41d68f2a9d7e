"""What can go wrong with a fake engine, on command: over HTTP under `/sim/`, or by methods."""

from __future__ import annotations

import asyncio
from enum import StrEnum


class Mishap(StrEnum):
    """What happens to one request."""

    FAIL = "fail"
    """It is answered with an error status, before anything is computed."""
    DROP = "drop"
    """The connection is closed once the prompt is computed, before the head of the answer."""
    CUT = "cut"
    """The connection is closed in the middle of the answer."""


class Faults:
    """What goes wrong from now on. For one event loop."""

    def __init__(self) -> None:
        self._going = asyncio.Event()
        self._going.set()
        self._mishaps: list[tuple[Mishap, int]] = []
        self.hangs_everywhere = False
        """`/health` and `/metrics` hang as well."""

    def __repr__(self) -> str:
        said = "going" if self._going.is_set() else "hung"
        return f"<Faults {said}, {len(self._mishaps)} mishaps to come>"

    @property
    def is_hung(self) -> bool:
        """Nothing is computed or said."""
        return not self._going.is_set()

    def hang(self, *, everywhere: bool = True) -> None:
        """Connections are taken and requests read, and nothing comes back. `everywhere` False: its
        probes are answered all the same, as by a server whose engine is stuck.
        """
        self.hangs_everywhere = everywhere
        self._going.clear()

    def go(self) -> None:
        """Go on with what hung, and forget what was to come."""
        self._mishaps.clear()
        self._going.set()

    def expect(self, mishap: Mishap, times: int = 1, status: int = 503) -> None:
        """The next `times` requests for an answer meet with it; `status` is that of `FAIL`."""
        self._mishaps.extend([(mishap, status)] * times)

    def next(self) -> tuple[Mishap | None, int]:
        """What happens to the request that just came."""
        return self._mishaps.pop(0) if self._mishaps else (None, 0)

    async def pass_by(self, *, probe: bool = False) -> None:
        """Wait while it hangs."""
        if not probe or self.hangs_everywhere:
            await self._going.wait()
