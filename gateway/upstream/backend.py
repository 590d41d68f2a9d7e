"""One replica of a pool: where it is, how much of ours it works on, and whether it is trusted.

Rule 1: whoever is not well gets nothing: probes failed in a row make it unhealthy, requests failed in
a row eject it for a while that doubles.
Rule 2: after that while, one request at a time is let through (half open): it recovers, or is ejected
for twice as long.
Rule 3: what is in flight is counted by those who send, and by nobody else: no probe and no change of
state touches it.
Rule 4: who refused a connection was gone. When it answers again it began anew, with an empty cache.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import aiohttp

from gateway.errors import GatewayError, UpstreamTimeout, UpstreamUnreachable
from gateway.upstream.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config.pools import Health
    from gateway.upstream.choice import Endpoint

REFUSED = "refused"
"""The word for a connection refused: nothing listens there now."""
# 300 s is 10 s doubled five times; the sky is no limit for what is configured.
_MOST_DOUBLINGS = 30


class Source(StrEnum):
    """Who said that a replica is there."""

    CONFIG = "config"
    DNS = "dns"
    ADMIN = "admin"


class State(StrEnum):
    """What a replica is, in one word: for logs, metrics and operators."""

    READY = "ready"
    WARMING = "warming"
    """Well, but its cache is empty: it is being warmed."""
    TRIAL = "trial"
    """It was ejected; the next request decides."""
    EJECTED = "ejected"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"


class Change(StrEnum):
    """What has happened to a replica."""

    UNHEALTHY = "unhealthy"
    HEALTHY = "healthy"
    EJECTED = "ejected"
    RECOVERED = "recovered"
    """The trial went well."""
    BEGAN_ANEW = "began_anew"
    """It answers, and its cache is empty."""


class Backend:
    """One replica. Times are seconds of the pool's clock."""

    __slots__ = (
        *("_bad", "_broken", "_ejected_until", "_ejections", "_floor", "_gone", "_good", "_health"),
        *("_monotonic", "_recovered_at", "_tell", "_warm_by", "asked", "draining", "endpoint"),
        "failure",
        *("failures", "healthy", "in_flight", "leaving", "name", "proven", "recent", "source"),
        "weight",
    )

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        health: Health,
        monotonic: Callable[[], float],
        *,
        weight: float = 1.0,
        source: Source = Source.CONFIG,
        tell: Callable[[Backend, Change], None] | None = None,
    ) -> None:
        """Well until the contrary is known. `tell` hears of changes."""
        self.name = name
        self.endpoint = endpoint
        self.weight = weight
        self.source = source
        self.in_flight = 0
        """Requests between being sent and their last byte; changed by who sends them, only."""
        self.asked = 0
        """Requests that were sent to it so far."""
        self.draining = False
        """It gets no more requests; those that run end as they would."""
        self.leaving = False
        """Draining, and gone when nothing is in flight any more."""
        self.healthy = True
        """What probes say."""
        self.proven = True
        """It has answered since it joined, or was there from the start."""
        self.failures = 0
        """Failed requests in a row."""
        self.failure = ""
        """The short word for the last failure, of a request or a probe."""
        self.recent = Recent()
        self._health = health
        self._monotonic = monotonic
        self._tell = tell or _nobody
        self._good = self._bad = 0
        # Answers in a row that had begun and did not end: that others begin says nothing of that.
        self._broken = 0
        self._gone = False
        self._ejected_until: float | None = None
        self._ejections = 0
        self._recovered_at = 0.0
        # What was in flight already when it was ejected, and still is: anything more is the trial.
        self._floor = 0
        self._warm_by = 0.0

    def __repr__(self) -> str:
        return f"<Backend {self.name} {self.state.value}, {self.in_flight} in flight>"

    @property
    def ready(self) -> bool:
        """Should it get requests now?"""
        return self.ready_at(self._monotonic())

    def ready_at(self, now: float) -> bool:
        """As `ready`, for who asks of many."""
        if self.draining or not self.healthy or self._warm_by > now:
            return False
        return self._ejected_until is None or self._may_try(now)

    @property
    def state(self) -> State:
        """In one word."""
        now = self._monotonic()
        if self.draining:
            return State.DRAINING
        if not self.healthy:
            return State.UNHEALTHY
        if self._ejected_until is not None:
            return State.EJECTED if now < self._ejected_until else State.TRIAL
        return State.WARMING if self._warm_by > now else State.READY

    # --- what requests say ------------------------------------------------------------------------

    def succeeded(self, now: float, head_s: float | None = None) -> None:
        """A request was answered, whatever the client's fault in it; `head_s` is how long its head
        took, where that says something of the replica (a stream, or a short answer).
        """
        self.failures = 0
        self.recent.add(now, failed=False, head_s=head_s)
        if self._ejected_until is not None and now >= self._ejected_until:
            self._ejected_until, self._recovered_at = None, now
            self._tell(self, Change.RECOVERED)
        self._maybe_anew()

    def failed(self, why: str, now: float) -> None:
        """A request failed by the replica's fault; `why` is `failure_of` its error, or `status 503`.
        What the client did, or a 429, says nothing of the replica's health.
        """
        self.failures += 1
        self.failure = why
        self.recent.add(now, failed=True)
        self._gone |= why == REFUSED
        most = self._health.eject_after
        if self._ejected_until is not None:
            # Before that, it fails for those who were sent there earlier, or where nobody is well.
            if now >= self._ejected_until:
                self.eject(now)
        elif most and self.failures >= most:
            self.eject(now)

    def broke_off(self, why: str, now: float) -> None:
        """It failed in the middle of an answer, which had counted as a success when it began."""
        self._broken += 1
        self.failed(why, now)
        most = self._health.eject_after
        if most and self._broken >= most and self._ejected_until is None:
            self.eject(now)

    def ended(self) -> None:
        """An answer came to its end."""
        self._broken = 0

    def eject(self, now: float) -> None:
        """Leave it alone for a while: twice as long as last time, unless it did well since."""
        health = self._health
        if self._ejected_until is None and now - self._recovered_at > health.eject_max_s:
            self._ejections = 0
        doubled = health.eject_s * 2.0 ** min(self._ejections, _MOST_DOUBLINGS)
        self._ejected_until = now + min(health.eject_max_s, doubled)
        self._ejections += 1
        self._floor = self.in_flight
        self._tell(self, Change.EJECTED)

    @property
    def ejected(self) -> bool:
        """It is left alone, or on trial."""
        return self._ejected_until is not None

    @property
    def ejected_for_s(self) -> float:
        """Seconds that it will be left alone yet; 0 where it isn't."""
        return max(0.0, (self._ejected_until or 0.0) - self._monotonic())

    def _may_try(self, now: float) -> bool:
        assert self._ejected_until is not None
        self._floor = min(self._floor, self.in_flight)
        return now >= self._ejected_until and self.in_flight == self._floor

    # --- what probes say --------------------------------------------------------------------------

    def probed(self, why: str | None) -> None:
        """A probe ended: well, or with a short word for why not."""
        if why is None:
            self._bad, self._good = 0, self._good + 1
            if not self.healthy and self._good >= (
                # Who has just been started proves by one answer that it is there.
                self._health.healthy_after if self.proven else 1
            ):
                self.healthy = True
                if self.proven:
                    self._tell(self, Change.HEALTHY)
            self._maybe_anew()
            return
        self._good, self._bad = 0, self._bad + 1
        self.failure = why
        self._gone |= why == REFUSED
        if self.healthy and self._bad >= self._health.unhealthy_after:
            self.healthy = False
            self._tell(self, Change.UNHEALTHY)

    @property
    def in_doubt(self) -> bool:
        """The last probe spoke against what it is taken for: another one soon will tell."""
        return bool(self._bad if self.healthy else self._good)

    # --- an empty cache ---------------------------------------------------------------------------

    def unproven(self) -> None:
        """It has just been named, and may not listen yet: probes must find it first."""
        self.healthy = self.proven = False
        self._gone = True

    def _maybe_anew(self) -> None:
        if self.healthy:
            self.proven = True
            if self._gone:
                self._gone = False
                if self._ejected_until is not None:
                    # What failed there was another process; that it was ejected is not forgotten.
                    self._ejected_until, self._recovered_at = None, self._monotonic()
                self.failures = self._broken = 0
                self._tell(self, Change.BEGAN_ANEW)

    def known_anew(self) -> None:
        """That it began anew is known already, from its own figures: its next answer is no news."""
        self._gone = False

    def warming(self, until: float) -> None:
        """Keep it from taking requests until `warmed`, or until then."""
        self._warm_by = until

    def warmed(self) -> None:
        """It may take requests. Safe to call whenever."""
        self._warm_by = 0.0

    def held_to(self, health: Health, endpoint: Endpoint) -> None:
        """By another config: when it is trusted, and how it is asked where it is. What is known of it
        stays.
        """
        self._health = health
        if endpoint != self.endpoint:
            self.endpoint = endpoint

    def told(self) -> dict[str, Any]:
        """All that is known, as plain JSON values."""
        counts = self.recent.counts(self._monotonic())
        return {
            "name": self.name,
            "url": self.endpoint.base_url,
            "weight": self.weight,
            "source": self.source.value,
            "state": self.state.value,
            "leaving": self.leaving,
            "in_flight": self.in_flight,
            "recent": {"requests": counts.requests, "failed": counts.failed},
            "failures_in_a_row": max(self.failures, self._broken),
            "last_failure": self.failure or None,
            "ejected_for_s": round(self.ejected_for_s, 3),
        }


def failure_of(problem: BaseException) -> str:
    """A short word for why a call failed: `refused`, `unreachable`, `timeout`, `broken`."""
    if isinstance(problem, UpstreamUnreachable):
        cause = problem.__cause__
        refused = isinstance(cause, aiohttp.ClientConnectorError) and isinstance(
            cause.os_error, ConnectionRefusedError
        )
        return REFUSED if refused else "unreachable"
    if isinstance(problem, UpstreamTimeout | TimeoutError):
        return "timeout"
    return "broken" if isinstance(problem, GatewayError) else type(problem).__name__


def _nobody(_: Backend, __: Change) -> None:
    """Hears it, and does nothing."""
