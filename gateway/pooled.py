"""One pool as its requests need it: who decides, what is hot in it, and who waits for which replica."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.hot import Hot

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.route import Branch
    from gateway.journey import Journey
    from gateway.routed import Routed
    from gateway.router import Router
    from gateway.telemetry.metrics import Metrics
    from gateway.upstream.backend import Backend
    from gateway.upstream.client import UpstreamClient


class Pooled:
    """One pool as its requests need it."""

    def __init__(
        self, router: Router, client: UpstreamClient, metrics: Metrics, timer: Callable[[], float]
    ) -> None:
        self.router = router
        self.client = client
        self.timer = timer
        self._metrics = metrics.route
        self.hot = Hot()
        self.welcome: Callable[[Pooled, Backend], None] = _at_once
        self._waiting: dict[str, set[Routed]] = {}
        self._emptied_at: dict[str, float] = {}

    @property
    def pins(self) -> bool:
        """It is said in which slot a prompt should be computed."""
        replicas = self.router.replicas
        return replicas.routing.pin_slots and replicas.engine == "llamacpp"

    def watch(self) -> None:
        """Hear of replicas that come, go, fail, and begin anew."""
        replicas, affinity = self.router.replicas, self.router.affinity
        for each in replicas:
            affinity.joined(each.name)
        replicas.on_joined = lambda backend: affinity.joined(backend.name)
        replicas.on_left = self.left
        replicas.on_unhealthy = lambda backend: self.hangs(backend.name)
        replicas.on_emptied = self.emptied

    def emptied(self, backend: Backend) -> None:
        """Its cache is empty, and it waits to be warmed."""
        self._emptied_at[backend.name] = self.timer()
        self.router.affinity.emptied(backend.name)
        self.welcome(self, backend)

    def left(self, backend: Backend) -> None:
        """It is gone for good."""
        self._emptied_at.pop(backend.name, None)
        self.router.affinity.left(backend.name)

    def began_anew(self, name: str, since: float) -> None:
        """Its own figures show that its cache was emptied since then; probes may have said so already,
        and it may have been warmed.
        """
        if self._emptied_at.get(name, float("-inf")) < since:
            self.router.replicas.restarted(name)

    def counted(self, branch: Branch) -> None:
        """A request goes out by this branch."""
        self._metrics.sent(self.router.replicas.name, branch)

    def retried(self, journey: Journey, backend: Backend, reason: str) -> None:
        """It failed there, and goes to the next."""
        self._metrics.retried(self.router.replicas.name, reason)
        if journey.exchange is not None:
            journey.exchange.rerouted(backend.name, reason)

    def waiting(self, backend: str, routed: Routed) -> None:
        """It waits for the head of an answer."""
        self._waiting.setdefault(backend, set()).add(routed)

    def waited(self, backend: str, routed: Routed) -> None:
        """Not any more."""
        waiting = self._waiting[backend]
        waiting.discard(routed)
        if not waiting:
            del self._waiting[backend]

    def hangs(self, backend: str) -> None:
        """It answers no probes: what it has not begun to answer goes elsewhere, if anybody is well.
        Where all are slow, waiting costs less than asking for everything anew.
        """
        if not any(each.ready for each in self.router.replicas):
            return
        for routed in tuple(self._waiting.get(backend, ())):
            routed.abandon()


def _at_once(_: Pooled, backend: Backend) -> None:
    """Nobody warms anything."""
    backend.warmed()
