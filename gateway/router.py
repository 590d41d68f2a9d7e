"""The replicas of one pool and what is known of them: `Router` says who gets a request, and learns.

Rule 1: `core.affinity` decides. What goes wrong in it costs its advice, not the request: then each
replica gets one in turn.
Rule 2: what has no prompt goes wherever there is least to do.
Rule 3: what a replica keeps (a response that the next one continues) is asked for there alone.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
import xxhash

from gateway.core.route import Branch, Candidate
from gateway.core.route_records import RecordKind, RouteRecord
from gateway.errors import UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.cache import Clock
    from gateway.core.affinity import Affinity
    from gateway.core.model import Answer, Usage
    from gateway.core.route import Placement, RouteTicket
    from gateway.journey import Journey
    from gateway.upstream.backend import Backend
    from gateway.upstream.replicas import Replicas

_log = structlog.get_logger("warmgate.routing")

_LOG_EVERY_S = 60.0
_MOST_OWNERS = 100_000
# So many answers that should have come from the cache, and none that says so, are no accident.
_SILENT_AFTER = 8
_WORTH_TELLING = 512

_TOLD_BY = {
    "vllm": "start it with --enable-prompt-tokens-details",
    "sglang": "start it with --enable-cache-report",
    "llamacpp": "its server states `timings.cache_n` since 2025: update it",
}
_NOT_TOLD = "it has to state `usage.prompt_tokens_details.cached_tokens`"


class Route(NamedTuple):
    """Where one request may go."""

    order: Sequence[Backend]
    """The best first; never empty."""
    branch: Branch
    """Of the first."""
    placement: Placement | None = None
    """None where its prompt says nothing."""


class Router:
    """One pool. For one event loop."""

    def __init__(
        self, replicas: Replicas, affinity: Affinity, clock: Clock, dice: Callable[[], float]
    ) -> None:
        """`dice` gives numbers from 0 up to 1."""
        self.replicas = replicas
        self.affinity = affinity
        self.tell: Callable[[RouteRecord], None] | None = None
        """Tells other gateways what is placed here."""
        self.gateway = 0
        """Who says so: 64 random bits."""
        self._clock = clock
        self._timer = clock.monotonic
        self._dice = dice
        self._turn = self._number = 0
        self._failures = 0
        self._logged_at = float("-inf")
        # By the digest of its id: which replica made a response.
        self._owners: OrderedDict[int, str] = OrderedDict()
        # The wire APIs on which cached tokens were told: where they never were, 0 says nothing.
        self._tells: set[str] = set()
        self._silent = 0
        self._told_of_silence = False

    def __repr__(self) -> str:
        return f"<Router of {self.replicas!r}, {self._failures} failures>"

    def owner(self, response_id: str) -> str:
        """The replica that made this response, as far as is remembered."""
        return self._owners.get(_short(response_id), "")

    def route(self, journey: Journey) -> Route:
        """Who may get this request, the best first. Raises `UpstreamUnreachable` without replicas."""
        if journey.only is not None:
            return self._bound(journey, (journey.only,), Branch.HOME)
        self.replicas.asked(self._timer())
        usable = self.replicas.usable()
        if not usable:
            raise UpstreamUnreachable(
                f"upstream {self.replicas.name!r} has no replica that could be asked"
            )
        if journey.owner:
            home = [each for each in usable if each.name == journey.owner]
            others = [each for each in self._by_load(usable) if each.name != journey.owner]
            branch = Branch.HOME if home else Branch.MOVED_HEALTH
            return self._bound(journey, (*home, *others), branch)
        if not journey.api:
            return Route(self._by_load(usable), Branch.SPREAD)
        placement = self._placed(journey, usable)
        if placement is None:
            self._turn += 1
            at = self._turn % len(usable)
            return Route((*usable[at:], *usable[:at]), Branch.SPREAD)
        order = [self.replicas[name] for name in placement.order]
        return Route(order, placement.branch, placement)

    def sent(self, journey: Journey, route: Route, backend: Backend) -> None:
        """It goes to this one of them now."""
        backend.in_flight += 1
        backend.asked += 1
        journey.ticket = None
        placement = route.placement
        if placement is None:
            return
        ticket = self._guarded(
            lambda: self.affinity.sent(
                placement, backend.name, self._timer(), streamed=journey.streams
            )
        )
        if ticket is not None:
            self._number += 1
            journey.ticket, journey.number = ticket, self._number
            self._tell(RecordKind.PLACED, journey, ticket)

    def begun(self, journey: Journey) -> None:
        """The first byte of its answer came."""
        ticket = journey.ticket
        if ticket is not None:
            self._guarded(lambda: self.affinity.begun(ticket, self._timer()))
            self._tell(RecordKind.BEGUN, journey, ticket)

    def over(self, journey: Journey) -> None:
        """All is known of it. Where no answer began, there may be nothing of its prompt."""
        ticket, journey.ticket = journey.ticket, None
        if ticket is not None:
            failed = ticket.began_at is None
            self._guarded(lambda: self.affinity.over(ticket, self._timer(), failed=failed))
            self._tell(RecordKind.OVER, journey, ticket)

    def learn(self, journey: Journey, answer: Answer | None) -> None:
        """It is over. What the answer says; None: there was none that could be read."""
        if answer is not None and answer.response_id and journey.api == "openai_responses":
            self._own(_short(answer.response_id), journey.backend)
            self._tell_made(answer.response_id, journey)
        self._reported(journey, answer.usage if answer is not None else None)
        self.over(journey)

    def heard(self, record: RouteRecord) -> None:
        """What another gateway did, or this one before it was started anew."""
        if record.kind is RecordKind.MADE:
            self._own(record.session, record.backend)
            return
        age_s = self._clock.now() - record.at
        self._guarded(lambda: self.affinity.heard(record, self._timer(), max(0.0, age_s)))

    def shares(self, does: bool) -> None:
        """Whether what other gateways place is heard."""
        self.affinity.shares = does

    def _tell(self, kind: RecordKind, journey: Journey, ticket: RouteTicket) -> None:
        tell = self.tell
        if tell is None:
            return
        record = RouteRecord(kind, self.gateway, journey.number, ticket.backend, self._clock.now())
        if kind is RecordKind.PLACED:
            wish = ticket.placement.wish
            record = record._replace(
                trail=wish.trail,
                session=wish.session,
                uncached=ticket.uncached,
                streamed=ticket.streamed,
            )
        self._guarded(lambda: tell(record))

    def _tell_made(self, response_id: str, journey: Journey) -> None:
        tell = self.tell
        if tell is not None:
            now, digest = self._clock.now(), _short(response_id)
            kind, number = RecordKind.MADE, journey.number
            record = RouteRecord(kind, self.gateway, number, journey.backend, now, session=digest)
            self._guarded(lambda: tell(record))

    def _reported(self, journey: Journey, usage: Usage | None) -> None:
        ticket = journey.ticket
        if ticket is None or usage is None:
            return
        if usage.cache_read:
            self._tells.add(journey.api)
        told = journey.api in self._tells
        if not told and ticket.expected >= _WORTH_TELLING:
            self._is_silent()
        cached = usage.cache_read if told else None
        self._guarded(lambda: self.affinity.learn(ticket, usage.input, cached))

    def rehearsed(self, journey: Journey) -> dict[str, Any]:
        """Where the request would go now, and what is thought of each replica: plain JSON values.
        Nothing is changed by asking.
        """
        usable = self.replicas.usable()
        now = self._timer()
        told: dict[str, Any] = {
            "policy": self.replicas.settings.policy.value,
            "backend": None,
            "affinity": None,
            "usable": [each.name for each in usable],
        }
        if not usable:
            return told
        placement: Placement | None = self._guarded(
            lambda: self.affinity.place(
                journey.wish, self.candidates(usable), now, self._dice(), rehearsed=True
            )
        )
        if placement is None or not placement.order:
            return told
        backend, branch = placement.order[0], placement.branch
        if journey.owner:
            is_there = any(each.name == journey.owner for each in usable)
            backend = journey.owner if is_there else backend
            branch = Branch.HOME if is_there else Branch.MOVED_HEALTH
        trail = journey.wish.trail
        return {
            **told,
            "backend": backend,
            "affinity": branch.value,
            "steps": len(trail.prints),
            "tokens": trail.tokens,
            "shared_tokens": trail.until(min(placement.head, len(trail.prints))),
            "held_tokens": trail.until(placement.held) if backend == placement.order[0] else None,
            "session": bool(journey.wish.session),
            "backends": self.told(),
        }

    def prefill_s(self, backend: str, tokens: int) -> float | None:
        """About how long the replica would compute so many tokens, as the engine counts them; None:
        nobody has timed it, and the config doesn't say.
        """
        told: float | None = self._guarded(lambda: self.affinity.prefill_s(backend, tokens))
        return told

    def told(self) -> dict[str, dict[str, Any]]:
        """By replica: what is thought of it, and how much it is doing."""
        now = self._timer()
        known: dict[str, dict[str, Any]] = self._guarded(lambda: self.affinity.told(now)) or {}
        return {
            each.name: {
                **known.get(each.name, {}),
                "ready": int(each.ready_at(now)),
                "in_flight": each.in_flight,
                "requests": each.asked,
                "state": each.state.value,
            }
            for each in self.replicas
        }

    # --- how ------------------------------------------------------------------------------------

    def candidates(self, usable: Sequence[Backend]) -> list[Candidate]:
        """The same as the decision takes them."""
        return [Candidate(each.name, each.weight, each.in_flight) for each in usable]

    def _placed(self, journey: Journey, usable: Sequence[Backend]) -> Placement | None:
        found = self._guarded(
            lambda: self.affinity.place(
                journey.wish, self.candidates(usable), self._timer(), self._dice()
            )
        )
        return found if found is not None and found.order else None

    def _bound(self, journey: Journey, order: Sequence[Backend], branch: Branch) -> Route:
        """To these, whatever the prompt says; what becomes of it is noted all the same."""
        placement = self._placed(journey, order[:1]) if journey.api else None
        return Route(order, branch, placement)

    def _by_load(self, usable: Sequence[Backend]) -> list[Backend]:
        # (The dice once for all: several of equal load come in any order.)
        start = int(self._dice() * len(usable))
        turned = [*usable[start:], *usable[:start]]
        return sorted(turned, key=lambda each: (each.in_flight + 1) / each.weight)

    def _own(self, key: int, backend: str) -> None:
        self._owners[key] = backend
        self._owners.move_to_end(key)
        if len(self._owners) > _MOST_OWNERS:
            self._owners.popitem(last=False)

    def _is_silent(self) -> None:
        self._silent += 1
        if self._silent < _SILENT_AFTER or self._told_of_silence:
            return
        self._told_of_silence = True
        engine = self.replicas.engine
        _log.warning(
            "the engine does not tell how many prompt tokens it had cached: what its replicas hold "
            "is guessed, not corrected",
            upstream=self.replicas.name,
            engine=engine,
            mend=_TOLD_BY.get(engine, _NOT_TOLD),
        )

    def _guarded(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception:  # noqa: BLE001 - advice less; the request goes on
            self._failures += 1
            now = self._timer()
            if now - self._logged_at >= _LOG_EVERY_S:
                self._logged_at = now
                _log.exception(
                    "routing failed", upstream=self.replicas.name, failures=self._failures
                )
            return None


def _short(response_id: str) -> int:
    return xxhash.xxh3_64_intdigest(response_id.encode("utf-8", "surrogateescape"))
