"""The response cache, and what a route says of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.kinds import (
    Coalesce,
    Count,
    Duration,
    HeaderName,
    PathGlob,
    Positive,
    PositiveInt,
    Samples,
    ScopeKeys,
    When,
)
from gateway.config.prompt_caching import RoutePromptCache
from gateway.config.section import HOURS, MIB, MINUTES, SECONDS, Section


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
    stale_while_revalidate_s: Duration | None = Field(
        None, description="As `cache.stale_while_revalidate_s`, for this route."
    )
    stale_if_error_s: Duration | None = Field(
        None, description="As `cache.stale_if_error_s`, for this route."
    )


class Route(Section):
    """The first route whose `path` and `model` match decides."""

    path: PathGlob = Field("*", description="Glob over our path: /v1/chat/completions, /v1/*.")
    model: str = Field("*", description="Glob over the model that the body names: gpt-*.")
    upstream: str | None = Field(
        None, description="Name of an upstream; unset: chosen by the request's shape."
    )
    cache: RouteCache = Field(RouteCache(), description="Cache settings of this route.")
    prompt_cache: RoutePromptCache = Field(
        RoutePromptCache(), description="Prompt-cache settings of this route."
    )


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
    stale_while_revalidate_s: Duration = Field(
        0.0,
        description="How long after its lifetime an answer is still served at once, while its "
        "successor is asked for.",
    )
    stale_if_error_s: Duration = Field(
        0.0,
        description="How long after its lifetime an answer is served in the place of an upstream's "
        "failure (500, 502, 503, 504, 529, no connection, silence).",
    )
    max_entry_bytes: PositiveInt = Field(
        8 * MIB, description="Largest answer that is collected and stored."
    )
    purge_bound_s: Positive = Field(
        3 * SECONDS,
        description="So long after a purge no replica serves what was purged by tag: one that has "
        "not heard of purges for longer serves no entry with tags. They are looked for each second.",
    )
    door_entries: Count = Field(
        20_000,
        description="Exact repeats that skip parsing: how many are remembered (1.4 KiB each).",
    )
