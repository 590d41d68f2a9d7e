"""The replicas of one pool: who is there, who may be asked, and who comes and goes.

Rule 1: who may be asked is known without asking anybody: what changes it, changed it before.
Rule 2: where nobody is ready, whoever isn't draining is tried: better than to refuse.
Rule 3: nobody is taken away from a request that runs: who goes gets no new ones, and is forgotten when
the last has ended.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from gateway.config.pools import MOST_REPLICAS, Health, Routing, default_name, same_address
from gateway.core.route import RoutePolicy
from gateway.upstream.backend import Backend, Change, Source, State
from gateway.upstream.choice import replica_endpoint
from gateway.upstream.pool_settings import patience_s, settings_of
from gateway.upstream.retry_budget import RetryBudget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gateway.config import Upstream
    from gateway.upstream.choice import Endpoint

_log = structlog.get_logger("warmgate.pools")

MOST = MOST_REPLICAS
"""Replicas in one pool: what is beyond is not used, and said so."""
# Who is told by their probes to be gone too, and by this many empty answers in a row, is.
_EMPTY_ANSWERS = 3


class Unfit(ValueError):
    """A replica that can't be added so; `field` says what is wrong with it."""

    def __init__(self, field: str, problem: str) -> None:
        """Both are told to the operator."""
        super().__init__(f"{field}: {problem}")
        self.field = field


class Replicas:
    """The backends of one pool, by name.

    For each request of a client: `asked`, then a choice among `usable`, then `in_flight += 1` on the
    backend from send to last byte (`-= 1`), and `succeeded` or `failed` on it as soon as either is known.
    To send it to another one after a failure, `may_retry` must say yes.
    """

    def __init__(
        self, name: str, upstream: Upstream, endpoint: Endpoint, monotonic: Callable[[], float]
    ) -> None:
        """`endpoint` is the pool's; `monotonic` gives seconds. What the config lists is there at once,
        and no hook hears of it.
        """
        self.name = name
        self.engine = endpoint.engine
        self.dns = upstream.dns
        self._hold(upstream, endpoint)
        self.budget = RetryBudget()
        self.on_joined: Callable[[Backend], None] = _nobody
        """A replica is there that was not there at the start; or DNS told of the first ones."""
        self.on_left: Callable[[Backend], None] = _nobody
        """It is gone for good: nothing of it need stay."""
        self.on_unhealthy: Callable[[Backend], None] = _nobody
        """It fails its probes: who waits there for an answer may well wait for ever."""
        self.on_recovered: Callable[[Backend], None] = _nobody
        """It was unhealthy or ejected, and isn't any more."""
        self.on_emptied: Callable[[Backend], None] = _warm_enough
        """Its cache is empty: it has joined and answers, or it began anew. It gets no requests until
        `backend.warmed()` was called, or `routing.warm_timeout_s` is over (Rule 2 excepted)."""
        self.on_forgotten: Callable[[Endpoint], None] = _nothing
        """Connections that are kept to it can be closed."""
        self.nudge = asyncio.Event()
        """Set when somebody is to be probed soon."""
        self.dns_failure = ""
        """Why the last answer of DNS was of no use; empty where it was."""
        self._monotonic = monotonic
        self._backends: dict[str, Backend] = {}
        # Found by DNS and removed by an operator: not to be found again until DNS forgot them.
        self._unwanted: set[str] = set()
        self._empty_answers = 0
        self._resolved_once = False
        for each in upstream.backends:
            self._put(each.named(), each.url, each.weight, Source.CONFIG)

    def _hold(self, upstream: Upstream, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.routing = upstream.routing or Routing()
        self.health = upstream.health or Health()
        self.dns_interval_s = upstream.dns_interval_s
        self.settings = settings_of(self.routing)
        self.patience_s = patience_s(self.settings)
        """By how much longer than elsewhere a replica may take to begin its answers without being odd."""

    def __repr__(self) -> str:
        flying = sum(each.in_flight for each in self)
        ready = sum(each.ready for each in self)
        return f"<Replicas {self.name}: {ready} of {len(self)} ready, {flying} in flight>"

    def __iter__(self) -> Iterator[Backend]:
        return iter(tuple(self._backends.values()))

    def __len__(self) -> int:
        return len(self._backends)

    def __getitem__(self, name: str) -> Backend:
        return self._backends[name]

    def __contains__(self, name: object) -> bool:
        return name in self._backends

    def has(self, backend: Backend) -> bool:
        """Is it (and not another one of its name) still there?"""
        return self._backends.get(backend.name) is backend

    # --- for each request -------------------------------------------------------------------------

    def asked(self, now: float) -> None:
        """A client's request begins."""
        self.budget.asked(now)

    def may_retry(self, now: float) -> bool:
        """May a failed request go to another replica? At most a fifth of the recent ones, and three."""
        return self.budget.take(now)

    def usable(self) -> Sequence[Backend]:
        """Those to choose from: the ready ones; else those that are well but warming; else whoever is
        not draining. Empty where there is nobody, or all are draining.
        """
        now = self._monotonic()
        everybody = self._backends.values()
        ready = [each for each in everybody if each.ready_at(now)]
        if ready:
            return ready
        left = [each for each in everybody if not each.draining]
        return [each for each in left if each.healthy and not each.ejected] or left

    # --- who is there -----------------------------------------------------------------------------

    def add(
        self, name: str | None, url: str, weight: float = 1.0, source: Source = Source.ADMIN
    ) -> Backend:
        """A replica joins; or one that is there gets another weight, and is no longer draining.

        `url` is a valid base URL. Raises Unfit.
        """
        name = name or default_name(url)
        there = self._backends.get(name)
        if there is None:
            self._fitting(url)
            self._unwanted.discard(name)
            return self._join(name, url, weight, source)
        if same_address(there.endpoint.base_url) != same_address(url):
            raise Unfit("url", f"{name} is {there.endpoint.base_url}; delete that first")
        there.weight = weight
        self.undrain(name)
        return there

    def drain(self, name: str) -> Backend:
        """It gets no more requests. Raises KeyError."""
        backend = self._backends[name]
        backend.draining = True
        return backend

    def undrain(self, name: str) -> Backend:
        """It gets requests again, and stays. Raises KeyError."""
        backend = self._backends[name]
        backend.draining = backend.leaving = False
        self._unwanted.discard(name)
        return backend

    def remove(self, name: str, *, at_once: bool = False) -> Backend:
        """It goes when nothing is in flight there any more; `at_once` forgets it now, though what runs
        ends as it would. Raises KeyError.
        """
        backend = self.drain(name)
        backend.leaving = True
        if backend.source is Source.DNS:
            self._unwanted.add(name)
        if at_once or not backend.in_flight:
            self._leave(backend)
        return backend

    def sweep(self) -> None:
        """Forget who was leaving and has nothing in flight any more."""
        for each in self:
            if each.leaving and not each.in_flight:
                self._leave(each)

    def eject(self, backend: Backend, why: str) -> None:
        """Leave one alone for a while, though its requests didn't fail in a row."""
        backend.failure = why
        # What it did so far has been judged.
        backend.recent.clear()
        backend.eject(self._monotonic())

    def restarted(self, name: str) -> None:
        """It is known from elsewhere that its cache is empty (its counters began anew)."""
        if name in self._backends:
            self._backends[name].known_anew()
            self._emptied(self._backends[name])

    # --- what DNS says ----------------------------------------------------------------------------

    def resolved(self, urls: Mapping[str, str]) -> None:
        """All replicas that DNS knows of now, at least one: base URLs by name."""
        self._empty_answers, self.dns_failure = 0, ""
        self._unwanted &= urls.keys()
        if len(urls) > MOST:
            _log.warning("DNS names more replicas than are used", pool=self.name, most=MOST)
        first, self._resolved_once = not self._resolved_once, True
        for name, url in sorted(urls.items())[:MOST]:
            there = self._backends.get(name)
            if name in self._unwanted:
                continue
            if there is None:
                # Those of the first answer were there before us, as far as anybody knows.
                self._join(name, url, 1.0, Source.DNS, is_new=not first)
            elif there.source is Source.DNS and there.leaving:
                self.undrain(name)
        for each in self:
            if each.source is Source.DNS and each.name not in urls and not each.leaving:
                _log.info("a replica left DNS", pool=self.name, backend=each.name)
                each.draining = each.leaving = True
        self.sweep()

    def unresolved(self, why: str, *, is_empty: bool = False) -> None:
        """DNS gave no addresses. Nobody goes for that alone: `is_empty` says that it gave an answer, and
        after three of those who fails their probes as well is gone.
        """
        if why != self.dns_failure:
            _log.warning("DNS names no replicas", pool=self.name, why=why, kept=len(self))
        self.dns_failure = why
        self._empty_answers = self._empty_answers + 1 if is_empty else 0
        if self._empty_answers >= _EMPTY_ANSWERS:
            for each in self:
                if each.source is Source.DNS and not each.healthy:
                    each.draining = each.leaving = True
            self.sweep()

    # --- what another config says -------------------------------------------------------------------

    def changed(self, before: Upstream, after: Upstream, endpoint: Endpoint) -> None:
        """Other settings hold, and perhaps other replicas are listed. Whoever is listed as before is as
        operators left it.
        """
        self._hold(after, endpoint)
        for each in self:
            at = each.endpoint
            each.held_to(self.health, replica_endpoint(endpoint, at.base_url, at.authority))
        listed = {each.named(): each for each in before.backends}
        wanted = {each.named(): each for each in after.backends}
        for name in listed.keys() - wanted.keys():
            if name in self:
                self.remove(name)
        for name, said in wanted.items():
            if said != listed.get(name):
                self._listed(name, said.url, said.weight)

    def _listed(self, name: str, url: str, weight: float) -> None:
        address = same_address(url)
        for each in self:
            is_there = same_address(each.endpoint.base_url) == address
            if each.name == name and is_there:
                each.weight, each.source = weight, Source.CONFIG
                self.undrain(name)
            elif each.name == name:
                self._leave(each)
            elif is_there:
                # Under a name of an operator's, or of an earlier config.
                self.remove(each.name)
        if name not in self:
            self._join(name, url, weight, Source.CONFIG)

    # --- coming and going -------------------------------------------------------------------------

    def _put(self, name: str, url: str, weight: float, source: Source) -> Backend:
        authority = ""
        if source is Source.DNS and self.dns is not None:
            authority = self.dns.partition("://")[2].partition("/")[0]
        endpoint = replica_endpoint(self.endpoint, url, authority)
        backend = self._backends[name] = Backend(
            name,
            endpoint,
            self.health,
            self._monotonic,
            weight=weight,
            source=source,
            tell=self._changed,
        )
        return backend

    def _join(
        self, name: str, url: str, weight: float, source: Source, *, is_new: bool = True
    ) -> Backend:
        backend = self._put(name, url, weight, source)
        _log.info("a replica joined", pool=self.name, backend=name, source=source.value)
        probed = self.health.interval_s > 0
        if is_new and probed:
            backend.unproven()
        self._hear(self.on_joined, backend)
        if is_new and not probed:
            self._emptied(backend)
        self.nudge.set()
        return backend

    def _fitting(self, url: str) -> None:
        for each in self:
            if same_address(each.endpoint.base_url) == same_address(url):
                raise Unfit("url", f"is the address of {each.name}")
        if len(self) >= MOST:
            raise Unfit("name", f"the pool has {MOST} replicas, and takes no more")
        if self.settings.policy is RoutePolicy.DELEGATE and len(self):
            raise Unfit("url", "with policy delegate there is one address; delete it first")

    def _leave(self, backend: Backend) -> None:
        if self.has(backend):
            del self._backends[backend.name]
            _log.info("a replica left", pool=self.name, backend=backend.name)
            self._hear(self.on_left, backend)
            self.on_forgotten(backend.endpoint)

    def _changed(self, backend: Backend, change: Change) -> None:
        facts = {"pool": self.name, "backend": backend.name}
        match change:
            case Change.UNHEALTHY:
                _log.warning("a replica fails its probes", why=backend.failure, **facts)
                self._hear(self.on_unhealthy, backend)
            case Change.EJECTED:
                for_s = round(backend.ejected_for_s, 3)
                _log.warning("a replica is left alone", why=backend.failure, for_s=for_s, **facts)
            case Change.HEALTHY | Change.RECOVERED:
                _log.info("a replica is well again", **facts)
                self._hear(self.on_recovered, backend)
            case Change.BEGAN_ANEW:
                _log.info("a replica answers, and has an empty cache", **facts)
                self._emptied(backend)

    def _emptied(self, backend: Backend) -> None:
        if self.routing.warm_timeout_s and self.routing.warm_tokens:
            backend.warming(self._monotonic() + self.routing.warm_timeout_s)
        self._hear(self.on_emptied, backend)

    def _hear(self, hook: Callable[[Backend], None], backend: Backend) -> None:
        # What somebody makes of it is no reason to fail a request, or to stop looking.
        try:
            hook(backend)
        except Exception:  # noqa: BLE001
            backend.warmed()
            _log.exception("hearing of a replica failed", pool=self.name, backend=backend.name)

    def told(self) -> dict[str, Any]:
        """All that is known, as plain JSON values."""
        states = [each.state for each in self]
        told: dict[str, Any] = {
            "engine": self.engine,
            "policy": self.settings.policy.value,
            "states": {state.value: states.count(state) for state in State},
            "backends": [each.told() for each in self],
        }
        if self.dns is not None:
            told["dns"] = {"url": self.dns, "failure": self.dns_failure or None}
        return told


def _warm_enough(backend: Backend) -> None:
    """Nobody warms anything."""
    backend.warmed()


def _nobody(_: Backend) -> None:
    """Hears it, and does nothing."""


def _nothing(_: Endpoint) -> None:
    """Keeps nothing that had to be closed."""
