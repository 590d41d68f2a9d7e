"""What is told of one request: gathered as it goes, said once when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.directives import cache_status
from gateway.core.miss import spelled
from gateway.core.model import Form
from gateway.core.money import usd
from gateway.core.records import RequestRecord, Step
from gateway.telemetry.logs import request_line
from gateway.telemetry.spans import NO_ATTRIBUTES, NULL_SERVER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence

    from multidict import CIMultiDict

    from gateway.core.miss import CacheOutcome
    from gateway.core.model import Answer, Reason, Result, Usage
    from gateway.core.route import Branch
    from gateway.door import Known
    from gateway.telemetry.metrics import Metrics
    from gateway.telemetry.setup import Telemetry
    from gateway.telemetry.spans import AttributeValue, ServerSpan
    from gateway.traced import Content
    from gateway.upstream.choice import Endpoint

_BACKEND, _AFFINITY = "x-gateway-backend", "x-gateway-affinity"
_PROMPT_CACHE = "x-gateway-prompt-cache"
_OURS_ALONE = (
    *("x-gateway-cache-inputs", "x-gateway-markers", "x-gateway-rewrites", _PROMPT_CACHE),
    *(_BACKEND, _AFFINITY),
)
_MOST_STEPS = 32
# Of what a client makes up, so much is remembered: a model's name may have megabytes.
_LONGEST_NAME = 300


class Spared(NamedTuple):
    """An answer that a request was served and nobody paid again."""

    usage: Usage | None
    """As it was recorded, and its `terms`."""
    model: str
    terms: tuple[str, ...] = ()
    instead: bool = True
    """Of a call that would be paid: a failed one is not."""


@dataclass(slots=True)
class Exchange:
    """One request and what became of it. Times are seconds of a monotonic clock."""

    request_id: str
    method: str
    path: str
    scheme: str
    started: float
    span: ServerSpan = field(default=NULL_SERVER)
    route: str | None = None
    endpoint: Endpoint | None = None
    model: str | None = None
    result: Result | None = None
    reason: Reason | None = None
    stored: Reason | None = None
    key_hex8: str | None = None
    status: int = 0
    usage: Usage | None = None
    elsewhere_s: float = 0.0
    """Time that was the upstream's or the client's, not ours."""
    aborted: str | None = None
    error: str | None = None
    begun: bool = False
    """The response's head has left: an error can't be answered any more, only shown."""
    answered: bool = False
    """The model's answer came in full, whatever happened to its connection afterwards."""

    inputs: tuple[int, int] | None = None
    """Of a batch: how many of its inputs were known, and how many were asked for."""

    markers: str | None = None
    """What was done for the provider's prompt cache, in the words of the header."""
    rewrites: str | None = None
    """Of the prompt; None without any."""

    backend: str | None = None
    """Of a pool, the replica that was asked last."""
    branch: Branch | None = None
    """Why it."""

    at: float = 0.0
    """When it came, in seconds since the epoch."""
    purpose: str = "request"
    """What calls that it makes are for, as in `CallRecord`."""
    api: str | None = None
    scope: str = ""
    """The beginning of the keyed hash of who asks."""
    foreseen: CacheOutcome | None = None
    """Of the provider's prompt cache, before the answer: for the header alone."""
    prompt_cache: CacheOutcome | None = None
    """What was expected of it, and what came. A miss that no answer has borne out is none."""
    paid_pd: int | None = None
    saved_pd: int | None = None
    """Picodollars, where there is a price."""
    first_byte_s: float | None = None
    """From the request's first byte to the first byte of its answer's body."""
    looks: tuple[tuple[float, Result, Reason], ...] = ()
    """Into the cache: how many seconds each took, and what was found."""
    spared: tuple[Spared, ...] = ()
    """Answers that it was served and nobody paid again."""
    steps: list[Step] = field(default_factory=list)
    """What took time, for `record`."""
    ended: float = 0.0

    def mark(self, headers: MutableMapping[str, str]) -> None:
        """Say in a response's headers what the cache did."""
        assert self.result is not None
        headers["x-gateway-cache"] = self.result.value
        headers["x-gateway-request-id"] = self.request_id
        if self.inputs is not None:
            headers["x-gateway-cache-inputs"] = f"hit={self.inputs[0]}, miss={self.inputs[1]}"
        if self.markers is not None:
            headers["x-gateway-markers"] = self.markers
        if self.rewrites is not None:
            headers["x-gateway-rewrites"] = self.rewrites
        if self.foreseen is not None:
            headers[_PROMPT_CACHE] = spelled(self.foreseen)

    def aside(self) -> Exchange:
        """For a call that this request brings about, and that is none of its own."""
        return replace(
            self,
            purpose="revalidate",
            stored=None,
            status=0,
            usage=None,
            elsewhere_s=0.0,
            aborted=None,
            error=None,
            begun=False,
            answered=False,
            markers=None,
            rewrites=None,
            backend=None,
            branch=None,
            foreseen=None,
            prompt_cache=None,
            paid_pd=None,
            saved_pd=None,
            first_byte_s=None,
            looks=(),
            spared=(),
            steps=[],
        )

    def forwarded(self, headers: CIMultiDict[str], status: int) -> None:
        """The same in an upstream's own headers, our member of `Cache-Status` appended last."""
        assert self.result is not None
        assert self.reason is not None
        self.status = status
        # Of a gateway behind us: in headers of these names it would pass for our own word.
        for name in _OURS_ALONE:
            headers.popall(name, None)
        headers.add("Cache-Status", cache_status(self.result, self.reason, status=status))
        self.mark(headers)
        if self.backend is not None and self.branch is not None:
            headers[_BACKEND], headers[_AFFINITY] = self.backend, self.branch.value

    def decided(self, result: Result, reason: Reason) -> None:
        """What the cache said, once."""
        self.result = result
        self.reason = reason
        self.span.cache(result, reason, self.key_hex8)

    def to(self, endpoint: Endpoint) -> None:
        """Who is asked."""
        self.endpoint = endpoint
        self.span.identify(self.request_id, endpoint.name)

    def routed(self, backend: str, branch: Branch) -> None:
        """It is sent to this replica now."""
        self.backend, self.branch = backend, branch
        self.span.routed(backend, branch)

    def rerouted(self, backend: str, reason: str) -> None:
        """It failed there before an answer began, and goes to the next."""
        self.span.rerouted(backend, reason)

    def gave_up(self, side: str) -> None:
        """`client` or `upstream` went away before the end, or the `gateway` did: it was stopped.

        A client that has its answer has not: OpenAI's SDK hangs up at `[DONE]`, without waiting
        for the end of the response.
        """
        if side == "client" and self.answered:
            return
        self.aborted = side
        self.span.aborted(side)

    def failed(self, word: str) -> None:
        """It ended in an error; `word` is short and fixed."""
        self.error = word
        self.span.error(word)

    def step(self, name: str, began: float, ended: float) -> None:
        """Something took from then to then, by the clock of `started`."""
        if len(self.steps) < _MOST_STEPS:
            self.steps.append(Step(name, began - self.started, ended - began))

    def record(self) -> RequestRecord:
        """All that is told of it, at its end."""
        duration = self.ended - self.started
        endpoint = self.endpoint
        return RequestRecord(
            request_id=self.request_id,
            at=self.at,
            method=self.method,
            # (Not the request's own copy, where it is a text that is there anyway.)
            path=self.route if self.path == self.route else self.path[:_LONGEST_NAME],
            route=self.route,
            api=self.api,
            upstream=endpoint.name if endpoint else None,
            provider=endpoint.caches_as if endpoint else None,
            model=self.model[:_LONGEST_NAME] if self.model is not None else None,
            scope=self.scope,
            status=self.status,
            result=self.result,
            reason=self.reason,
            stored=self.stored,
            key_hex8=self.key_hex8,
            duration_s=duration,
            overhead_s=max(0.0, duration - self.elsewhere_s),
            first_byte_s=self.first_byte_s,
            usage=self.usage,
            prompt_cache=self.prompt_cache,
            plan=self.markers,
            rewrites=self.rewrites,
            backend=self.backend,
            branch=self.branch,
            trace_id=self.span.trace_id,
            aborted=self.aborted,
            error=self.error,
            paid_pd=self.paid_pd,
            saved_pd=self.saved_pd,
            # (Not a copy: what goes on behind the answer, storing it, is still to come.)
            steps=self.steps,
            scheme=self.scheme,
        )

    def end(self, now: float) -> None:
        """It is over: so is its span. The rest is told by `tell`."""
        self.ended = now
        self.span.set_status(self.status)
        self.span.end()

    def tell(
        self, metrics: Metrics, on_record: Callable[[RequestRecord], None] | None = None
    ) -> None:
        """Say what became of it, once it has ended: metrics, one log line, and the record to whoever
        keeps any.
        """
        record = self.record()
        metrics.request(record)
        for seconds, result, reason in self.looks:
            metrics.lookup(seconds, result, reason)
        if record.saved_pd and record.provider is not None:
            metrics.spared(usd(record.saved_pd), record.provider, record.model)
        if record.aborted is not None:
            metrics.aborted(record.aborted)
        request_line(record)
        if on_record is not None:
            on_record(record)


class ModelCall:
    """One call of a model, told as a span and in the metrics."""

    def __init__(
        self,
        exchange: Exchange,
        operation: str,
        known: Known,
        telemetry: Telemetry,
        timer: Callable[[], float],
        *,
        attributes: Mapping[str, AttributeValue] = NO_ATTRIBUTES,
    ) -> None:
        """`attributes` are what is told of the request beside its model."""
        self._exchange = exchange
        self._streams = known.ask is not None and known.ask.form is Form.STREAM
        self._operation = operation
        self._api = exchange.api or ""
        self._provider = known.endpoint.provider.otel_name
        self._metrics = telemetry.metrics
        self._timer = timer
        self._first_s: float | None = None
        self._duration_s = 0.0
        self.on_first: Callable[[], None] | None = None
        """Called at the first byte of the answer."""
        self.span = telemetry.spans.inference(
            exchange.span,
            operation=operation,
            provider=self._provider,
            model=exchange.model,
            host=known.endpoint.host,
            port=known.endpoint.port,
            stream=self._streams,
            attributes=attributes,
        )
        self._began = timer()

    def first_chunk(self) -> None:
        """The first bytes of the answer came."""
        now = self._timer()
        if self._exchange.first_byte_s is None:
            self._exchange.first_byte_s = now - self._exchange.started
        if self._streams:
            self._first_s = now - self._began
            self.span.first_chunk(self._first_s)
        if self.on_first is not None:
            self.on_first()

    def over(self) -> None:
        """The last byte came and went, or the call was given up: what follows is our own time."""
        now = self._timer()
        self._duration_s = now - self._began
        self._exchange.elsewhere_s += self._duration_s
        self._exchange.step("upstream", self._began, now)

    def end(
        self,
        answer: Answer | None,
        failed: str | None,
        arrived_ms: Sequence[int] = (),
        content: Callable[[], Content] | None = None,
    ) -> None:
        """Say it, with what could be read of the answer, and in a word how the call failed.
        `arrived_ms`: when each chunk of a stream came; `content`: what was said, where that is wanted.
        """
        exchange = self._exchange
        if answer is not None:
            if answer.usage is not None:
                exchange.usage = answer.usage
                self.span.usage(answer.usage)
            self.span.response(answer.response_id, answer.model, answer.finish_reasons)
            openai = self._api.startswith("openai")
            tier = answer.terms[0] if openai and answer.terms else ""
            self.span.details(answer.reasoning, tier, answer.fingerprint)
        began = self._first_s is not None and (answer is not None or failed is not None)
        if began and (answer is None or not any(answer.finish_reasons)):
            # "A stream that breaks before its final event": in the place of its finish reason.
            self.span.response("", "", ("error",))
        self._metrics.inference(
            provider=self._provider,
            model=exchange.model,
            operation=self._operation,
            duration_s=self._duration_s,
            first_chunk_s=self._first_s,
            usage=exchange.usage if answer is not None else None,
            error=failed,
            reasoning_tokens=answer.reasoning if answer is not None else 0,
            arrived_ms=arrived_ms,
        )
        if content is not None:
            self.span.content(*content())
        self.span.end()
