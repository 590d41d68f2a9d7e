"""The spans of one request, as `proxy.py` tells them; here in the form that does nothing.

Rule 1: a method never raises, never waits, and may be called in any order before `end()`.
Rule 2: `end()` closes a span; calls after it are ignored.
Rule 3: these base classes are the null objects used when tracing is off (one shared instance of
each, nothing imported from OpenTelemetry); `recorder.py` has the ones that record.

    server                     POST /v1/chat/completions
      lookup                   cache lookup
        command                GET                 where Redis is asked
      plan                     plan                what is done for the provider's prompt cache
      route                    route               of a pool: which replica
      inference                chat gpt-5.6        only when a model is really called
        attempt                POST                one for each try
    store                      cache store         a trace of its own, linked to the server span
      command                  SET
    revalidation               cache revalidate    likewise; above plan, route and inference
"""

# ruff: noqa: ARG002 - null objects ignore what they are told

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.miss import CacheOutcome
    from gateway.core.model import Reason, Result, Usage
    from gateway.core.route import Branch

AttributeValue: TypeAlias = str | bool | int | float

NO_ATTRIBUTES: Mapping[str, AttributeValue] = MappingProxyType({})


class CommandSpan:
    """Commands of one kind that a server of the store is asked at once."""

    __slots__ = ()

    def end(self, error: str | None = None) -> None:
        """Their replies came, or `error`, a short, fixed word, says why not."""


class AttemptSpan:
    """One HTTP request to an upstream."""

    __slots__ = ()

    def status(self, code: int) -> None:
        """The upstream's status; 400 and above make the span an error."""

    def routed(self, backend: str, branch: Branch) -> None:
        """It goes to this replica of a pool, and why."""

    def error(self, type_: str) -> None:
        """The request failed without a usable answer; `type_` is a short, fixed word."""

    def traceparent(self) -> dict[str, str]:
        """W3C trace context to send with this attempt (never baggage); empty when off."""
        return {}

    def end(self) -> None:
        """The last byte came, or the attempt failed."""


class LookupSpan:
    """One look into the cache."""

    __slots__ = ()

    recorded = False
    """Whether anybody will see it: then commands to the store are to be told to it."""

    def command(self, name: str, count: int, host: str, port: int) -> CommandSpan:
        """So many commands of that name go to this server of the store, for this."""
        return NULL_COMMAND

    def end(
        self,
        result: Result | None = None,
        reason: Reason | None = None,
        key_hex8: str | None = None,
    ) -> None:
        """What was found, why, and the first eight hex digits of the identity."""


class StoreSpan:
    """One write into the cache, after the response ended."""

    __slots__ = ()

    recorded = False
    """As of `LookupSpan`."""

    def command(self, name: str, count: int, host: str, port: int) -> CommandSpan:
        """As of `LookupSpan`."""
        return NULL_COMMAND

    def end(self, outcome: str) -> None:
        """`outcome` is a `Reason` or `failed`."""


class PlanSpan:
    """What is done for the provider's prompt cache is being decided."""

    __slots__ = ()

    def planned(
        self, reason: str, markers: int, expected_tokens: int, rewrites: Sequence[str]
    ) -> None:
        """As of `ServerSpan`."""

    def end(self) -> None:
        """It is decided."""


class RouteSpan:
    """A replica of a pool is being chosen."""

    __slots__ = ()

    def chosen(self, policy: str, backend: str, branch: Branch, wait_s: float) -> None:
        """The first to be asked, by which policy and why, and how long what waits there already is
        thought to take.
        """

    def error(self, type_: str) -> None:
        """There is none; `type_` is a short, fixed word."""

    def end(self) -> None:
        """It is decided."""


class InferenceSpan:
    """One call of a model, over all its attempts, up to the last byte."""

    __slots__ = ()

    captures = False
    """Whether the content of what is asked and answered is wanted."""

    def attempt(self, method: str, url: str, resend_count: int = 0) -> AttemptSpan:
        """One HTTP request of this call; `url` is told without its query."""
        return NULL_ATTEMPT

    def http(self, status: int) -> None:
        """The status that the call ended with; 400 and above make the span an error."""

    def first_chunk(self, seconds: float) -> None:
        """Seconds from sending the request to the first chunk of a stream."""

    def usage(self, usage: Usage) -> None:
        """What the provider counted."""

    def response(self, response_id: str, model: str, finish_reasons: Sequence[str]) -> None:
        """What the provider said of its answer; a stream that broke says `error` in the place of
        its missing finish reason.
        """

    def details(self, reasoning_tokens: int, service_tier: str, fingerprint: str) -> None:
        """More that the provider said, where it did: tokens of the answer that were thoughts; the
        tier it was served in and the backend's configuration (OpenAI).
        """

    def content(
        self,
        system: Sequence[object],
        messages: Sequence[object],
        tools: Sequence[object],
        output: Sequence[object],
    ) -> None:
        """What was asked and answered, in the schemas of the GenAI conventions (`gateway.wire.said`).
        Only where `captures`.
        """

    def error(self, type_: str) -> None:
        """The call failed; `type_` is a short, fixed word. A client that leaves is no error."""

    def end(self) -> None:
        """The last byte came, or the call was given up."""


class ServerSpan:
    """One request, from its first byte to the last of its response."""

    __slots__ = ()

    trace_id: str | None = None
    """32 hex digits when this request is traced: belongs into the log line."""

    recorded = False
    """Whether anybody will see it: what only spans tell need not be found out for others."""

    def plan(self) -> PlanSpan:
        """What is done for the provider's prompt cache is decided now."""
        return NULL_PLAN

    def route(self) -> RouteSpan:
        """A replica is chosen now."""
        return NULL_ROUTE

    def revalidation(self) -> ServerSpan:
        """The successor of a stale answer is asked for, after this request was answered: a trace of
        its own, linked to this one. What is told of that call is told to it.
        """
        return self

    def attempt(self, method: str, url: str, resend_count: int = 0) -> AttemptSpan:
        """The HTTP request of a passed-through call, which has no inference span."""
        return NULL_ATTEMPT

    def identify(self, request_id: str, upstream: str | None) -> None:
        """Our own id of the request, and the configured name of its upstream."""

    def set_status(self, code: int) -> None:
        """The status that the client gets; 500 and above make the span an error, 4xx do not."""

    def cache(self, result: Result, reason: Reason, key_hex8: str | None = None) -> None:
        """What the cache did, why, and the first eight hex digits of the identity."""

    def stored(self, reason: Reason) -> None:
        """Whether the answer is to be stored (`Reason.STORED`), or why not."""

    def planned(
        self, reason: str, markers: int, expected_tokens: int, rewrites: Sequence[str]
    ) -> None:
        """What was done for the provider's prompt cache, and why; `expected_tokens`: estimated to be
        read from it.
        """

    def prompt_cache(self, outcome: CacheOutcome) -> None:
        """What was expected of the provider's prompt cache, what came, and why it was no more."""

    def routed(self, backend: str, branch: Branch) -> None:
        """It is sent to this replica of a pool, and why; the last one counts."""

    def rerouted(self, backend: str, reason: str) -> None:
        """That replica failed before an answer began, and the next is asked: an event. `reason` is
        the status, or a short, fixed word.
        """

    def volatile(self, path: str, kind: str, tokens_behind: int, lost_per_day: int) -> None:
        """The prompt holds text that changes with requests: where, of what kind, how many tokens
        stand behind it, and how many a day could have been read but for it. Never the text itself.
        """

    def drifted(self, change: str, path: str, block: int) -> None:
        """The prompt was not sent as before, though its client only added to it: what was done to
        it, and the first block that is another. Never its text.
        """

    def saved(self, usage: Usage) -> None:
        """A hit: the tokens that nobody paid. They are not usage: no model was called."""

    def collapsed(self, leader: InferenceSpan) -> None:
        """The answer is that of another request's call, which gets a link."""

    def aborted(self, side: str) -> None:
        """The response ended early: `client`, `upstream` or `gateway` went away. Not an error in
        itself.
        """

    def error(self, type_: str) -> None:
        """The request failed through us or the upstream, also after a 200; `type_` is a short,
        fixed word. It shows on the span unless the client's own fault (4xx) was the answer.
        """

    def end(self) -> None:
        """The last byte went out, or the client is gone."""


class Spans:
    """Opens spans. This one opens none."""

    __slots__ = ()

    def server(
        self,
        *,
        method: str,
        route: str | None,
        path: str,
        scheme: str,
        host: str | None,
        port: int | None,
        headers: Mapping[str, str],
    ) -> ServerSpan:
        """The span of a request. `route` is one of our known ones or None; `path` is told without
        its query; of `headers` (case-insensitive) only `traceparent` and `tracestate` are read, and
        `Host` where `host` is None: few requests are traced, so it need not be looked up for all.
        """
        return NULL_SERVER

    def lookup(self, parent: ServerSpan) -> LookupSpan:
        """A look into the cache."""
        return NULL_LOOKUP

    def inference(
        self,
        parent: ServerSpan,
        *,
        operation: str,
        provider: str,
        model: str | None,
        host: str | None,
        port: int | None,
        stream: bool = False,
        attributes: Mapping[str, AttributeValue] = NO_ATTRIBUTES,
    ) -> InferenceSpan:
        """A model call. Of `attributes` those in `semconv.REQUEST_ATTRIBUTES` are kept."""
        return NULL_INFERENCE

    def store(self, link: ServerSpan) -> StoreSpan:
        """A write into the cache: a trace of its own, linked to the request that caused it."""
        return NULL_STORE


NULL_COMMAND = CommandSpan()
NULL_PLAN = PlanSpan()
NULL_ROUTE = RouteSpan()
NULL_ATTEMPT = AttemptSpan()
NULL_LOOKUP = LookupSpan()
NULL_STORE = StoreSpan()
NULL_INFERENCE = InferenceSpan()
NULL_SERVER = ServerSpan()
NULL_SPANS = Spans()
