"""Token counts of every provider, brought into four exclusive buckets, once, at the wire.

OpenAI counts inclusively: cached and written tokens are parts of `prompt_tokens`.
Anthropic counts exclusively: `input_tokens` is what was neither read nor written.
"""

from __future__ import annotations

from typing import Any

from gateway.core.model import Usage


def from_openai(usage: object) -> Usage | None:
    """Usage of a chat completion, or None where there is none or it makes no sense."""
    return _inclusive(usage, "prompt_tokens", "completion_tokens")


def from_responses(usage: object) -> Usage | None:
    """Usage of a response (OpenAI's Responses API), or None as above."""
    return _inclusive(usage, "input_tokens", "output_tokens")


def _inclusive(usage: object, prompt_name: str, output_name: str) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    prompt = _count(usage.get(prompt_name))
    output = _count(usage.get(output_name))
    if prompt is None or output is None:
        return None
    details = usage.get(f"{prompt_name}_details")
    details = details if isinstance(details, dict) else {}
    read = _count(details.get("cached_tokens")) or 0
    written = _count(details.get("cache_write_tokens")) or 0
    return Usage(
        uncached_input=max(0, prompt - read - written),
        cache_read=read,
        # GPT-5.6 and later write with a 30 minute minimum at 1.25x: the price class of "5m".
        cache_write_5m=written,
        output=output,
    )


def from_anthropic(usage: object) -> Usage | None:
    """Usage of a message, `message_start` and `message_delta` already merged."""
    if not isinstance(usage, dict):
        return None
    uncached = _count(usage.get("input_tokens"))
    output = _count(usage.get("output_tokens"))
    if uncached is None or output is None:
        return None
    written = _count(usage.get("cache_creation_input_tokens")) or 0
    split = usage.get("cache_creation")
    split = split if isinstance(split, dict) else {}
    hour = min(written, _count(split.get("ephemeral_1h_input_tokens")) or 0)
    return Usage(
        uncached_input=uncached,
        cache_read=_count(usage.get("cache_read_input_tokens")) or 0,
        cache_write_5m=written - hour,
        cache_write_1h=hour,
        output=output,
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
