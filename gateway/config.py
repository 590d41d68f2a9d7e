"""One frozen tree of settings: file, then environment, then flags; every fault named at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
)

KIB = 1024
MIB = 1024 * KIB
SECONDS = 1.0
MINUTES = 60.0
HOURS = 3600.0

ProviderName = Literal["openai", "anthropic", "unknown"]
When = Literal["always", "deterministic", "off"]
Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A frozen part of the tree; an unknown member is a fault, not a surprise."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Server(Section):
    """Where the gateway listens, and what it accepts."""

    host: str = Field("127.0.0.1", description="Address of the API port.")
    port: Port = Field(8080, description="API port; 0 takes a free one.")
    probe_host: str = Field("127.0.0.1", description="Address of the probe port.")
    probe_port: Port = Field(
        9180, description="Port of /livez, /readyz and /metrics, nothing else."
    )
    body_limit_bytes: PositiveInt = Field(
        64 * MIB,
        description="Largest request body that the gateway reads into memory; longer ones get 413. "
        "Passed-through uploads are streamed, not held, and not limited.",
    )
    drain_timeout_s: Positive = Field(
        60 * SECONDS, description="How long running requests may go on after SIGTERM."
    )
    trusted_proxies: tuple[str, ...] = Field(
        (), description="CIDR ranges of peers whose tenant header is believed."
    )


class Upstream(Section):
    """A provider endpoint; our `/v1/X` maps to `<base_url>/X`."""

    base_url: str = Field(
        description="Base URL with the provider's own prefix: https://api.openai.com/v1."
    )
    provider: ProviderName | None = Field(
        None,
        description="Whose documented rules hold; unset: by host name, else `unknown`, the most "
        "careful one.",
    )
    api_key: SecretStr | None = Field(
        None,
        description="Configured credential that replaces the client's; unset: the client's own "
        "passes through untouched.",
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


class StoreClasses(Section):
    """Classes of answers that are not stored unless asked for."""

    truncated: bool = Field(
        False,
        description="Store answers cut off by a token limit (those with a limit <= 16 always are).",
    )
    refused: bool = Field(False, description="Store refusals and filtered answers.")


class RouteCache(Section):
    """Cache settings of one route; what is unset comes from `cache`."""

    when: When | None = Field(None, description="As `cache.when`, for this route.")
    ttl_s: Positive | None = Field(None, description="As `cache.ttl_s`, for this route.")
    store: StoreClasses | None = Field(None, description="As `cache.store`, for this route.")


class Route(Section):
    """The first route whose `path` and `model` match decides."""

    path: str = Field("*", description="Glob over our path: /v1/chat/completions, /v1/*.")
    model: str = Field("*", description="Glob over the model that the body names: gpt-*.")
    upstream: str | None = Field(
        None, description="Name of an upstream; unset: chosen by the request's shape."
    )
    cache: RouteCache = Field(RouteCache(), description="Cache settings of this route.")


class Cache(Section):
    """The response cache."""

    when: When = Field(
        "always",
        description="always; deterministic: temperature 0 or a seed only; off: pass everything.",
    )
    ttl_s: Positive = Field(1 * HOURS, description="How long an answer may be served.")
    scope: Literal["credential", "tenant", "shared"] = Field(
        "credential", description="Who may share entries."
    )
    auth_ttl_s: Positive = Field(
        10 * MINUTES,
        description="In tenant and shared scope: how long an upstream's acceptance (or refusal) of "
        "a credential is remembered.",
    )
    tenant_header: str = Field(
        "x-gateway-tenant",
        description="Names the tenant; believed only from `server.trusted_proxies`.",
    )
    secret: tuple[SecretStr, ...] = Field(
        (),
        description="Keys of the scope hash, shared by replicas: the first writes, all read. "
        "Unset: kept beside the SQLite file or in Redis, else random.",
    )
    store: StoreClasses = Field(StoreClasses(), description="Which classes of answers to keep.")
    max_entry_bytes: PositiveInt = Field(
        8 * MIB, description="Largest answer that is collected and stored."
    )
    door_entries: Annotated[int, Field(ge=0)] = Field(
        20_000, description="Exact repeats that skip parsing: how many are remembered."
    )


class Store(Section):
    """Where entries live."""

    url: str | None = Field(
        None,
        description="memory://, sqlite:///path, redis://host:6379/0, rediss://...; unset: SQLite "
        "in the user's state folder.",
    )
    memory_bytes: Annotated[int, Field(ge=0)] = Field(
        64 * MIB, description="Byte budget of the memory tier in front; 0 turns it off."
    )
    deadline_ms: Positive = Field(50.0, description="Deadline of every store operation.")
    key_prefix: str = Field("warmgate:", description="Prefix of every key in Redis.")


class Telemetry(Section):
    """OpenTelemetry; the standard OTEL_* variables say where spans go."""

    traces: Literal["auto", "on", "off"] = Field(
        "auto", description="auto: on when an OTLP endpoint is set (OTEL_EXPORTER_OTLP_ENDPOINT)."
    )
    metrics: bool = Field(True, description="Collect metrics and serve /metrics.")
    genai_names: Literal["latest", "v1_41"] = Field(
        "latest", description="Which generation of gen_ai.* attribute names spans carry."
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
    upstreams: dict[str, Upstream] = Field(
        default_factory=dict,
        description="Named provider endpoints; `openai` and `anthropic` exist unless replaced.",
    )
    routes: tuple[Route, ...] = Field((), description="Rules in order; the first match decides.")
    cache: Cache = Field(Cache(), description="The response cache.")
    store: Store = Field(Store(), description="Where entries live.")
    telemetry: Telemetry = Field(Telemetry(), description="Traces and metrics.")
    log: Log = Field(Log(), description="The log.")
