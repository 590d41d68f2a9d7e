"""Token counts of every provider, brought into four exclusive buckets, once, at the wire.

Rule 1: OpenAI and who speaks like it count inclusively: cached and written tokens are parts of the
prompt's, and the buckets add up to it whatever is stated. Anthropic and Bedrock count exclusively:
`input_tokens` is what was neither read nor written.
Rule 2: the events of a stream restate usage, they never add to it.
Rule 3: what is no count (text, null, below zero, beyond 2^40) is not there; without a prompt's and
an answer's count there is no usage.
Rule 4: lifetimes have two buckets, by price: `5m` holds OpenAI's 30 minutes, written at 1.25x too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.core.model import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

_Stated: TypeAlias = dict[str, Any]

_MOST = 1 << 40
"""No prompt comes near it: a larger count would only spoil every sum that it gets into."""

# --- inclusive ------------------------------------------------------------------------------------

# Who names what is read beside OpenAI's `cached_tokens` in the details: DeepSeek; Moonshot.
_READ = ("prompt_cache_hit_tokens", "cached_tokens")
# And what is written: OpenAI and OpenRouter; Qwen (DashScope); LiteLLM.
_WRITTEN = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens")


def from_openai(usage: object, timings: object = None) -> Usage | None:
    """Usage of a chat or text completion, or None where there is none or it makes no sense.

    `timings` is what llama.cpp's server states beside it, or instead of it in a stream that wasn't
    asked for usage.
    """
    spent = _inclusive(usage, "prompt_tokens", "completion_tokens")
    if not isinstance(timings, dict):
        return spent
    read = _count(timings.get("cache_n")) or 0
    if spent is None:
        rest, output = _count(timings.get("prompt_n")), _count(timings.get("predicted_n"))
        if rest is None or output is None:
            return None
        return Usage(uncached_input=rest, cache_read=read, output=output)
    if spent.cache_read or spent.input != read + (_count(timings.get("prompt_n")) or 0):
        return spent
    return Usage(uncached_input=spent.input - read, cache_read=read, output=spent.output)


def from_responses(usage: object) -> Usage | None:
    """Usage of a response (OpenAI's Responses API), or None as above."""
    return _inclusive(usage, "input_tokens", "output_tokens")


def reasoning(usage: object) -> int:
    """Tokens of the answer that were thoughts, by the `usage` of any of OpenAI's APIs; 0 where it
    does not say.
    """
    stated = _members(usage)
    for name in ("completion_tokens_details", "output_tokens_details"):
        if thought := _count(_members(stated.get(name)).get("reasoning_tokens")):
            return thought
    return 0


def _inclusive(usage: object, prompt_name: str, output_name: str) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    prompt = _count(usage.get(prompt_name))
    output = _count(usage.get(output_name))
    if prompt is None or output is None:
        return None
    details = _members(usage.get(f"{prompt_name}_details"))
    read = _first((details, ("cached_tokens",)), (usage, _READ))
    written = _first((details, _WRITTEN), (usage, ("cache_creation_input_tokens",)))
    split = _members(details.get("cache_creation")) or _members(usage.get("cache_creation"))
    reasoning = _count(_members(usage.get(f"{output_name}_details")).get("reasoning_tokens")) or 0
    if reasoning and _count(usage.get("total_tokens")) == prompt + output + reasoning:
        # xAI states thoughts beside the answer. Elsewhere they are a part of it.
        output += reasoning
    return _parts(prompt, read, written, split, output)


def _parts(prompt: int, read: int, written: int, split: _Stated, output: int) -> Usage:
    """Of a prompt that contains what was read and written."""
    read = min(read, prompt)
    written = min(written or _sum(split), prompt - read)
    hour = min(written, _count(split.get("ephemeral_1h_input_tokens")) or 0)
    return Usage(
        uncached_input=prompt - read - written,
        cache_read=read,
        cache_write_5m=written - hour,
        cache_write_1h=hour,
        output=output,
    )


def from_gemini(metadata: object) -> Usage | None:
    """Usage of a Gemini answer (`usageMetadata`; of a stream the last one), or None as above."""
    if not isinstance(metadata, dict):
        return None
    prompt = _count(metadata.get("promptTokenCount"))
    if prompt is None:
        return None
    # Thoughts, and what built-in tools put into the prompt, are stated beside the rest.
    prompt += _count(metadata.get("toolUsePromptTokenCount")) or 0
    output = _count(metadata.get("candidatesTokenCount")) or 0
    output += _count(metadata.get("thoughtsTokenCount")) or 0
    return _parts(prompt, _count(metadata.get("cachedContentTokenCount")) or 0, 0, {}, output)


# --- exclusive ------------------------------------------------------------------------------------

_PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def from_anthropic(*stated: object) -> Usage | None:
    """Usage of a message: of a whole one its `usage`, of a stream those of `message_start` and of
    every `message_delta`, in order. None where there is none or it makes no sense.

    Of several statements the one with the largest prompt holds, as a whole: each is cumulative, and
    what it leaves out was said before. The split by lifetime only stands in `message_start`; what a
    later one writes beyond it are the five minutes that server tools write.
    """
    seen: _Stated = {}
    best: _Stated = {}
    output: int | None = None
    for usage in stated:
        if not isinstance(usage, dict):
            continue
        seen |= {name: value for name, value in usage.items() if value is not None}
        told = {name: n for name in _PROMPT if (n := _count(usage.get(name))) is not None}
        if _sum(merged := best | told) >= _sum(best):
            best = merged
        if (said := _count(usage.get("output_tokens"))) is not None:
            output = max(output or 0, said)
    if "input_tokens" not in best or output is None:
        return None
    uncached = best["input_tokens"]
    read, written = (
        best.get("cache_read_input_tokens", 0),
        best.get("cache_creation_input_tokens", 0),
    )
    split = _members(seen.get("cache_creation"))
    if isinstance(seen.get("prompt_tokens_details"), dict):
        # A server that speaks both ways (DashScope, jeremychone/rust-genai#258) counts inclusively.
        return _parts(uncached, read, written, split, output)
    spent = _exclusive(uncached, read, written, split, output)
    return _with_compactions(spent, seen.get("iterations"))


def _exclusive(uncached: int, read: int, written: int, split: _Stated, output: int) -> Usage:
    hour = min(written, _count(split.get("ephemeral_1h_input_tokens")) or 0)
    return Usage(
        uncached_input=uncached,
        cache_read=read,
        cache_write_5m=written - hour,
        cache_write_1h=hour,
        output=output,
    )


def _with_compactions(spent: Usage, iterations: object) -> Usage:
    """With the passes that summed up the conversation: they are charged, and the totals leave them
    out. Passes of an advisor are left out too: another model's, at another price.
    """
    for each in iterations if isinstance(iterations, list) else ():
        if not isinstance(each, dict) or each.get("type") != "compaction":
            continue
        read, written = (_count(each.get(name)) or 0 for name in reversed(_PROMPT[1:]))
        made = _exclusive(
            _count(each.get("input_tokens")) or 0,
            read,
            written,
            _members(each.get("cache_creation")),
            _count(each.get("output_tokens")) or 0,
        )
        spent = _added(spent, made)
    return spent


def _added(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.uncached_input + other.uncached_input,
        one.cache_read + other.cache_read,
        one.cache_write_5m + other.cache_write_5m,
        one.cache_write_1h + other.cache_write_1h,
        one.output + other.output,
    )


def from_converse(usage: object) -> Usage | None:
    """Usage of an answer of Bedrock's Converse API (of a stream: `metadata.usage`), or None."""
    if not isinstance(usage, dict):
        return None
    uncached, output = _count(usage.get("inputTokens")), _count(usage.get("outputTokens"))
    if uncached is None or output is None:
        return None
    details = usage.get("cacheDetails")
    hour = sum(
        _count(each.get("inputTokens")) or 0
        for each in (details if isinstance(details, list) else ())
        if isinstance(each, dict) and each.get("ttl") == "1h"
    )
    return _exclusive(
        uncached,
        _count(usage.get("cacheReadInputTokens")) or 0,
        _count(usage.get("cacheWriteInputTokens")) or 0,
        {"ephemeral_1h_input_tokens": hour},
        output,
    )


# --- what may be anything -------------------------------------------------------------------------


def _members(value: object) -> _Stated:
    return value if isinstance(value, dict) else {}


def _first(*places: tuple[_Stated, Iterable[str]]) -> int:
    """The first count above 0 that stands under one of the names, or 0."""
    for owner, names in places:
        for name in names:
            if count := _count(owner.get(name)):
                return count
    return 0


def _sum(counts: _Stated) -> int:
    return sum(_count(value) or 0 for value in counts.values())


def _count(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST:
        return value
    return None
