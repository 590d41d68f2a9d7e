"""Attributes that several kinds of spans have, as they are told."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from gateway.telemetry import semconv
from gateway.telemetry.text import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.miss import CacheOutcome
    from gateway.core.model import Reason, Result
    from gateway.telemetry.spans import AttributeValue

Told: TypeAlias = "dict[str, AttributeValue | Sequence[str]]"

REQUEST_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "choices": semconv.GEN_AI_REQUEST_CHOICE_COUNT,
        "conversation": semconv.GEN_AI_CONVERSATION_ID,
        "frequency_penalty": semconv.GEN_AI_REQUEST_FREQUENCY_PENALTY,
        "max_tokens": semconv.GEN_AI_REQUEST_MAX_TOKENS,
        "output": semconv.GEN_AI_OUTPUT_TYPE,
        "presence_penalty": semconv.GEN_AI_REQUEST_PRESENCE_PENALTY,
        "previous_response": semconv.GEN_AI_REQUEST_PREVIOUS_RESPONSE,
        "reasoning_level": semconv.GEN_AI_REQUEST_REASONING_LEVEL,
        "seed": semconv.GEN_AI_REQUEST_SEED,
        "service_tier": semconv.OPENAI_REQUEST_TIER,
        "temperature": semconv.GEN_AI_REQUEST_TEMPERATURE,
        "top_k": semconv.GEN_AI_REQUEST_TOP_K,
        "top_p": semconv.GEN_AI_REQUEST_TOP_P,
    }
)
"""By the names of `gateway.wire.parameters`."""


def asked_for(headers: Mapping[str, str]) -> str:
    """The name or address in a request's `Host`, without its port and brackets."""
    host = headers.get("host", "")
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def set_method(told: Told, method: str) -> str:
    """The method for a span name; an unknown one is `HTTP` there and `_OTHER` as attribute."""
    if method in semconv.METHODS:
        told[semconv.HTTP_METHOD] = method
        return method
    told[semconv.HTTP_METHOD] = semconv.METHOD_OTHER
    told[semconv.HTTP_METHOD_ORIGINAL] = plain(method)
    return "HTTP"


def set_address(told: Told, host: str | None, port: int | None) -> None:
    """Who is called, or was."""
    if host:
        told[semconv.SERVER_ADDRESS] = plain(host)
        if port:
            told[semconv.SERVER_PORT] = port


def set_cache(
    told: Told, result: Result | None, reason: Reason | None, key_hex8: str | None
) -> None:
    """What the cache did, why, and the beginning of the identity."""
    if result is not None:
        told[semconv.CACHE_RESULT] = result.value
    if reason is not None:
        told[semconv.CACHE_REASON] = reason.value
    if key_hex8 is not None:
        # Cut here too: a whole identity on a span would let its reader probe the cache.
        told[semconv.CACHE_KEY] = key_hex8[:8]


def set_prompt_cache(told: Told, outcome: CacheOutcome) -> None:
    """What was expected of the provider's prompt cache, what came, and why it was no more."""
    told[semconv.PROMPT_CACHE_EXPECTED] = outcome.expected
    if outcome.read is not None:
        told[semconv.PROMPT_CACHE_READ] = outcome.read
    if outcome.written is not None:
        told[semconv.PROMPT_CACHE_WRITTEN] = outcome.written
    miss = outcome.miss
    if miss is None:
        return
    told[semconv.PROMPT_CACHE_MISS_CAUSE] = miss.cause.value
    told[semconv.PROMPT_CACHE_LOST] = miss.lost_tokens
    if miss.kind:
        told[semconv.PROMPT_CACHE_MISS_KIND] = miss.kind
    if miss.path:
        told[semconv.PROMPT_CACHE_MISS_PATH] = miss.path
        told[semconv.PROMPT_CACHE_MISS_BLOCK] = miss.block


def set_plan(
    told: Told, reason: str, markers: int, expected_tokens: int, rewrites: Sequence[str]
) -> None:
    """What was done for the provider's prompt cache."""
    told[semconv.PROMPT_CACHE_REASON] = reason
    told[semconv.PROMPT_CACHE_MARKERS] = markers
    if expected_tokens:
        told[semconv.PROMPT_CACHE_EXPECTED] = expected_tokens
    if rewrites:
        told[semconv.PROMPT_CACHE_REWRITES] = list(rewrites)
