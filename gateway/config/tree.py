"""One frozen tree of settings: file, then environment, then flags; every fault named at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import orjson
from blake3 import blake3
from pydantic import ConfigDict, Field, field_validator, model_validator

from gateway.config.admin import Admin, admin_contradictions
from gateway.config.caching import Cache, Route
from gateway.config.kinds import (
    ENGINES,
    BaseUrl,
    Credential,
    Duration,
    Host,
    Network,
    Port,
    Positive,
    PositiveInt,
    ProviderName,
    Traces,
    UpstreamName,
    broken,
)
from gateway.config.ledger import Ledger
from gateway.config.pools import (
    DNS_INTERVAL_S,
    BackendAt,
    EngineName,
    Health,
    Routing,
    pool_contradictions,
    provider_of,
    with_default,
    with_pool_defaults,
)
from gateway.config.prompt_caching import PromptCache, WarmUp, warm_contradictions
from gateway.config.redaction import redact
from gateway.config.redis_store import redis_contradictions
from gateway.config.section import MIB, MINUTES, SECONDS, Section
from gateway.config.storage import Store


class Server(Section):
    """Where the gateway listens, and what it accepts."""

    host: Host = Field("127.0.0.1", description="Address of the API port.")
    port: Port = Field(8080, description="API port; 0 takes a free one.")
    probe_host: Host = Field("127.0.0.1", description="Address of the probe port.")
    probe_port: Port = Field(
        9180, description="Port of /livez, /readyz and /metrics, nothing else."
    )
    body_limit_bytes: PositiveInt = Field(
        64 * MIB,
        description="Largest request body that the gateway reads into memory; longer ones get 413. "
        "Passed-through uploads are streamed, not held, and not limited.",
    )
    memory_budget_bytes: PositiveInt | None = Field(
        None,
        description="What all requests together may hold: their bodies, and recordings of their "
        "answers. Beyond it a request gets 503 with `Retry-After`, an answer goes unrecorded. Unset: a "
        "quarter of the container's memory limit, in a small one a third of what is beyond 112 MiB (at "
        "least 16 MiB), or 512 MiB where there is no limit.",
    )
    drain_timeout_s: Positive = Field(
        60 * SECONDS, description="How long running requests may go on after SIGTERM."
    )
    drain_delay_s: Duration = Field(
        0.0,
        description="For how long new connections are still served after SIGTERM, while /readyz says "
        "503 already: time for a balancer to look, where no preStop hook gives it. `drain_timeout_s` "
        "begins after it.",
    )
    drain_idle_s: Duration = Field(
        5 * SECONDS,
        description="How long a kept connection that nobody uses stays open after SIGTERM: a request "
        "may be on its way. One that is used is closed with its next answer.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (), description="CIDR ranges of peers whose tenant header is believed."
    )
    explain_to: tuple[Network, ...] = Field(
        (),
        description="CIDR ranges of peers whose requests are explained instead of sent where they say "
        "`x-gateway-explain: 1`; of others' requests that tells nothing.",
    )


# For the chart's schema: one kind of address at least.
_ADDRESSED: dict[str, Any] = {
    "anyOf": [{"required": [each]} for each in ("base_url", "backends", "dns")]
}


class Upstream(Section):
    """A provider endpoint, or a pool of replicas; our `/v1/X` maps to `<base_url>/X`."""

    model_config = ConfigDict(json_schema_extra=_ADDRESSED)

    base_url: BaseUrl | None = Field(
        None,
        description="Base URL with the provider's own prefix: https://api.openai.com/v1. Required, "
        "unless there are `backends` or `dns`.",
    )
    engine: EngineName | None = Field(
        None,
        description="What runs there, where it is one's own; it names the `provider` too. openai: any "
        "other server of OpenAI's API. Unset: as `provider` says, else openai.",
    )
    backends: tuple[BackendAt, ...] = Field(
        (), description="Replicas of one model: a pool (docs/how-to/pools.md)."
    )
    dns: BaseUrl | None = Field(
        None,
        description="A URL whose host name has one address for each replica, such as a headless "
        "Service: http://vllm.models:8000/v1.",
    )
    dns_interval_s: Positive = Field(
        DNS_INTERVAL_S, description="How often that name is resolved anew."
    )
    provider: ProviderName | None = Field(
        None,
        description="Whose documented rules hold; unset: by host name, else `unknown`, the most "
        "careful one.",
    )
    api_key: Credential | None = Field(
        None,
        description="Configured credential that replaces the client's; unset: the client's own "
        "passes through untouched.",
    )
    deployment: Literal["standard", "provisioned"] | None = Field(
        None,
        description="Azure: what kind its deployments are, and that each is named after its model. "
        "Unset: neither is known, so no markers or keys are sent there.",
    )
    connect_timeout_s: Positive = Field(
        10 * SECONDS, description="Deadline for connecting (TLS included)."
    )
    idle_timeout_s: Positive = Field(
        10 * MINUTES, description="Longest silence of the upstream before the call is given up."
    )
    propagate_trace: bool = Field(
        False, description="Send our `traceparent` along (never baggage)."
    )
    metrics_interval_s: Duration | None = Field(
        None,
        description="vllm, sglang, llamacpp: read the engine's `/metrics` (beside `/v1`) so often, and "
        "tell its load and prefix hits in `GET /admin/stats` and in metrics; 0 never. Unset: every 5 "
        "seconds that of each replica of a pool, which is how the size of its cache is known; else "
        "never.",
    )
    routing: Routing | None = Field(None, description="Pools: which replica gets a request.")
    health: Health | None = Field(None, description="Pools: when a replica is trusted.")

    @model_validator(mode="before")
    @classmethod
    def _pools_have_both(cls, given: Any) -> Any:
        # So that the effective config shows what holds for a pool, and only for one.
        return with_pool_defaults(given)


class Telemetry(Section):
    """OpenTelemetry; the standard OTEL_* variables say where spans go."""

    traces: Traces = Field(
        "auto", description="auto: on when an OTLP endpoint is set (OTEL_EXPORTER_OTLP_ENDPOINT)."
    )
    metrics: bool = Field(True, description="Collect metrics and serve /metrics.")
    genai_names: Literal["latest", "v1_41", "both"] = Field(
        "latest",
        description="Which generation of gen_ai.* names spans and metrics carry. both: metrics under "
        "both, spans under the latest.",
    )
    max_series: int = Field(
        2000,
        ge=2000,
        description="Series of all metrics together; with more of them, more models and replicas get "
        "a label of their own.",
    )


class Log(Section):
    """One line for each request."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe line written."
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: pretty on a terminal, JSON elsewhere."
    )


DEFAULT_UPSTREAMS: dict[str, Any] = {
    "openai": {"base_url": "https://api.openai.com/v1", "provider": "openai"},
    "anthropic": {"base_url": "https://api.anthropic.com/v1", "provider": "anthropic"},
}


class Config(Section):
    """Everything that can be set."""

    server: Server = Field(Server(), description="Where the gateway listens.")
    upstreams: dict[UpstreamName, Upstream] = Field(
        default_factory=dict,
        description="Named provider endpoints; `openai` and `anthropic` exist unless replaced.",
    )
    routes: tuple[Route, ...] = Field((), description="Rules in order; the first match decides.")
    cache: Cache = Field(Cache(), description="The response cache.")
    prompt_cache: PromptCache = Field(
        PromptCache(), description="What is done for the provider's prompt cache."
    )
    warm: tuple[WarmUp, ...] = Field(
        (), description="Requests whose prompts are kept in their providers' caches."
    )
    store: Store = Field(Store(), description="Where entries live.")
    ledger: Ledger = Field(Ledger(), description="What was paid and saved.")
    admin: Admin = Field(Admin(), description="The admin port.")
    telemetry: Telemetry = Field(Telemetry(), description="Traces and metrics.")
    log: Log = Field(Log(), description="The log.")

    @field_validator("upstreams", mode="before")
    @classmethod
    def _keep_the_defaults(cls, given: Any) -> Any:
        """The two defaults stay; what is given overrides them member by member."""
        if not isinstance(given, Mapping):
            return given
        merged: dict[Any, Any] = dict(DEFAULT_UPSTREAMS)
        for name, upstream in given.items():
            default = DEFAULT_UPSTREAMS.get(name)
            if default and isinstance(upstream, Mapping):
                merged[name] = with_default(upstream, default)
            else:
                merged[name] = upstream
        return merged

    @model_validator(mode="after")
    def _hold_together(self) -> Config:
        for _, problem, mend in contradictions(self.model_dump()):
            raise broken(problem, mend)
        return self

    def redacted(self) -> dict[str, Any]:
        """The whole tree for printing: plain JSON values, without any secret."""
        plain: dict[str, Any] = redact(self.model_dump())
        return plain

    def generation(self) -> str:
        """16 hex digits that change when a setting does: equal configs, equal generation.

        Of secrets only their number counts, so that it can be shown, and a key can be rotated
        without forgetting anything.
        """
        plain = orjson.dumps(self.redacted(), option=orjson.OPT_SORT_KEYS)
        return blake3(plain).hexdigest(length=8)


def contradictions(tree: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Where settings, each fine alone, don't go together: path, problem, mend.

    Takes the raw tree, so that a load can name these beside the faults of single settings;
    whatever has the wrong shape is skipped, because that is a fault of its own.
    """
    yield from _one_port_twice(tree.get("server"))
    yield from _routes_to_nowhere(tree.get("routes"), tree.get("upstreams"))
    yield from pool_contradictions(tree.get("upstreams"), DEFAULT_UPSTREAMS)
    yield from _silent_engines(tree.get("upstreams"))
    yield from redis_contradictions(tree.get("store"))
    yield from admin_contradictions(tree.get("admin"))
    yield from warm_contradictions(tree.get("warm"), tree.get("upstreams"), DEFAULT_UPSTREAMS)


_Found = Iterator[tuple[tuple[str | int, ...], str, str]]


def _one_port_twice(server: Any) -> _Found:
    if not isinstance(server, Mapping):
        return
    settings = Server.model_fields

    def effective(name: str) -> str:
        value = server.get(name)
        return str(settings[name].default if value is None else value).strip().lower()

    port, host = effective("port"), effective("host")
    probe_port, probe_host = effective("probe_port"), effective("probe_host")
    same_host = host == probe_host or not {host, probe_host}.isdisjoint({"0.0.0.0", "::"})  # noqa: S104
    if port == probe_port and port.strip("0") and same_host:
        yield (
            ("server", "probe_port"),
            f"is {port}, the port that the API has",
            "give the probes a port of their own, such as 9180",
        )


def _routes_to_nowhere(routes: Any, upstreams: Any) -> _Found:
    if not isinstance(routes, list | tuple):
        return
    known = {*DEFAULT_UPSTREAMS, *(upstreams if isinstance(upstreams, Mapping) else ())}
    for index, route in enumerate(routes):
        name = route.get("upstream") if isinstance(route, Mapping) else None
        if isinstance(name, str) and name not in known:
            yield (
                ("routes", index, "upstream"),
                f"`{name}` is not an upstream",
                f"use one of {', '.join(sorted(map(str, known)))}, or add it under `upstreams`",
            )


def _silent_engines(upstreams: Any) -> _Found:
    for name, upstream in (upstreams if isinstance(upstreams, Mapping) else {}).items():
        if not isinstance(upstream, Mapping):
            continue
        if provider_of(upstream.get("engine"), upstream.get("provider")) in ENGINES:
            continue
        wanted = upstream.get("metrics_interval_s")
        # What is no number is a fault of its own.
        if wanted and not isinstance(wanted, bool) and str(wanted).strip().strip("0.") != "":
            yield (
                ("upstreams", name, "metrics_interval_s"),
                "is set for an upstream whose metrics can't be read",
                f"set its engine to one of {', '.join(ENGINES)}, or leave it out",
            )
