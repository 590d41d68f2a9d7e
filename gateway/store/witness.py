"""Who wants to know which commands go to a server of the store: of one operation, in one task.

A context variable, because stores lie behind one another and none of them has anything to do with
telling. Nobody wants to know of most operations.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType


class Command(Protocol):
    """Commands that were sent."""

    def end(self, error: str | None = None) -> None:
        """Their replies came, or `error`, a short, fixed word, says why not."""


class Witness(Protocol):
    """Who wants to know."""

    @property
    def recorded(self) -> bool:
        """Does it?"""

    def command(self, name: str, count: int, host: str, port: int) -> Command:
        """So many commands of that name go to this server."""


WITNESS: ContextVar[Witness | None] = ContextVar("warmgate_store_witness", default=None)


class Witnessed:
    """While this context lasts, this witness is told, if it wants to know."""

    __slots__ = ("_token", "_witness")

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._token: Token[Witness | None] | None = None

    def __enter__(self) -> None:
        if self._witness.recorded:
            self._token = WITNESS.set(self._witness)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is not None:
            WITNESS.reset(self._token)
