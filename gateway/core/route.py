"""What flows between those who know of replicas, those who choose one, and those who send."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.trail import Trail  # noqa: TC001 - a NamedTuple of it

if TYPE_CHECKING:
    from collections.abc import Sequence


class RoutePolicy(StrEnum):
    """How a pool chooses."""

    PREFIX = "prefix"
    """Who holds the prompt, unless that costs more than it saves."""
    SESSION = "session"
    """By the conversation's identity alone."""
    ROUND_ROBIN = "round_robin"
    LEAST_PENDING = "least_pending"
    """The fewest tokens that wait to be computed."""
    DELEGATE = "delegate"
    """An inference gateway behind us picks: there is one address, and we say what we know."""


class Branch(StrEnum):
    """Why a request went where it went: the word in header, span, metric and log."""

    HOME = "home"
    """Its conversation is named (by a header), and lives there."""
    EXTENDED = "extended"
    """The conversation that this prompt continues lives there."""
    NEW = "new"
    """The first of its conversation."""
    MOVED_LOAD = "moved-load"
    """Its home would have kept it waiting for longer than the move costs."""
    MOVED_HEALTH = "moved-health"
    """Its home can't be asked, or failed before the first byte."""
    SPREAD = "spread"
    """Nothing binds it to a replica."""


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """How one pool's requests are placed."""

    policy: RoutePolicy = RoutePolicy.PREFIX
    break_s: float = 10.0
    """A request that has something to lose waits at most so much longer for its home."""
    keep_factor: float = 7.0
    """And at most so many times the seconds of prefill that a move would cost."""
    new_break_s: float = 5.0
    """A new conversation leaves its rendezvous home at so much more; only while other gateways may
    place requests that we do not hear of: without any, it goes where it is cheapest."""
    cache_tokens: int = 0
    """Of one replica, where the engine doesn't tell; 0: not known."""
    prefill_tokens_per_s: float = 0.0
    """Of one replica of weight 1, until it is observed; 0: not known."""
    mirror_bytes: int = 256 * 1024 * 1024
    """Of the pool's mirrors together."""


class Candidate(NamedTuple):
    """A replica that may be asked now."""

    name: str
    weight: float = 1.0
    in_flight: int = 0
    """Requests between being sent and their last byte."""


class Wish(NamedTuple):
    """A request that is to be placed."""

    trail: Trail
    session: int = 0
    """Of an explicit conversation, hashed with whose it is; 0: to be inferred from the trail."""


class Placement(NamedTuple):
    """Where a request should go."""

    order: tuple[str, ...]
    """Replicas, the best first; never empty where there was a candidate."""
    branch: Branch
    """Of the first."""
    wish: Wish
    head: int
    """Leading steps that everybody shares, and that bind nobody."""
    held: int = 0
    """Steps that the first is thought to hold."""
    slot: int | None = None
    """Of the first: where the prompt should be computed (llama.cpp)."""
    stays: str = ""
    """The replica where the conversation goes on living though this one request leaves it: other
    gateways, that don't hear of it, send the next one there. Empty: it lives where it goes."""
    wait_s: float = 0.0
    """What already waits at the first was thought to take so long."""


@dataclass(slots=True, eq=False)
class RouteTicket:
    """A request that was sent to a replica; given back when something becomes known of it."""

    placement: Placement
    backend: str
    sent_at: float
    expected: int
    """Tokens (as the trail counts) that the replica was thought to hold."""
    uncached: int
    """Tokens that it was thought to have to compute."""
    stamps: tuple[int, ...] = ()
    """When each step that it was thought to hold had last been used: for the mirror alone."""
    slot: int | None = None
    stamp: int = 0
    """Its own mark in the mirror: rises with every request that goes out."""
    streamed: bool = True
    """The first byte comes when the prompt is computed, not with the whole answer."""
    was_idle: bool = False
    """Nothing was thought to wait there when it was sent: how long it took tells the rate."""
    began_at: float | None = None
    is_over: bool = False


def first_of(candidates: Sequence[Candidate], name: str) -> Candidate | None:
    """The candidate of this name, if it is one."""
    return next((each for each in candidates if each.name == name), None)
