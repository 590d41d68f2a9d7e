"""What was sent, read back and compared with the turn before: that nothing of ours breaks a prefix.

Rule 1: it comes after the answer: it delays nobody, and never fails anything.
Rule 2: both bodies are read from their bytes, as a provider reads them; nothing that was planned is
taken for granted.
Rule 3: it may take a fiftieth of the time, no more. What is not compared is counted.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog

from gateway.core import identity
from gateway.core.plan import PlanReason
from gateway.core.prefix import chain
from gateway.core.prefix import shown as path_shown
from gateway.core.rewrites import Rewrite
from gateway.core.steadiness import Change, Compared, Shown, Steadiness
from gateway.wire.beginnings import Beginnings
from gateway.wire.note_place import note_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from gateway.core.canonical import Json
    from gateway.core.prefix import PrefixBlock
    from gateway.core.steadiness import Drift
    from gateway.planned import Planned
    from gateway.telemetry.metrics import Metrics
    from gateway.turn import Turn
    from gateway.upstream.choice import Choice
    from gateway.wire.beginnings import Reading, Start

_log = structlog.get_logger("warmgate.proving")

# What is shorter is read at once, what is longer than the other is not read at all.
_SHORT_BYTES = 128 * 1024
_LONGEST_BYTES = 4 * 1024 * 1024
_MOST_WAITING = 1
_SHARE = 0.02
_MOST_SAVED_S = 0.2
"""Of time that was not used before."""
_LOG_EVERY_S = 60.0
_MARKERS = "x-gateway-markers"

# Not ours to change, and so not ours to keep the same: the client's word, or nobody's.
_AS_TOLD = frozenset(
    {
        PlanReason.OFF,
        PlanReason.NO_TRANSFORM,
        PlanReason.SIGNED,
        PlanReason.NOT_UNDERSTOOD,
        PlanReason.UNKNOWN_MODEL,
    }
)


class Proving:
    """Compares what was sent with what was sent before. For one event loop."""

    def __init__(
        self,
        *,
        choice: Choice,
        metrics: Metrics,
        timer: Callable[[], float],
        thread: Executor,
        budget_bytes: int,
    ) -> None:
        """`thread` reads what is long; `timer` gives monotonic seconds; about `budget_bytes` are
        remembered.
        """
        self.choice = choice
        self._metrics = metrics
        self._timer = timer
        self._thread = thread
        self._steadiness = Steadiness(budget_bytes // 3)
        self._beginnings = Beginnings(budget_bytes - budget_bytes // 3)
        self._saved_s = _MOST_SAVED_S
        self._saved_at = timer()
        self._waiting = 0
        self._drifts = 0
        self._logged_at = float("-inf")

    def __repr__(self) -> str:
        return f"<Proving by {self._steadiness!r}, {self._drifts} drifts, {self._waiting} waiting>"

    def prove(self, turn: Turn, planned: Planned, domain: bytes) -> None:
        """Compare a turn that a model has answered; `domain` is that of the provider's cache."""
        if not self._concerns(turn, planned):
            return
        longest = max(len(turn.body), len(planned.body))
        if longest > _LONGEST_BYTES or self._waiting >= _MOST_WAITING or not self._has_time():
            self._metrics.prompt_cache.compared(Compared.SKIPPED, planned.provider)
            return
        began = self._timer()
        bodies = [turn.body] if planned.body == turn.body else [turn.body, planned.body]
        # Without rules no text is cut into pieces: what is one block is one to the provider.
        starts = [self._beginnings.begin(turn.api.name, body, None) for body in bodies]
        job = _Job(turn, planned, self._owner(turn, domain), starts)
        if longest <= _SHORT_BYTES:
            self._finish(job, [start.read() for start in starts])
            self._spend(self._timer() - began)
            return
        self._spend(self._timer() - began)
        self._waiting += 1
        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(self._thread, self._read, starts)
        reading.add_done_callback(partial(self._come, job))

    def _concerns(self, turn: Turn, planned: Planned) -> bool:
        """Might we have changed its prompt, on this turn or on another?"""
        if planned.reason in _AS_TOLD:
            return False
        rules = planned.rules
        if planned.reason is PlanReason.FAILED or (rules is not None and rules.takes_markers):
            return True
        return bool(self.choice.prompt_policy(turn.asked, planned.model).rewrites)

    @staticmethod
    def _owner(turn: Turn, domain: bytes) -> bytes:
        """What is sent by another route, or wished otherwise by the client, may differ."""
        asked = turn.asked
        wish = turn.request.headers.get(_MARKERS, "")
        named = f"{asked.explicit or ''} {asked.path} {wish}"
        return identity.digest((domain, named.encode("utf-8", "surrogateescape")))[:16]

    def _read(self, starts: Sequence[Start]) -> tuple[list[Reading], float]:
        """In the thread: what was read, and how long it took."""
        began = self._timer()
        readings = [start.read() for start in starts]
        return readings, self._timer() - began

    def _come(self, job: _Job, reading: asyncio.Future[tuple[list[Reading], float]]) -> None:
        """What was long has been read."""
        self._waiting -= 1
        if reading.cancelled():
            return
        try:
            readings, took_s = reading.result()
            began = self._timer()
            self._finish(job, readings)
            self._spend(took_s + self._timer() - began)
        except Exception as odd:  # noqa: BLE001 - nobody waits for it
            self._metrics.prompt_cache.compared(Compared.SKIPPED, job.planned.provider)
            _log.warning("a prompt can't be compared", error=type(odd).__name__)

    def _finish(self, job: _Job, readings: list[Reading]) -> None:
        for start, reading in zip(job.starts, readings, strict=True):
            self._beginnings.keep(start, reading)
        planned, client, sent = job.planned, readings[0].prompt, readings[-1].prompt
        until = None
        if Rewrite.MOVE_VOLATILE.value in planned.rewrites:
            until = _before_note(job, readings[0].document, sent.blocks)
        shown = Shown(
            chain(client),
            [block.ends_message for block in client.blocks],
            chain(sent)[:until],
            _change(planned),
        )
        compared, drift = self._steadiness.compare(job.owner, shown)
        self._metrics.prompt_cache.compared(compared, planned.provider)
        if drift is not None:
            self._tell(job, drift, sent.blocks)

    def _tell(self, job: _Job, drift: Drift, blocks: Sequence[PrefixBlock]) -> None:
        planned, change = job.planned, drift.change.value
        path = path_shown(blocks[drift.block].path) if drift.block < len(blocks) else ""
        self._metrics.prompt_cache.drifted(planned.provider, change)
        job.turn.exchange.span.drifted(change, path, drift.block)
        self._drifts += 1
        now = self._timer()
        if now - self._logged_at < _LOG_EVERY_S:
            return
        self._logged_at = now
        _log.error(
            "a conversation was not sent as before, though its client only added to it",
            request_id=job.turn.exchange.request_id,
            provider=planned.provider,
            api=job.turn.api.name,
            change=change,
            path=path,
            block=drift.block,
            drifts=self._drifts,
        )

    # --- how much it may take ---------------------------------------------------------------------

    def _has_time(self) -> bool:
        now = self._timer()
        saved = self._saved_s + _SHARE * (now - self._saved_at)
        self._saved_s, self._saved_at = min(_MOST_SAVED_S, saved), now
        return self._saved_s > 0

    def _spend(self, seconds: float) -> None:
        self._saved_s -= seconds


class _Job(NamedTuple):
    """One turn to be compared."""

    turn: Turn
    planned: Planned
    owner: bytes
    starts: list[Start]
    """Of the client's body, and of what was sent, where that is another."""


def _before_note(job: _Job, document: Json, blocks: Sequence[PrefixBlock]) -> int | None:
    """How many blocks stand before a note (`wire.note_place`): the next turn is sent without it."""
    if not isinstance(document, dict):
        return None
    path = note_path(job.turn.api.name, document)
    if path is None:
        return None
    skipped = job.starts[0].skipped
    place = path[:2]
    index = path[1] if len(path) > 1 else None
    if skipped is not None and isinstance(index, int) and index >= skipped.before:
        # Messages that are known are not in the document.
        place = (path[0], index + skipped.left_out)
    held = (n for n in range(len(blocks) - 1, -1, -1) if blocks[n].path[: len(place)] == place)
    return next(held, None)


def _change(planned: Planned) -> Change:
    """The deepest that was done to it."""
    ticket = planned.ticket
    if planned.rewrites:
        return Change.REWRITE
    if ticket is None or not planned.names:
        return Change.NONE
    plan, blocks = ticket.plan, ticket.prompt.blocks
    if plan.splits or any(blocks[mark.block].until for mark in plan.marks):
        return Change.SPLIT
    return Change.STRIP if plan.strips else Change.MARK
