"""Pools: one upstream made of replicas, how its requests are placed, and when a replica is trusted."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gateway.config.kinds import (
    ENGINES,
    BackendName,
    BaseUrl,
    Count,
    Duration,
    Policy,
    Positive,
    PositiveInt,
    broken,
)
from gateway.config.section import MIB, MINUTES, SECONDS, Section

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

DNS_INTERVAL_S = 10 * SECONDS
EngineName = Literal["vllm", "sglang", "llamacpp", "openai"]


class BackendAt(Section):
    """One replica of a pool. Its URL alone may stand for it."""

    url: BaseUrl = Field(
        description="Base URL of the replica, with its own prefix: http://10.0.0.1:8000/v1."
    )
    name: BackendName | None = Field(
        None, description="What headers, logs and metrics call it; unset: its host and port."
    )
    weight: Positive = Field(
        1.0, description="Its share of new conversations, beside the others': 2 is twice as many."
    )

    @model_validator(mode="before")
    @classmethod
    def _url_alone(cls, given: Any) -> Any:
        return {"url": given} if isinstance(given, str) else given

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        shown = handler(core_schema)
        section = handler.resolve_ref_schema(shown)
        either = {"anyOf": [{"type": "string"}, dict(section)]}
        section.clear()
        section.update(either)
        return shown

    def named(self) -> str:
        """The configured name, or host and port."""
        return self.name or default_name(self.url)


class Routing(Section):
    """Which replica gets a request."""

    policy: Policy = Field(
        "prefix",
        description="prefix: who holds the prompt, unless that costs more than it saves; session: by "
        "the conversation alone; round_robin: each in turn; least_pending: the fewest tokens that wait; "
        "delegate: an inference gateway at the one address picks.",
    )
    break_s: Duration = Field(
        10 * SECONDS,
        description="A request that has something to lose waits at most so much longer for the "
        "replica that holds its conversation.",
    )
    keep_factor: Duration = Field(
        7.0, description="And at most so many times the seconds of prefill that a move would cost."
    )
    new_break_s: Duration = Field(
        5 * SECONDS,
        description="A new conversation leaves its home by hash at so much more waiting, where other "
        "gateways place requests that this one does not hear of.",
    )
    cache_tokens: Count = Field(
        0,
        description="Prompt tokens that one replica's cache holds, where the engine does not tell; 0: "
        "not known.",
    )
    prefill_tokens_per_s: Duration = Field(
        0.0,
        description="How fast a replica of weight 1 computes a prompt, until that was seen; 0: not "
        "known.",
    )
    mirror_bytes: PositiveInt = Field(
        256 * MIB,
        description="Budget of what is remembered of the replicas' caches together (fingerprints, no "
        "content).",
    )
    pin_slots: bool = Field(
        False,
        description="llamacpp: say in which slot a prompt should be computed (`id_slot`), so that it "
        "does not displace another conversation's.",
    )
    warm_tokens: Count = Field(
        100_000,
        description="Most tokens of the hottest prefixes that are sent to a new or restarted replica "
        "before it takes traffic; 0: none.",
    )
    warm_timeout_s: Duration = Field(
        10 * SECONDS,
        description="How long that may keep a replica from taking traffic; 0: it is not warmed.",
    )


class Health(Section):
    """When a replica of a pool is asked, and when it is left alone."""

    path: str | None = Field(
        None,
        description="What is asked whether a replica is well, beginning with /, on its host. Unset: "
        "`/health` beside its `/v1` (vllm, sglang, llamacpp), or its `/v1/models` (openai).",
    )
    interval_s: Duration = Field(
        5 * SECONDS, description="How often each replica is asked; 0: never."
    )
    timeout_s: Positive = Field(
        2 * SECONDS, description="How long it may take to answer; silence is a failure."
    )
    unhealthy_after: PositiveInt = Field(
        3, description="Failed probes in a row after which it gets no requests."
    )
    healthy_after: PositiveInt = Field(
        2, description="Good probes in a row after which it gets them again."
    )
    eject_after: Count = Field(
        3,
        description="Failed requests in a row after which a replica is left alone for a while; 0: "
        "requests eject nobody.",
    )
    eject_s: Positive = Field(
        10 * SECONDS,
        description="How long the first time; twice as long each time that it fails again.",
    )
    eject_max_s: Positive = Field(5 * MINUTES, description="How long at most.")
    outliers: bool = Field(
        True,
        description="Also leave alone for a while who fails, or is slow, far more often than its "
        "peers: never more than half of the pool.",
    )

    @field_validator("path")
    @classmethod
    def _is_a_path(cls, path: str | None) -> str | None:
        if path is not None and not _PATH.fullmatch(path):
            raise broken("is not a path", "begin it with /, such as /health")
        return path


_PATH = re.compile(r"/[!-~]*")


def default_name(url: str) -> str:
    """What a replica at this base URL is called where nobody says: `10.0.0.1:8000`."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def same_address(url: str) -> str:
    """Equal for base URLs of one and the same address, however they are spelled."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{default_name(url).lower()}{parts.path.rstrip('/')}"


def provider_of(engine: str | None, provider: str | None) -> str | None:
    """The provider that both settings together name; None: by host name."""
    if provider is not None or engine is None:
        return provider
    return engine if engine in ENGINES else "unknown"


def engine_of(engine: str | None, provider: str | None, *, pool: bool) -> str:
    """The engine that both settings together name; where they name none, `openai` for a pool and
    otherwise an empty word.
    """
    if engine is not None:
        return engine
    if provider is not None and provider in ENGINES:
        return provider
    return "openai" if pool else ""


def is_pool(upstream: Any) -> bool:
    """Has this upstream, as written, replicas?"""
    return isinstance(upstream, Mapping) and bool(upstream.get("backends") or upstream.get("dns"))


def with_pool_defaults(upstream: Any) -> Any:
    """An upstream as written, with the sections of pools where it is one."""
    if not is_pool(upstream):
        return upstream
    missing = [each for each in ("routing", "health") if upstream.get(each) is None]
    return {**upstream, **{each: {} for each in missing}}


_Steps = tuple[str | int, ...]
_Found = Iterator[tuple[_Steps, str, str]]
MOST_REPLICAS = 1024
"""In one pool."""
_ADDRESSES = ("base_url", "backends", "dns")


def with_default(upstream: Mapping[str, Any], default: Mapping[str, Any]) -> Mapping[str, Any]:
    """`upstream` laid over the built-in one of its name. Another address is another endpoint: then
    nothing is inherited, because the wrong provider's rules would make wrong cache keys.
    """
    return upstream if any(each in upstream for each in _ADDRESSES) else {**default, **upstream}


def pool_contradictions(upstreams: Any, defaults: Mapping[str, Any]) -> _Found:
    """Upstreams without an address or with two kinds, replicas named twice, settings of pools for
    what is none, an engine that its provider denies.
    """
    given = upstreams if isinstance(upstreams, Mapping) else {}
    for name, upstream in given.items():
        if isinstance(upstream, Mapping):
            whole = with_default(upstream, defaults.get(name, {}))
            path = ("upstreams", name)
            yield from _addresses(path, whole, {*map(str, given), *defaults})
            yield from _twice(path, whole.get("backends"))
            yield from _engine(path, whole)
            yield from _of_pools_only(path, whole)
            yield from _resolvable(path, whole)
            yield from _delegated(path, whole)


def _addresses(path: _Steps, upstream: Mapping[str, Any], known: set[str]) -> _Found:
    one = upstream.get("base_url") is not None
    if one and is_pool(upstream):
        many = " and ".join(each for each in ("backends", "dns") if upstream.get(each))
        yield (
            (*path, "base_url"),
            f"stands beside {many}",
            "keep base_url for one address, or backends and dns for a pool of replicas",
        )
    elif not one and not is_pool(upstream):
        name = str(path[1])
        variable = f"GATEWAY_UPSTREAMS__{name.upper().replace('-', '_')}__BASE_URL"
        mend = f"set it in the file or as {variable}, or give it `backends` or `dns`"
        close = difflib.get_close_matches(name, sorted(known - {name}), n=1)
        if close:
            mend += f"; or did you mean the upstream `{close[0]}`?"
        yield (*path, "base_url"), "is missing", mend


def _twice(path: _Steps, backends: Any) -> _Found:
    if isinstance(backends, list | tuple) and len(backends) > MOST_REPLICAS:
        yield (
            (*path, "backends"),
            f"lists {len(backends)} replicas, and a pool takes {MOST_REPLICAS}",
            "make two pools of them, and routes that share the requests out",
        )
        return
    names: dict[str, int] = {}
    urls: dict[str, int] = {}
    for index, each in enumerate(backends if isinstance(backends, list | tuple) else ()):
        at = each.get("url") if isinstance(each, Mapping) else each
        own = each.get("name") if isinstance(each, Mapping) else None
        if not isinstance(at, str):
            continue
        try:
            name, url = str(own or default_name(at)), same_address(at)
        except ValueError:
            continue  # a fault of its own
        here = (*path, "backends", index)
        if url in urls:
            yield here, f"is the address of backends[{urls[url]}]", "keep one of the two"
        elif name in names:
            yield (
                (*here, "name") if own else here,
                f"is called `{name}`, as backends[{names[name]}] is",
                "give each a `name` of its own",
            )
        urls.setdefault(url, index)
        names.setdefault(name, index)


def _engine(path: _Steps, upstream: Mapping[str, Any]) -> _Found:
    engine, provider = upstream.get("engine"), upstream.get("provider")
    if not isinstance(engine, str) or not isinstance(provider, str) or engine == provider:
        return
    if engine in ENGINES:
        mend = f"leave the provider out: engine {engine} says it already"
    elif provider in ENGINES:
        mend = f"set engine to {provider}, or leave it out"
    else:
        return
    yield (*path, "provider"), f"contradicts engine {engine}", mend


def _of_pools_only(path: _Steps, upstream: Mapping[str, Any]) -> _Found:
    if is_pool(upstream):
        return
    for section in ("routing", "health"):
        if isinstance(upstream.get(section), Mapping) and upstream[section]:
            yield (
                (*path, section),
                "is set for an upstream without replicas",
                "give it `backends` or `dns` in the place of base_url, or leave this out",
            )


def _resolvable(path: _Steps, upstream: Mapping[str, Any]) -> _Found:
    dns = upstream.get("dns")
    if dns is None and upstream.get("dns_interval_s", DNS_INTERVAL_S) != DNS_INTERVAL_S:
        yield (
            (*path, "dns_interval_s"),
            "is set where no name is resolved",
            "give the upstream `dns`, or leave this out",
        )
    if not isinstance(dns, str):
        return
    try:
        ipaddress.ip_address(urlsplit(dns).hostname or "")
    except ValueError:
        return
    yield (
        (*path, "dns"),
        "names an address, and there is nothing to resolve",
        "list it under `backends`",
    )


def _delegated(path: _Steps, upstream: Mapping[str, Any]) -> _Found:
    routing, backends = upstream.get("routing"), upstream.get("backends")
    if not isinstance(routing, Mapping) or routing.get("policy") != "delegate":
        return
    many = isinstance(backends, list | tuple) and len(backends) > 1
    if many or upstream.get("dns"):
        yield (
            (*path, "routing", "policy"),
            "is delegate, and there is more than one address to choose from",
            "name only the inference gateway under `backends`, or choose another policy",
        )
