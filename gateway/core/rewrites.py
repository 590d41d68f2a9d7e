"""Which rewrites of a prompt may be made, and why not: decisions and their names only.

Rule 1: nothing is rewritten that isn't asked for by the config, route by route.
Rule 2: a rewrite is the same on every turn of a conversation: it depends on the config and on what
leads the request (tools, system), never on how long the conversation is.
Rule 3: what the client forbids (`no-transform`), what is signed, and whatever may be bound to the
text before it (thinking, encrypted reasoning, models that bind) is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from gateway.core.volatile import Kind
from gateway.core.volatile_text import is_bare_clock
from gateway.providers.base import ENGINES

if TYPE_CHECKING:
    from gateway.providers.prompt_cache import CacheRules


class Rewrite(StrEnum):
    """One change of a prompt that keeps its prefix the same. For config, header, span, `explain`."""

    STRIP_BILLING = "strip-billing"
    """Claude Code's `x-anthropic-billing-header`, which changes with each request, is left out
    towards whoever isn't Anthropic."""
    SORT_TOOLS = "sort-tools"
    """Tools in the order of their names."""
    SORT_SCHEMAS = "sort-schemas"
    """The keywords of a JSON Schema in one order; never its properties."""
    ROUND_TIME = "round-time"
    """Moments in the system text keep their day and lose the time of day."""
    ROUND_HOUR = "round-hour"
    """Moments in the system text keep their day and hour."""
    MOVE_VOLATILE = "move-volatile"
    """Volatile values of the system text stand at the end of the prompt instead."""


NAMES = tuple(rewrite.value for rewrite in Rewrite)
"""What the config may list."""


class Hindrance(StrEnum):
    """Why a request gets no rewrite that was asked for."""

    NO_TRANSFORM = "no-transform"
    SIGNED = "signed"
    UNKNOWN_MODEL = "unknown-model"
    """No documented rules for this provider and model: it may bind thinking."""
    BINDS_THINKING = "binds-thinking"
    """The model's thinking is bound to all before it."""
    THINKS = "thinks"
    """The request carries or asks for thinking, or carries encrypted reasoning."""
    NOT_UNDERSTOOD = "not-understood"


@dataclass(frozen=True, slots=True)
class Case:
    """What decides whether one request may be rewritten."""

    wanted: frozenset[Rewrite]
    """By the config of its route."""
    provider: str
    """Name of the provider's table: `anthropic`, `vllm`, ..."""
    rules: CacheRules | None
    """Of provider, wire API and model; None: unknown."""
    no_transform: bool = False
    signed: bool = False


ANTHROPIC = "anthropic"


def allowed(case: Case, *, thinks: bool) -> tuple[frozenset[Rewrite], Hindrance | None]:
    """Which of the wanted rewrites may be made, and what speaks against the others, if anything.
    `thinks`: the request carries or asks for thinking, or carries encrypted reasoning.

    The billing header may go on an engine although the request thinks: no engine can bind its
    thinking to it, it is another one in each request anyway, and Claude Code always asks to think.
    """
    wanted = case.wanted
    if case.provider == ANTHROPIC:
        wanted -= {Rewrite.STRIP_BILLING}
    if Rewrite.ROUND_TIME in wanted:
        wanted -= {Rewrite.ROUND_HOUR}
    if not wanted:
        return wanted, None
    hindrance = _hindrance(case, thinks=thinks)
    if hindrance is None:
        return wanted, None
    # Engines run the weights themselves, on text: none signs or checks anything in it.
    if hindrance is Hindrance.THINKS and case.provider in ENGINES:
        return wanted & {Rewrite.STRIP_BILLING}, hindrance
    return frozenset(), hindrance


def _hindrance(case: Case, *, thinks: bool) -> Hindrance | None:
    if case.no_transform:
        return Hindrance.NO_TRANSFORM
    if case.signed:
        return Hindrance.SIGNED
    if case.rules is None:
        return Hindrance.UNKNOWN_MODEL
    if case.rules.binds_thinking:
        return Hindrance.BINDS_THINKING
    return Hindrance.THINKS if thinks else None


_MENDS = {
    Kind.TIMESTAMP: (Rewrite.ROUND_TIME, Rewrite.MOVE_VOLATILE),
    Kind.DATE: (Rewrite.MOVE_VOLATILE,),
    Kind.UUID: (Rewrite.MOVE_VOLATILE,),
    Kind.ID: (Rewrite.MOVE_VOLATILE,),
    Kind.COUNTER: (Rewrite.MOVE_VOLATILE,),
    Kind.SEED: (Rewrite.MOVE_VOLATILE,),
    Kind.BILLING_HEADER: (Rewrite.STRIP_BILLING,),
}


def mending(kind: Kind, value: str, provider: str) -> tuple[Rewrite, ...]:
    """Which rewrites would mend a volatile value of a system text; none for what only the
    application can.
    """
    if kind is Kind.BILLING_HEADER and provider == ANTHROPIC:
        return ()
    if kind is Kind.TIMESTAMP and is_bare_clock(value):
        return (Rewrite.ROUND_HOUR, Rewrite.MOVE_VOLATILE)
    return _MENDS.get(kind, ())


def told(made: frozenset[Rewrite]) -> str:
    """The names in the order of the enum, as the `x-gateway-rewrites` header lists them."""
    return ", ".join(rewrite.value for rewrite in Rewrite if rewrite in made)
