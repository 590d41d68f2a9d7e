"""One frozen tree of settings: file, then environment, then flags; every fault named at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import orjson
from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from gateway.config.kinds import (
    BaseUrl,
    Coalesce,
    Count,
    Credential,
    HeaderName,
    Host,
    Network,
    PathGlob,
    Port,
    Positive,
    PositiveInt,
    ProviderName,
    Samples,
    ScopeKeys,
    StoreUrl,
    Traces,
    UpstreamName,
    When,
    broken,
)
from gateway.config.redaction import redact, redact_url

KIB = 1024
MIB = 1024 * KIB
SECONDS = 1.0
MINUTES = 60.0
HOURS = 3600.0


class Section(BaseModel):
    """A frozen part of the tree; an unknown member is a fault, not a surprise.

    Neither its repr nor its errors show a secret or a password inside a URL.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redact_url(value) if isinstance(value, str) else value


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
        "quarter of the container's memory limit (at least 64 MiB), or 512 MiB where there is none.",
    )
    drain_timeout_s: Positive = Field(
        60 * SECONDS, description="How long running requests may go on after SIGTERM."
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (), description="CIDR ranges of peers whose tenant header is believed."
    )


class Upstream(Section):
    """A provider endpoint; our `/v1/X` maps to `<base_url>/X`."""

    base_url: BaseUrl = Field(
        description="Base URL with the provider's own prefix: https://api.openai.com/v1."
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
    samples: Samples | None = Field(None, description="As `cache.samples`, for this route.")
    fold_text: bool | None = Field(None, description="As `cache.fold_text`, for this route.")
    coalesce: Coalesce | None = Field(None, description="As `cache.coalesce`, for this route.")


class Route(Section):
    """The first route whose `path` and `model` match decides."""

    path: PathGlob = Field("*", description="Glob over our path: /v1/chat/completions, /v1/*.")
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
    tenant_header: HeaderName = Field(
        "x-gateway-tenant",
        description="Names the tenant; believed only from `server.trusted_proxies`.",
    )
    secret: ScopeKeys = Field(
        (),
        description="Keys of the scope hash, shared by replicas: the first writes, all read. "
        "Unset: kept beside the SQLite file or in Redis, else random.",
    )
    store: StoreClasses = Field(StoreClasses(), description="Which classes of answers to keep.")
    samples: Samples = Field(
        1,
        description="How many answers to one question are fetched before they are served again, "
        "one of them at random: for code that asks the same again to vote or choose.",
    )
    fold_text: bool = Field(
        False,
        description="Take texts that differ only in CR LF or LF and in white space at line ends "
        "for the same. A model may see the difference.",
    )
    coalesce: Coalesce = Field(
        "deterministic",
        description="Identical requests at the same time share one upstream call. deterministic: "
        "those with temperature 0 or a seed; all: the others too, which then get one and the same "
        "answer; off: each makes its own.",
    )
    max_entry_bytes: PositiveInt = Field(
        8 * MIB, description="Largest answer that is collected and stored."
    )
    door_entries: Count = Field(
        20_000,
        description="Exact repeats that skip parsing: how many are remembered (1.25 KiB each).",
    )


class StoreTls(Section):
    """TLS towards Redis, with a rediss:// URL. The server's certificate is always checked."""

    ca_file: Path | None = Field(
        None, description="Who signs the server's certificate (PEM); unset: the system's list."
    )
    cert_file: Path | None = Field(None, description="Our own certificate (PEM), if asked for.")
    key_file: Path | None = Field(None, description="Its key (PEM); unset: in `cert_file`.")
    key_password: SecretStr | None = Field(None, description="What opens the key.")
    check_hostname: bool = Field(
        True, description="Whether the certificate must name the host that was dialled."
    )


class Store(Section):
    """Where entries live."""

    url: StoreUrl | None = Field(
        None,
        description="memory://, sqlite:///path, redis://host:6379/0, "
        "redis+sentinel://host1,host2/service/0, redis+cluster://host1,host2; rediss for TLS. "
        "Unset: SQLite in the user's state folder.",
    )
    username: str = Field("", description="ACL user of Redis; unset: the URL's, or the default.")
    password: SecretStr | None = Field(
        None, description="Password of Redis, which is shown nowhere; unset: the URL's, or none."
    )
    sentinel_username: str = Field("", description="ACL user of the Sentinels themselves.")
    sentinel_password: SecretStr | None = Field(
        None, description="Password of the Sentinels themselves."
    )
    tls: StoreTls = Field(StoreTls(), description="TLS towards Redis.")
    read_from_replicas: bool = Field(
        False,
        description="Ask replicas (Sentinel, Cluster) for entries: less work for primaries, and "
        "now and then a miss for what was stored just before.",
    )
    memory_bytes: Count = Field(
        64 * MIB, description="Byte budget of the memory tier in front; 0 turns it off."
    )
    deadline_ms: Positive = Field(50.0, description="Deadline of every store operation.")
    key_prefix: str = Field("warmgate:", description="Prefix of every key in Redis.")


class Telemetry(Section):
    """OpenTelemetry; the standard OTEL_* variables say where spans go."""

    traces: Traces = Field(
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
    upstreams: dict[UpstreamName, Upstream] = Field(
        default_factory=dict,
        description="Named provider endpoints; `openai` and `anthropic` exist unless replaced.",
    )
    routes: tuple[Route, ...] = Field((), description="Rules in order; the first match decides.")
    cache: Cache = Field(Cache(), description="The response cache.")
    store: Store = Field(Store(), description="Where entries live.")
    telemetry: Telemetry = Field(Telemetry(), description="Traces and metrics.")
    log: Log = Field(Log(), description="The log.")

    @field_validator("upstreams", mode="before")
    @classmethod
    def _keep_the_defaults(cls, given: Any) -> Any:
        """The two defaults stay; what is given overrides them member by member.

        Another base URL is another endpoint: the default's provider is not inherited with it,
        because the wrong provider's rules would make wrong cache keys.
        """
        if not isinstance(given, Mapping):
            return given
        merged: dict[Any, Any] = dict(DEFAULT_UPSTREAMS)
        for name, upstream in given.items():
            default = DEFAULT_UPSTREAMS.get(name)
            if default and isinstance(upstream, Mapping):
                inherited = {} if "base_url" in upstream else default
                merged[name] = {**inherited, **upstream}
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
    yield from _redis_contradictions(tree.get("store"))


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


def _redis_contradictions(store: Any) -> _Found:
    """What a URL can't do that the settings beside it ask for."""
    if not isinstance(store, Mapping) or not isinstance(store.get("url"), str | None):
        return
    scheme, _, rest = (store.get("url") or "sqlite://").partition("://")
    tls = store.get("tls")
    for name, value in (tls if isinstance(tls, Mapping) else {}).items():
        if value not in (None, "", True) and not scheme.startswith("rediss"):
            yield (
                ("store", "tls", name),
                "is for TLS, and the URL asks for none",
                "write rediss in place of redis in store.url, or leave this out",
            )
    if isinstance(tls, Mapping) and tls.get("key_file") and not tls.get("cert_file"):
        yield (("store", "tls", "key_file"), "has no certificate beside it", "set cert_file too")
    if store.get("read_from_replicas") is True and "+" not in scheme:
        yield (
            ("store", "read_from_replicas"),
            "needs to be told where replicas are",
            "use a redis+sentinel:// or redis+cluster:// URL",
        )
    for name in ("sentinel_username", "sentinel_password"):
        if store.get(name) and "+sentinel" not in scheme:
            yield ("store", name), "is for redis+sentinel:// URLs", "leave it out"
    for name in ("username", "password"):
        if store.get(name) and not scheme.startswith("redis"):
            yield ("store", name), "is for Redis, and the URL is of another kind", "leave it out"
    user, colon, _ = rest.partition("/")[0].rpartition("@")[0].partition(":")
    for name, given in (("username", user), ("password", colon)):
        if given and store.get(name):
            yield ("store", name), "is in the URL as well", "leave one of them out"
    if "+cluster" in scheme and "{" in str(store.get("key_prefix", "")):
        yield (
            ("store", "key_prefix"),
            "has a {, so that a Cluster would keep all entries in one slot",
            "choose one without braces",
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
