"""The provider's prompt cache: markers, rewrites, hints, and what is kept warm."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from gateway.config.kinds import (
    ENGINES,
    Count,
    Duration,
    Markers,
    Positive,
    Refresh,
    Rewrite,
    UpstreamName,
    WarmName,
    broken,
)
from gateway.config.pools import provider_of
from gateway.config.section import MIB, MINUTES, SECONDS, Section


class RoutePromptCache(Section):
    """Prompt-cache settings of one route; what is unset comes from `prompt_cache`."""

    markers: Markers | None = Field(None, description="As `prompt_cache.markers`, for this route.")
    rewrites: tuple[Rewrite, ...] | None = Field(
        None, description="As `prompt_cache.rewrites`, for this route; an empty list for none."
    )


class PromptRefresh(Section):
    """Reading a hot prefix again shortly before the provider forgets it."""

    when: Refresh = Field(
        "local",
        description="Which upstreams' hot prefixes are read again before they expire. local: engines "
        "of one's own (vLLM, SGLang, llama.cpp); all: also paid providers, where the expected saving "
        "exceeds the cost. Only upstreams with an `api_key`.",
    )
    daily_usd: Duration = Field(
        1.0, description="Most that refreshes may cost in a day (UTC), by the price table."
    )
    daily_tokens: Count = Field(
        20_000_000, description="Most prompt tokens that refreshes may read in a day (UTC)."
    )
    keep_bytes: Count = Field(
        8 * MIB,
        description="Budget of the prefixes that are kept to be sent again; 0 turns refreshing off.",
    )


class PromptCache(Section):
    """What is done for the provider's prompt cache."""

    markers: Markers = Field(
        "auto",
        description="off: nothing is added; respect: markers only where the client places none; "
        "auto: beside the client's; strip: in place of the client's.",
    )
    rewrites: tuple[Rewrite, ...] = Field(
        (),
        description="What is changed in prompts so that they begin alike (docs/how-to/stable-prompts.md)."
        " strip-billing: Claude Code's billing header is left out towards others than Anthropic; "
        "sort-tools, sort-schemas: tools by name, keywords of their schemas in one order; round-time, "
        "round-hour: moments in system texts to the day or hour; move-volatile: values of system "
        "texts that change with requests are said at the end of the prompt.",
    )
    tree_bytes: Count = Field(
        32 * MIB,
        description="Byte budget of what is remembered of prompts (fingerprints, no content); "
        "beyond it, what was seen longest ago is forgotten. Half as much again remembers how "
        "conversations were read, so that their next turn is not read anew.",
    )
    hints: bool = Field(
        True,
        description="Send what keeps one prefix on one machine, where the provider documents it and "
        "the client sends none: `prompt_cache_key`, `x-grok-conv-id`, `x-session-id`.",
    )
    isolate: bool = Field(
        False,
        description="Keep tenants (or credentials) that share an upstream's key apart in its prompt "
        "cache: `cache_salt` (vLLM), or `prompt_cache_key`. Costs the prefixes that they share.",
    )
    causes: bool = Field(
        True,
        description="Say of each request why the provider's prompt cache gave less than it could have: "
        "on spans, in metrics, the log, a header and on the page (docs/explanation/miss-causes.md). "
        "A quarter as much as `tree_bytes` remembers what that takes.",
    )
    refresh: PromptRefresh = Field(
        PromptRefresh(), description="Reading hot prefixes again before they expire."
    )
    warm_timeout_s: Positive = Field(
        30 * SECONDS,
        description="How long the first warm-ups may keep the gateway from being ready; what is not "
        "done by then goes on beside the traffic.",
    )


class WarmUp(Section):
    """A request whose prompt is written into an upstream's cache before anybody asks for it."""

    name: WarmName | None = Field(
        None, description="What logs and metrics call it; unset: its position, from 0."
    )
    upstream: UpstreamName = Field(description="Name of an upstream that has an `api_key`.")
    path: Literal["/v1/chat/completions", "/v1/responses", "/v1/messages"] = Field(
        "/v1/chat/completions", description="The API that the body is for."
    )
    body: dict[str, Any] | None = Field(
        None, description="The request, as a client would send it, with the prefix to keep warm."
    )
    file: str | None = Field(None, description="A JSON file that holds it, in place of `body`.")
    at_start: bool = Field(True, description="Send it when the gateway starts.")
    interval_s: Duration = Field(
        0.0,
        description="Send it again so long after the last time; 0 never. The provider's lifetime, "
        "less a minute, keeps it warm all the time.",
    )
    timeout_s: Positive = Field(2 * MINUTES, description="How long one of its requests may take.")

    @field_validator("body")
    @classmethod
    def _names_a_model(cls, body: dict[str, Any] | None) -> dict[str, Any] | None:
        if body is not None and not isinstance(body.get("model"), str):
            raise broken("names no model", "write the whole request: model, messages, ...")
        return body

    def request(self) -> dict[str, Any]:
        """The request's body. Raises ValueError, OSError for a file that isn't one."""
        if self.body is not None:
            return self.body
        read = json.loads(Path(self.file or "").read_bytes())
        if not isinstance(read, dict) or not isinstance(read.get("model"), str):
            raise ValueError("it holds no request that names a model")  # noqa: TRY004 - a value's
        return read


_Found = Iterator[tuple[tuple[str | int, ...], str, str]]


def warm_contradictions(warm: Any, upstreams: Any, defaults: Mapping[str, Any]) -> _Found:
    """Warm-ups without a body, with two, or for an upstream that is not there or has no key."""
    if not isinstance(warm, list | tuple):
        return
    given = upstreams if isinstance(upstreams, Mapping) else {}
    for index, each in enumerate(warm):
        if not isinstance(each, Mapping):
            continue
        if (each.get("body") is None) == (each.get("file") is None):
            yield (
                ("warm", index),
                "needs one of body and file, and has none or both",
                "write the request under `body`, or name a JSON file as `file`",
            )
        if each.get("file") is not None and each.get("body") is None:
            yield from _unreadable(index, each["file"])
        name = each.get("upstream")
        if not isinstance(name, str):
            continue
        upstream = given.get(name, defaults.get(name))
        if upstream is None and name not in given:
            yield (
                ("warm", index, "upstream"),
                f"`{name}` is not an upstream",
                f"use one of {', '.join(sorted({*map(str, given), *defaults}))}",
            )
        elif not needs_no_key(upstream):
            yield (
                ("warm", index, "upstream"),
                f"`{name}` has no api_key, and a client's is never used for warming",
                f"set upstreams.{name}.api_key",
            )


def needs_no_key(upstream: Any) -> bool:
    """Has this upstream (as written) a credential, or is it an engine that asks for none?"""
    if not isinstance(upstream, Mapping):
        return False
    provider = provider_of(upstream.get("engine"), upstream.get("provider"))
    return bool(upstream.get("api_key")) or provider in ENGINES


def _unreadable(index: int, file: Any) -> _Found:
    if not isinstance(file, str):
        return
    try:
        WarmUp(upstream="any", file=file).request()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no request"
        yield (
            ("warm", index, "file"),
            f"can't be read: {reason or 'not a file name'}",
            "name a file with the JSON of one request, a model in it",
        )
