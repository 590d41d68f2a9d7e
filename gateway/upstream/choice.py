"""Which upstream gets a request, and which cache policy holds for it.

Rule 1: `/u/NAME/v1/...` says it outright.
Rule 2: else the first route of the config that matches path and model, and names an upstream.
Rule 3: else the shape: Anthropic for `/v1/messages*`, and for paths that both providers have when
the request carries `anthropic-version` or `x-api-key`; otherwise OpenAI.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.config.pools import engine_of, provider_of
from gateway.config.prompt_caching import RoutePromptCache
from gateway.core.plan import Markers
from gateway.core.policy import CachePolicy
from gateway.core.prompt_policy import PromptPolicy
from gateway.core.rewrites import Rewrite
from gateway.errors import BadRequest, NotFound
from gateway.providers import registry
from gateway.providers.engine_metrics import ENGINE_METRICS
from gateway.providers.prompt_cache_hosts import prompt_cache_provider
from gateway.providers.unknown import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config import Cache, Config, PromptCache, RouteCache, Upstream
    from gateway.providers.base import Provider


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A configured upstream, ready to use."""

    name: str
    provider: Provider
    base_url: str
    api_key: str | None
    connect_timeout_s: float
    idle_timeout_s: float
    propagate_trace: bool
    host: str
    port: int | None
    identity: bytes
    """Provider and base URL: who answers, as a part of every identity."""
    deployment: str = ""
    """Azure: `standard`, `provisioned`, or not known."""
    caches_as: str = UNKNOWN.name
    """Whose rules hold for its prompt cache: the provider's, or those of its host."""
    metrics_interval_s: float = 0.0
    """How often an engine's own metrics are read; 0 for never."""
    pool: bool = False
    """It has replicas (`gateway.upstream.replicas`): `base_url` is only the first, or a name for all."""
    engine: str = ""
    """What runs there: `vllm`, `sglang`, `llamacpp`, or `openai` for any other server of its API; empty
    where nobody said so."""
    authority: str = ""
    """What `Host`, and TLS, are to say in the place of the URL's own host, which is but a number."""

    def __repr__(self) -> str:
        return f"<Endpoint {self.name}: {self.provider.name} at {self.base_url}>"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request target, taken apart; `path` is ours (`/v1/...`), both as received."""

    explicit: str | None
    path: str
    query: str | None
    """None without a question mark, empty after a bare one."""


POOL_METRICS_S = 5.0
"""How often a pool's engines are read where the config doesn't say."""

# Paths of OpenAI's that Anthropic doesn't have: headers don't change who is meant.
_OPENAI_ONLY = (
    "/v1/chat/",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/images/",
    "/v1/audio/",
    "/v1/moderations",
    "/v1/realtime",
    "/v1/assistants",
    "/v1/threads",
    "/v1/vector_stores",
    "/v1/fine_tuning/",
    "/v1/uploads",
    "/v1/conversations",
    "/v1/videos",
    "/v1/evals",
    "/v1/containers",
)
_EXPLICIT = re.compile(r"/u/([^/?]*)(/[^?]*)?")
_DOTS = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)


def take_apart(target: str) -> Asked:
    """The parts of a raw request target. Raises `BadRequest`, `NotFound`."""
    return _usual(target) if len(target) <= _USUAL else _taken_apart(target)


# Longer ones are not worth remembering, and would be somebody's to fill our memory with.
_USUAL = 200


@lru_cache(256)
def _usual(target: str) -> Asked:
    return _taken_apart(target)


def _taken_apart(target: str) -> Asked:
    path, mark, query = target.partition("?")
    if not path.startswith("/"):
        # Absolute form: a client that uses us as a forward proxy.
        raise BadRequest(f"a request target must be a path, not {path[:80]!r}")
    if _DOTS.search(path):
        raise BadRequest("the path holds a dot segment (`.` or `..`): send the resolved path")
    explicit = None
    matched = _EXPLICIT.fullmatch(path)
    if matched is not None:
        explicit, path = matched[1], matched[2] or "/"
    if path != "/v1" and not path.startswith("/v1/"):
        raise NotFound(
            f"no such path: {path[:120]}. API paths begin with /v1/ (or /u/NAME/v1/): set the "
            "client's base URL to the gateway's address as `gateway serve` prints it"
        )
    return Asked(explicit, path, query if mark else None)


class Choice:
    """The rules of one config."""

    def __init__(self, config: Config) -> None:
        self.endpoints = {
            name: _endpoint(name, upstream) for name, upstream in config.upstreams.items()
        }
        self._routes = config.routes
        self._policies = [_of_route(route.cache, config.cache) for route in config.routes]
        self._usual_policy = _general(config.cache)
        self._prompt_policies = [
            _prompt_policy(route.prompt_cache, config.prompt_cache) for route in config.routes
        ]
        self._usual_prompt_policy = _prompt_policy(RoutePromptCache(), config.prompt_cache)

    def needs_model(self, asked: Asked) -> bool:
        """Can't be decided from the path alone: some route for it names a model."""
        return any(r.model != "*" and fnmatchcase(asked.path, r.path) for r in self._routes)

    def endpoint(self, asked: Asked, headers: Mapping[str, str], model: str) -> Endpoint:
        """Who gets the request. Raises `NotFound` for an upstream that isn't there."""
        if asked.explicit is not None:
            endpoint = self.endpoints.get(asked.explicit)
            if endpoint is None:
                known = ", ".join(sorted(self.endpoints))
                raise NotFound(f"no upstream named {asked.explicit[:64]!r}; there are: {known}")
            return endpoint
        for route in self._routes:
            if route.upstream is not None and _matches(route.path, route.model, asked, model):
                return self.endpoints[route.upstream]
        return self.endpoints[_by_shape(asked.path, headers)]

    def policy(self, asked: Asked, model: str) -> CachePolicy:
        """The cache settings for the request: the first matching route that says anything."""
        for route, policy in zip(self._routes, self._policies, strict=True):
            if _matches(route.path, route.model, asked, model):
                return policy
        return self._usual_policy

    def prompt_policy(self, asked: Asked, model: str) -> PromptPolicy:
        """What may be done for the provider's prompt cache: as `policy`."""
        for route, policy in zip(self._routes, self._prompt_policies, strict=True):
            if _matches(route.path, route.model, asked, model):
                return policy
        return self._usual_prompt_policy


def _prompt_policy(own: RoutePromptCache, general: PromptCache) -> PromptPolicy:
    rewrites = general.rewrites if own.rewrites is None else own.rewrites
    return PromptPolicy(Markers(own.markers or general.markers), frozenset(map(Rewrite, rewrites)))


def _general(cache: Cache) -> CachePolicy:
    return CachePolicy(
        when=cache.when,
        ttl_s=cache.ttl_s,
        truncated=cache.store.truncated,
        refused=cache.store.refused,
        samples=cache.samples,
        fold_text=cache.fold_text,
        coalesce=cache.coalesce,
        stale_while_revalidate_s=cache.stale_while_revalidate_s,
        stale_if_error_s=cache.stale_if_error_s,
    )


def _of_route(own: RouteCache, cache: Cache) -> CachePolicy:
    """What the route leaves unsaid comes from `cache`, member by member."""
    said = own.store.model_dump(exclude_unset=True) if own.store else {}
    return CachePolicy(
        when=own.when or cache.when,
        ttl_s=own.ttl_s or cache.ttl_s,
        truncated=said.get("truncated", cache.store.truncated),
        refused=said.get("refused", cache.store.refused),
        samples=own.samples or cache.samples,
        fold_text=cache.fold_text if own.fold_text is None else own.fold_text,
        coalesce=own.coalesce or cache.coalesce,
        stale_while_revalidate_s=_either(
            own.stale_while_revalidate_s, cache.stale_while_revalidate_s
        ),
        stale_if_error_s=_either(own.stale_if_error_s, cache.stale_if_error_s),
    )


def _either(own: float | None, general: float) -> float:
    return general if own is None else own


def _matches(path: str, model_glob: str, asked: Asked, model: str) -> bool:
    return fnmatchcase(asked.path, path) and fnmatchcase(model, model_glob)


def _by_shape(path: str, headers: Mapping[str, str]) -> str:
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return "anthropic"
    if path.startswith(_OPENAI_ONLY):
        return "openai"
    return "anthropic" if "anthropic-version" in headers or "x-api-key" in headers else "openai"


def url(endpoint: Endpoint, asked: Asked) -> str:
    """`/v1/X` -> `<base_url>/X`, spelled as the client spelled it."""
    query = "" if asked.query is None else f"?{asked.query}"
    return f"{endpoint.base_url}{asked.path.removeprefix('/v1')}{query}"


def replica_endpoint(pool: Endpoint, base_url: str, authority: str = "") -> Endpoint:
    """Of one replica: as its pool's in all but where it is. Equal identity: any may answer."""
    host, port = _where(base_url)
    return replace(pool, base_url=base_url, host=host, port=port, pool=False, authority=authority)


def _metrics_interval_s(upstream: Upstream) -> float:
    if upstream.metrics_interval_s is not None:
        return upstream.metrics_interval_s
    is_pool = bool(upstream.backends or upstream.dns)
    engine = engine_of(upstream.engine, upstream.provider, pool=is_pool)
    return POOL_METRICS_S if is_pool and engine in ENGINE_METRICS else 0.0


def _where(base_url: str) -> tuple[str, int]:
    parts = urlsplit(base_url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _endpoint(name: str, upstream: Upstream) -> Endpoint:
    # Replicas may come and go while it runs: who it is, is what the config says.
    urls = [each.url for each in upstream.backends]
    urls += [url for url in (upstream.dns, upstream.base_url) if url is not None]
    base_url = upstream.dns or urls[0]
    host, port = _where(base_url)
    named = provider_of(upstream.engine, upstream.provider)
    provider = registry.resolve(named, host)
    if not all(provider.serves(_where(url)[0]) for url in urls):
        # Somebody else's door to the provider (another gateway, a stand-in): it may read headers
        # that the provider doesn't know, credentials among them.
        provider = replace(provider, header_prefixes=None, headers_excluded={})
    return Endpoint(
        name=name,
        provider=provider,
        base_url=base_url,
        api_key=upstream.api_key.get_secret_value() if upstream.api_key else None,
        connect_timeout_s=upstream.connect_timeout_s,
        idle_timeout_s=upstream.idle_timeout_s,
        propagate_trace=upstream.propagate_trace,
        host=host,
        port=port,
        identity=" ".join((provider.name, *sorted(set(urls)))).encode(),
        deployment=upstream.deployment or "",
        # What the config says of a provider is believed, `unknown` included.
        caches_as=(prompt_cache_provider(host) if named is None else "") or provider.name,
        metrics_interval_s=_metrics_interval_s(upstream),
        pool=bool(upstream.backends or upstream.dns),
        engine=engine_of(upstream.engine, upstream.provider, pool=upstream.base_url is None),
    )
