"""Prompts that the config names, written into their providers' caches before anybody asks for them: at
the start, and again each interval.

Rule 1: only with the credential that the config has for the upstream.
Rule 2: nobody waits for it but, for a bounded time, the gateway's readiness.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from gateway.errors import UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from gateway.prefill import DENIED, OK
from gateway.telemetry.tracebacks import kind
from gateway.wire.table import APIS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config import Config, WarmUp
    from gateway.prefill import Prefill
    from gateway.upstream.choice import Choice, Endpoint

_log = structlog.get_logger("warmgate.warming")

# Failures that pass: the next try comes soon, the one after it after twice as long.
_PASSING = frozenset(
    (
        *("408", "409", "425", "429", "500", "502", "503", "504", "529", "timeout"),
        *(UpstreamUnreachable.code, UpstreamBroken.code, UpstreamTimeout.code),
    )
)
_RETRY_S = 5.0
_LONGEST_RETRY_S = 300.0


class _Kept:
    """One warm-up that is kept."""

    def __init__(
        self, warm: WarmUp, place: int, endpoint: Endpoint | None, told: Callable[[], None]
    ) -> None:
        self.warm = warm
        self.name = warm.name or str(place)
        self.endpoint = endpoint
        self.body: dict[str, Any] = {}
        self.told = told
        self.task: asyncio.Task[None] | None = None

    def tell(self) -> None:
        """It has been tried, or nobody will: told once."""
        told, self.told = self.told, _nothing
        told()

    def is_same(self, other: _Kept) -> bool:
        """The same prompt, to the same place with the same credential."""
        one, two = self.endpoint, other.endpoint
        return (
            one is not None
            and two is not None
            and (self.warm, self.body, one.identity, one.api_key)
            == (other.warm, other.body, two.identity, two.api_key)
        )


class Warming:
    """Owns one task for each warm-up. For one event loop."""

    def __init__(self, config: Config, choice: Choice, prefill: Prefill) -> None:
        self._warm = config.warm
        self._ready_within_s = config.prompt_cache.warm_timeout_s
        self._choice = choice
        self._prefill = prefill
        self._kept: list[_Kept] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._done = asyncio.Event()
        """The warm-ups of the start have been tried, or nobody waits for them any more."""
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Warming, {len(self._kept)} warm-ups, {self._waiting} not done yet>"

    def start(self, ready: Callable[[], None]) -> None:
        """Begin. `ready` is called when the warm-ups of the start are done, in whatever way, or
        have taken `prompt_cache.warm_timeout_s`; at once where there are none.
        """
        first = [each for each in self._warm if each.at_start]
        self._waiting = len(first)
        self._kept = self._wanted(self._one_done)
        for each in self._kept:
            self._begin(each)
        if not first:
            ready()
            return
        self._tasks.append(
            asyncio.get_running_loop().create_task(self._tell(ready), name="warm: ready")
        )

    def turn(self, config: Config, choice: Choice, prefill: Prefill) -> None:
        """Another config holds: who is kept by it as before goes on, others begin or end."""
        self._warm, self._choice, self._prefill = config.warm, choice, prefill
        before, self._kept = self._kept, []
        for wanted in self._wanted(_nothing):
            same = next((each for each in before if each.is_same(wanted)), None)
            if same is None:
                self._begin(wanted)
                self._kept.append(wanted)
            else:
                before.remove(same)
                self._kept.append(same)
        for each in before:
            each.tell()
            if each.task is not None and not each.task.done():
                each.task.cancel()

    def _wanted(self, told: Callable[[], None]) -> list[_Kept]:
        wanted = []
        for place, warm in enumerate(self._warm):
            endpoint = self._choice.endpoints.get(warm.upstream)
            each = _Kept(warm, place, endpoint, told if warm.at_start else _nothing)
            try:
                # (A short file: reading it takes no thread.)
                each.body = warm.request()
            except (OSError, ValueError) as error:
                _log.error("a warm-up can't be read", warm=each.name, error=kind(error))
            wanted.append(each)
        return wanted

    def _begin(self, each: _Kept) -> None:
        loop = asyncio.get_running_loop()
        each.task = loop.create_task(self._keep(each), name=f"warm {each.name}")
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(each.task)

    def _one_done(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._done.set()

    async def close(self, timeout_s: float) -> None:
        """Begin nothing new; what is being sent has so long to end."""
        self._stopping.set()
        self._done.set()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)
        self._tasks.clear()

    async def _tell(self, ready: Callable[[], None]) -> None:
        try:
            async with asyncio.timeout(self._ready_within_s):
                await self._done.wait()
        except TimeoutError:
            _log.warning("ready before all prompts are warm", left=self._waiting)
        ready()

    async def _keep(self, kept: _Kept) -> None:
        warm, name = kept.warm, kept.name
        why, pause_s = "start", 0.0 if warm.at_start else warm.interval_s
        retry_s = _RETRY_S
        if not kept.body:
            kept.tell()
            return
        while warm.at_start or warm.interval_s:
            if pause_s and await self._stops_within(pause_s):
                return
            outcome = await self._send(warm, name, kept.body, why)
            kept.tell()
            if outcome in DENIED or (outcome not in _PASSING and not warm.interval_s):
                return
            why, pause_s = "interval", warm.interval_s
            if outcome in _PASSING:
                pause_s = min(retry_s, warm.interval_s or retry_s)
                retry_s = min(_LONGEST_RETRY_S, 2 * retry_s)
            else:
                retry_s = _RETRY_S

    async def _stops_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def _send(self, warm: WarmUp, name: str, body: dict[str, Any], why: str) -> str:
        endpoint: Endpoint = self._choice.endpoints[warm.upstream]
        outcome, usage = await self._prefill.write(
            endpoint,
            APIS[warm.path].route,
            orjson.dumps(body),
            why=why,
            hold_s=warm.interval_s,
            timeout_s=warm.timeout_s,
        )
        if outcome != OK:
            _log.warning("a prompt could not be warmed", warm=name, outcome=outcome)
            return outcome
        _log.info(
            "a prompt is warm",
            warm=name,
            read=usage.cache_read if usage else None,
            written=usage.cache_write_5m + usage.cache_write_1h if usage else None,
        )
        return outcome


def _nothing() -> None:
    """Told to nobody."""
