"""May we look up, serve, store: each with its reason.

Rule 1: what the API documents to depend on more than the request passes.
Rule 2: the client's directives narrow what the config allows, never widen it.
Rule 3: only a complete, successful, non-empty answer with a known finish reason is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from gateway.core.model import Finish, Form, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.core.directives import Directives
    from gateway.core.model import Answer, Ask, Entry

# Judges and classifiers ask for one word; for them the limit is the answer's length.
JUDGE_TOKENS = 16

# "Response objects are saved for 30 days by default" (OpenAI, conversation state guide, 2026-10).
RECORD_TTL_S = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What the config says about one route."""

    when: Literal["always", "deterministic", "off"]
    ttl_s: float
    truncated: bool
    refused: bool
    samples: int = 1
    fold_text: bool = False
    coalesce: Literal["deterministic", "all", "off"] = "off"
    stale_while_revalidate_s: float = 0.0
    stale_if_error_s: float = 0.0

    @property
    def beyond_s(self) -> float:
        """How long an entry is of use after its lifetime."""
        return max(self.stale_while_revalidate_s, self.stale_if_error_s)


@dataclass(frozen=True, slots=True)
class Pass:
    """The cache has no say."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Lookup:
    """Look (unless `no_read` says why not), and store the answer afterwards if `write`."""

    write: bool
    no_read: Reason | None = None
    generation: int = 0
    """The latest purge that was known when the request was looked up."""


def before_lookup(
    pass_reason: Reason | None, ask: Ask | None, policy: CachePolicy, directives: Directives
) -> Pass | Lookup:
    """Whether the cache has a say at all, before the store is asked."""
    if policy.when == "off":
        return Pass(Reason.CACHE_OFF)
    if pass_reason is not None or ask is None:
        return Pass(pass_reason or Reason.NOT_UNDERSTOOD)
    if policy.when == "deterministic" and not ask.deterministic:
        return Pass(Reason.NOT_DETERMINISTIC)
    return Lookup(
        write=not directives.no_store, no_read=Reason.NO_CACHE if directives.no_cache else None
    )


def may_coalesce(ask: Ask, policy: CachePolicy, lookup: Lookup, *, proven: bool) -> bool:
    """May the request share one upstream call with others that ask the same at the same time?

    Not one that must not be kept, or insists on a call of its own; nor, in tenant and shared
    scope, a credential that the upstream has not accepted yet: others would wait for its refusal.
    """
    if policy.coalesce == "off" or not lookup.write or lookup.no_read is not None or not proven:
        return False
    return ask.deterministic or policy.coalesce == "all"


@dataclass(frozen=True, slots=True)
class Hit:
    """Serve this entry; `ttl_left_s` is how long it may still be served."""

    entry: Entry
    age_s: float
    ttl_left_s: float


@dataclass(frozen=True, slots=True)
class Stale:
    """Serve this entry although its lifetime is over (`ttl_left_s` is negative), and ask the
    upstream for its successor.
    """

    hit: Hit
    reason: Reason = Reason.EXPIRED


@dataclass(frozen=True, slots=True)
class Miss:
    """Ask the upstream; where it fails, `spare` may be served."""

    reason: Reason
    spare: Hit | None = None


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """Nothing to serve, and the client forbade to ask (`only-if-cached`)."""

    reason: Reason


AfterLookup: TypeAlias = Hit | Stale | Miss | Unsatisfiable

# What comes closest to a hit tells most about the miss.
_NEARNESS = (
    *(Reason.CREDENTIAL_UNPROVEN, Reason.TOO_OLD, Reason.FORM_UNAVAILABLE, Reason.EXPIRED),
    *(Reason.PURGES_UNKNOWN, Reason.PURGED),
)


def after_lookup(
    entries: Iterable[Entry],
    can_serve: Callable[[Entry], bool],
    policy: CachePolicy,
    directives: Directives,
    *,
    proven: bool,
    now: float,
    refuse: Callable[[Entry], Reason | None] = lambda _: None,
) -> AfterLookup:
    """The youngest entry that may be served, or why there is none. `refuse` says why an operator
    does not want it served, whatever else holds.
    """
    hits: list[Hit] = []
    late: list[Hit] = []
    reasons: set[Reason] = set()
    for entry in entries:
        age = entry.age_s(now)
        # A lifetime that the config has shortened since holds for old entries too.
        hit = Hit(entry, age, min(entry.ttl_s, policy.ttl_s) - age)
        fault = refuse(entry) or _fault(hit, can_serve, directives)
        if fault is None and not proven:
            fault = Reason.CREDENTIAL_UNPROVEN
        if fault is not None:
            reasons.add(fault)
        elif hit.ttl_left_s > 0:
            hits.append(hit)
        else:
            late.append(hit)
    if hits:
        return min(hits, key=_age_s)
    if late and not directives.only_if_cached:
        return _late(min(late, key=_age_s), policy, directives)
    if late:
        reasons.add(Reason.EXPIRED)
    return missed(next((r for r in _NEARNESS if r in reasons), Reason.ABSENT), directives)


def _age_s(hit: Hit) -> float:
    return hit.age_s


def _late(hit: Hit, policy: CachePolicy, directives: Directives) -> Stale | Miss:
    """What an entry beyond its lifetime is good for (RFC 5861).

    A client that says how old an answer may be, or how long it must still be fresh, wants no stale
    one. What it says of staleness itself narrows what the config allows.
    """
    if directives.max_age_s is not None or directives.min_fresh_s:
        return Miss(Reason.EXPIRED)

    def within(allowed_s: float, wanted_s: float | None) -> bool:
        return -hit.ttl_left_s < (allowed_s if wanted_s is None else min(allowed_s, wanted_s))

    if within(policy.stale_while_revalidate_s, directives.stale_while_revalidate_s):
        return Stale(hit)
    spare = within(policy.stale_if_error_s, directives.stale_if_error_s)
    return Miss(Reason.EXPIRED, hit if spare else None)


# RFC 5861 section 4: "an error is any situation that would result in a 500, 502, 503, or 504 HTTP
# response status code being returned". 529 is Anthropic's word for 503 ("overloaded_error").
_ERRORS = frozenset({500, 502, 503, 504, 529})


def is_error(status: int) -> bool:
    """Whether a stale answer is better than an upstream's response of this status."""
    return status in _ERRORS


def missed(reason: Reason, directives: Directives) -> Miss | Unsatisfiable:
    """What a miss for this reason comes to."""
    return Unsatisfiable(reason) if directives.only_if_cached else Miss(reason)


def _fault(hit: Hit, can_serve: Callable[[Entry], bool], directives: Directives) -> Reason | None:
    """Why the entry can't be served, or not to this client; its lifetime may be over or not."""
    over = hit.ttl_left_s <= 0
    if not can_serve(hit.entry):
        return Reason.EXPIRED if over else Reason.FORM_UNAVAILABLE
    limit = directives.max_age_s
    asks_fresher = limit is not None and hit.age_s > limit
    if not over and (asks_fresher or hit.ttl_left_s < directives.min_fresh_s):
        return Reason.TOO_OLD
    return None


@dataclass(frozen=True, slots=True)
class Keep:
    """Store the answer for `ttl_s` seconds."""

    ttl_s: float


@dataclass(frozen=True, slots=True)
class Skip:
    """Don't store it."""

    reason: Reason


_UNSTORED = {
    Finish.ERROR: Reason.ERROR_IN_ANSWER,
    Finish.INCOMPLETE: Reason.INCOMPLETE,
    Finish.EMPTY: Reason.EMPTY,
    Finish.HOSTED: Reason.HOSTED_TOOL,
    Finish.PAUSED: Reason.PAUSED,
    Finish.UNKNOWN: Reason.UNKNOWN_FINISH,
}


def after_response(answer: Answer, ask: Ask, policy: CachePolicy, *, write: bool) -> Keep | Skip:
    """Whether a complete 200 answer is stored."""
    if not write:
        return Skip(Reason.NO_STORE)
    unstored = _UNSTORED.get(answer.finish)
    if unstored is not None:
        return Skip(unstored)
    if answer.finish is Finish.REFUSED and not policy.refused:
        return Skip(Reason.REFUSED)
    if answer.finish is Finish.TRUNCATED and not (policy.truncated or _is_judge(ask)):
        return Skip(Reason.TRUNCATED)
    if not answer.forms & {Form.BODY, Form.STREAM}:
        return Skip(Reason.UNREADABLE)
    # A hit on a kept response is the provider's record, which may be gone after this.
    return Keep(min(policy.ttl_s, RECORD_TTL_S) if ask.keeps_id else policy.ttl_s)


def _is_judge(ask: Ask) -> bool:
    return ask.max_output_tokens is not None and ask.max_output_tokens <= JUDGE_TOKENS
