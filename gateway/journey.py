"""A request on its way through a pool: what is known of it, whose it is, and where it was sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core import identity
from gateway.core.route import Wish
from gateway.core.trail import Trail
from gateway.telemetry.spans import NULL_ROUTE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.route import Branch, RouteTicket
    from gateway.exchange import Exchange
    from gateway.telemetry.spans import RouteSpan
    from gateway.upstream.backend import Backend

OURS = "x-gateway-session"
SESSION_HEADERS = (
    OURS,
    "x-session-id",
    "x-session-affinity",
    # Of one conversation; the session of the same client may have several, each with a prompt of
    # its own: Codex, Amp.
    "thread-id",
    "x-amp-thread-id",
    "session-id",
    "session_id",
    "conversation_id",
    "x-opencode-session",
    "x-claude-code-session-id",
)
"""By which clients name their conversation; the first that is there counts."""
_LONGEST_SESSION = 256


_NOTHING = Wish(Trail())


def session_said(headers: Mapping[str, str]) -> str:
    """The conversation that a request's headers name (they are found in any case); empty for none."""
    for name in SESSION_HEADERS:
        said = headers.get(name)
        if said and len(said) <= _LONGEST_SESSION:
            return said
    return ""


def session_of(said: str, credential: bytes) -> int:
    """64 bits of a conversation's name and whose it is: never two credentials' one."""
    told = said.encode("utf-8", "surrogateescape")
    return int.from_bytes(identity.digest((b"session", credential, told))[:8], "big") or 1


@dataclass(slots=True, eq=False)
class Journey:
    """One request; nothing but its `exchange` is known of one that is passed through."""

    exchange: Exchange | None = None
    """Is told where it goes."""
    api: str = ""
    """Of its prompt; empty: it has none, and goes wherever there is least to do."""
    wish: Wish = _NOTHING
    lead: int = 0
    """Steps of its prompt before the conversation: tools and system."""
    streams: bool = False
    """Its answer comes as it is made: the first byte tells when the prompt was computed."""
    body: bytes | None = None
    """What may be kept of it to warm other replicas with: no client's key stands behind it."""
    pins: bool = False
    """A member may be added that says where in the replica it is computed."""
    owner: str = ""
    """The replica that keeps what this request continues or names."""
    only: Backend | None = None
    """It is for this replica, and no other."""
    once: bool = False
    """It may change something (an upload, an order): done twice is not done once."""
    span: RouteSpan = NULL_ROUTE
    """Is told where it goes first."""

    backend: str = ""
    """Where it went last."""
    ticket: RouteTicket | None = None
    """Of what it does there, until that is over."""
    number: int = 0
    """Of that, among all of this gateway."""

    def went(self, backend: str, branch: Branch) -> None:
        """It is sent to this replica now."""
        self.backend = backend
        if self.exchange is not None:
            self.exchange.routed(backend, branch)
