"""The way of a request that may be planned: planned, sent, and sent again as it came where the
provider refused what was added.

Rule 1: a request that a provider takes without us is never failed by us. What is refused with a 400
(or 422) was not processed: sending it again costs nothing.
Rule 2: who has taken what we add is believed to mean the client by a refusal that names nothing of it;
who never has is asked again whatever the refusal says.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from gateway.core.model import Form
from gateway.server.stream import Recording
from gateway.upstream.peeked import Peeked, peek
from gateway.wire import refusals
from gateway.wire.table import OPENAI_EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from gateway.asking import Asked, Asking, Underway
    from gateway.planned import Planned
    from gateway.planning import Planning
    from gateway.turn import Turn

_REFUSALS = frozenset({400, 422})
_ERROR_BYTES = 64 * 1024
# Named by a provider that does not know the event of usage that we ask streams for.
_USAGE = (b"stream_options", b"include_usage")


class Sending:
    """Sends requests of models, planned."""

    def __init__(self, asking: Asking, planning: Planning) -> None:
        self.asking = asking
        self.planning = planning

    def ask(
        self, turn: Turn, *, plain: bool = False, on_stored: Callable[[], None] | None = None
    ) -> AbstractAsyncContextManager[Underway]:
        """As `Asking.ask`; what has a prompt is planned before."""
        if turn.api is OPENAI_EMBEDDINGS:
            return self.asking.ask(turn, plain=plain, on_stored=on_stored)
        return Sent(self, turn, plain=plain, on_stored=on_stored)


class Sent(AbstractAsyncContextManager["Underway"]):
    """One planned call as a context, of one attempt or two."""

    __slots__ = ("_asked", "_on_stored", "_plain", "_planned", "_sending", "_turn", "_underway")

    def __init__(
        self,
        sending: Sending,
        turn: Turn,
        *,
        plain: bool,
        on_stored: Callable[[], None] | None,
    ) -> None:
        self._sending = sending
        self._turn = turn
        self._plain = plain
        self._on_stored = on_stored
        self._planned: Planned
        self._asked: Asked
        self._underway: Underway

    async def __aenter__(self) -> Underway:
        """Plan and send it; returns when the head of the response is there."""
        planning = self._sending.planning
        planned = self._planned = await planning.plan(self._turn)
        underway = await self._enter(planned, as_it_came=False)
        if underway.upstream.status in _REFUSALS:
            added = planned.names + (_USAGE if underway.asked_usage else ())
            if added:
                underway = await self._refused(underway, added)
        if underway.upstream.status == 200:
            planning.begun(self._turn, self._planned)
        return underway

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._asked.__aexit__(kind, problem, trace)
        finally:
            self._sending.planning.learn(self._planned, self._underway.answer)

    async def _enter(self, planned: Planned, *, as_it_came: bool) -> Underway:
        self._asked = self._sending.asking.ask(
            self._turn,
            plain=self._plain,
            on_stored=self._on_stored,
            planned=planned,
            as_it_came=as_it_came,
        )
        try:
            self._underway = await self._asked.__aenter__()
        except BaseException:
            self._sending.planning.learn(planned, None)
            raise
        return self._underway

    async def _refused(self, underway: Underway, added: tuple[bytes, ...]) -> Underway:
        """The answer to the request as it came, where its refusal names what was added, or nobody
        knows that it is ever taken; else the same answer, to be handed on.
        """
        planned, asked, planning = self._planned, self._asked, self._sending.planning
        try:
            head = await peek(underway.upstream, _ERROR_BYTES)
        except BaseException as problem:
            planning.learn(planned, None)
            await asked.__aexit__(type(problem), problem, problem.__traceback__)
            raise
        told = _readable(underway, head)
        doubted = bool(planned.names) and not planning.was_taken(planned)
        if not doubted and not refusals.names(told, added):
            underway.upstream = Peeked(underway.upstream, head)
            return underway
        # This one is nobody's answer: nothing of it is kept, or counted as not kept.
        asked.keeps = False
        await asked.__aexit__(None, None, None)
        self._planned = planning.as_it_came(self._turn, planned)
        again = await self._enter(self._planned, as_it_came=True)
        # (What is too many, or too much just now, was neither taken nor refused.)
        blamed = refusals.names(told, planned.names) or not refusals.names(told, _USAGE)
        if again.upstream.status == 200 and planned.names and blamed:
            planning.refused(planned)
        return again


def _readable(underway: Underway, head: bytes) -> bytes:
    """An error's body, decoded; as it is where it can't be."""
    coding = underway.upstream.headers.get("Content-Encoding", "").strip().lower()
    taken = Recording(Form.BODY, coding, 16 * _ERROR_BYTES)
    taken.feed(head)
    return taken.payload() or head
