"""The frozen data that flows between core, wire, store and proxy."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""Header lines in wire order: names lower-cased, values as received."""


class Form(StrEnum):
    """The two forms an answer travels in."""

    BODY = "body"
    STREAM = "stream"


class Result(StrEnum):
    """What became of a lookup: the words of RFC 9211 and Varnish; header `x-gateway-cache`."""

    HIT = "hit"
    MISS = "miss"
    PASS = "pass"  # noqa: S105 - a cache result, not a password
    STALE = "stale"
    COLLAPSED = "collapsed"


class Reason(StrEnum):
    """Why. One enum for header (`Cache-Status; detail=`), span, metric and log line."""

    # hit
    EXACT = "exact"
    # stale: served beyond its lifetime, and why
    STALE_WHILE_REVALIDATE = "stale-while-revalidate"
    STALE_IF_ERROR = "stale-if-error"
    # miss: nothing to serve, and why
    ABSENT = "absent"
    EXPIRED = "expired"
    TOO_OLD = "too-old"
    FORM_UNAVAILABLE = "form-unavailable"
    CREDENTIAL_UNPROVEN = "credential-unproven"
    NO_CACHE = "no-cache"
    MORE_SAMPLES = "more-samples"
    PARTIAL = "partial"
    STORE_UNAVAILABLE = "store-unavailable"
    PURGED = "purged"
    PURGES_UNKNOWN = "purges-unknown"
    # pass: the cache has no say
    ROUTE = "route"
    CACHE_OFF = "cache-off"
    NOT_DETERMINISTIC = "not-deterministic"
    NOT_UNDERSTOOD = "not-understood"
    UNCACHEABLE_JSON = "uncacheable-json"
    SIGNED = "signed"
    ENCODED_BODY = "encoded-body"
    HOSTED_TOOL = "hosted-tool"
    CONTAINER = "container"
    SEARCH_MODEL = "search-model"
    PROVIDER_STORED = "provider-stored"
    UNVERSIONED_PROMPT = "unversioned-prompt"
    # not served, not asked
    ONLY_IF_CACHED = "only-if-cached"
    # answered, and stored or not
    STORED = "stored"
    NO_STORE = "no-store"
    STATUS = "status"
    CONTENT_TYPE = "content-type"
    CONTENT_ENCODING = "content-encoding"
    INCOMPLETE = "incomplete"
    ERROR_IN_ANSWER = "error-in-answer"
    EMPTY = "empty"
    UNKNOWN_FINISH = "unknown-finish"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    PAUSED = "paused"
    TOO_LARGE = "too-large"
    BAD_TAGS = "bad-tags"
    UNREADABLE = "unreadable"


class Finish(StrEnum):
    """How an answer ended, across wire APIs."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    PAUSED = "paused"
    EMPTY = "empty"
    HOSTED = "hosted"
    """With tools that ran at the provider, though the request named none (prompt templates)."""
    INCOMPLETE = "incomplete"
    ERROR = "error"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in exclusive buckets: the prompt is the sum of the first four, never an overlap."""

    uncached_input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0

    @property
    def input(self) -> int:
        """All prompt tokens, cached ones included (what `gen_ai.usage.input_tokens` means)."""
        return self.uncached_input + self.cache_read + self.cache_write_5m + self.cache_write_1h


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request needs from an answer, beside its identity. Enough to serve a hit."""

    form: Form
    model: str
    include_usage: bool = False
    """The client of a stream asked for the usage event (OpenAI `stream_options`)."""
    may_add_usage: bool = False
    """The body says nothing about usage in streams, so that it can be asked for."""
    history_ids: frozenset[str] = frozenset()
    """Tool-call ids that already occur in this request: an answer may not repeat them."""
    max_output_tokens: int | None = None
    deterministic: bool = False
    """Temperature 0 or a seed."""
    bound: bool = False
    """The request or its answer refers to what the provider keeps for this credential, or holds
    what only its owner may use (stored responses, files, encrypted reasoning): whatever
    `cache.scope` says, its entry is for the credential that made it."""
    keeps_id: bool = False
    """The provider keeps the answer under its id: a hit is that very record, nothing renewed.
    Always `bound`."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request body that a wire API understood."""

    ask: Ask
    canonical: bytes
    """Canonical JSON of all that may change the answer; UTF-8."""
    pass_reason: Reason | None = None
    """Set when the API documents that the answer depends on more than the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's answer as a wire API read it, ready to be judged and stored."""

    recorded: Form
    payload: bytes
    """The JSON document (BODY) or the SSE text (STREAM), identity-encoded, as received."""
    finish: Finish
    forms: frozenset[Form] = frozenset()
    """The forms it can be served in without loss."""
    finish_reasons: tuple[str, ...] = ()
    """As the provider spelled them, one for each choice."""
    usage: Usage | None = None
    model: str = ""
    response_id: str = ""
    has_stream_usage: bool = False
    """A stream that carries its usage event (only meaningful when STREAM can be served)."""
    terms: tuple[str, ...] = ()
    """How it was served, in its own words (`service_tier`, ...): prices depend on it."""
    reasoning: int = 0
    """Tokens of `usage.output` that were thoughts, where the provider says so."""
    fingerprint: str = ""
    """OpenAI's `system_fingerprint`: the configuration that answered."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored answer. `key` is its identity; times are seconds since the epoch."""

    api: str
    recorded: Form
    forms: frozenset[Form]
    payload: bytes = field(repr=False)
    stored_at: float
    ttl_s: float
    model: str
    response_id: str
    usage: Usage | None
    has_stream_usage: bool
    gaps_ms: tuple[int, ...] = ()
    """Of a recorded stream: milliseconds before each event, each at most a second."""
    tags: tuple[str, ...] = ()
    """Names that its request gave it, to purge it by."""
    generation: int = 0
    """The latest purge that was known when its request was looked up (`core.purges`)."""
    key_hex8: str = ""
    """The first 8 hex digits of its request's identity: what the log calls `key`."""
    terms: tuple[str, ...] = ()
    """How it was served, as in `Answer`: what it cost depends on it."""

    def age_s(self, now: float) -> float:
        """Seconds since it was stored, never negative (clocks of replicas differ)."""
        return max(0.0, now - self.stored_at)
