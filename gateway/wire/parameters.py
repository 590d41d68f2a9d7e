"""What a request asks of a model beside its prompt.

Values are numbers and short words, never text of a prompt; stop sequences are such text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

Parameters: TypeAlias = "dict[str, str | int | float]"

MOST_BYTES = 1024 * 1024
"""Longer bodies are not looked into: this much takes half a millisecond."""
_WORD = 256

_SAMPLING = {
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}
_NUMBERS = frozenset((*_SAMPLING.values(), "choices", "max_tokens"))

# API -> member of a body (with a dot: of an object in it) -> what it is called here. Of two members
# for one thing the later line wins.
_TABLE: Mapping[str, Mapping[str, str]] = {
    "openai_chat": {
        **_SAMPLING,
        "n": "choices",
        "max_tokens": "max_tokens",
        "max_completion_tokens": "max_tokens",
        "reasoning_effort": "reasoning_level",
        "response_format.type": "output",
        "service_tier": "service_tier",
    },
    "openai_completions": {
        **_SAMPLING,
        "n": "choices",
        "max_tokens": "max_tokens",
        "service_tier": "service_tier",
    },
    "openai_responses": {
        **_SAMPLING,
        "max_output_tokens": "max_tokens",
        "reasoning.effort": "reasoning_level",
        "text.format.type": "output",
        "service_tier": "service_tier",
        "previous_response_id": "previous_response",
        "conversation": "conversation",
        "conversation.id": "conversation",
    },
    "anthropic_messages": {
        **_SAMPLING,
        "max_tokens": "max_tokens",
        "output_config.effort": "reasoning_level",
        "output_format.type": "output",
        "output_config.format.type": "output",
    },
}
# The conventions' words for what is asked for.
_OUTPUTS = {"text": "text", "json_object": "json", "json_schema": "json"}


def parameters(api: str, body: bytes) -> Parameters:
    """What is there of `choices`, `frequency_penalty`, `max_tokens`, `presence_penalty`,
    `reasoning_level`, `seed`, `temperature`, `top_k`, `top_p`, `output` (`text`, `json`),
    `service_tier`, `previous_response`, `conversation`. Empty for what is no JSON object.
    """
    table = _TABLE.get(api)
    if table is None or len(body) > MOST_BYTES:
        return {}
    try:
        given = orjson.loads(body)
    except ValueError:
        return {}
    found: Parameters = {}
    for name, called in table.items():
        value: object = given
        for step in name.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if called == "output":
            value = _OUTPUTS.get(value) if isinstance(value, str) else None
        fitting = _number(value) if called in _NUMBERS else _name(value)
        if fitting is not None:
            found[called] = fitting
    if found.get("choices") == 1:
        del found["choices"]
    return found


def _number(value: object) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _WORD else None
