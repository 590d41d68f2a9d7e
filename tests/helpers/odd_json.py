"""JSON bodies with odd values in odd places, and in the spellings that clients send."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from tests.helpers.dice import Dice

_VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 0.0, -0.0, 1.0, 0.1, 1e16, 1e22, 1e-7, 2**53 + 1, 2**64 - 1, True, False, None),
    *("", "x", "é", "call_Aa1111", "reason", [], {}, [0], [""], {"a": 1.0}, {"type": "text"}),
)
_NAMES = (
    *("a", "type", "id", "index", "role", "name", "text", "content", "delta", "message", "usage"),
    *("thinking", "reasoning_effort", "signature", "citations", "annotations", "refusal", "error"),
    *("tool_calls", "logprobs", "obfuscation", "cache_control", "prompt_cache_breakpoint", "n"),
    *("seed", "temperature", "store", "background", "plugins", "mcp_servers", "finish_reason"),
)


def odd(dice: Dice, value: Any) -> Any:
    """The value with some members and items replaced by others, and some added."""
    if isinstance(value, dict):
        out = {name: odd(dice, inner) for name, inner in value.items()}
        if dice.yes(0.03):
            out[dice.one(_NAMES)] = dice.one(_VALUES)
        return out
    if isinstance(value, list):
        return [odd(dice, inner) for inner in value]
    return dice.one(_VALUES) if dice.yes(0.02) else value


def spelled(dice: Dice, value: Any) -> bytes:
    """The value as SDKs, scripts and nobody at all would write it; perhaps with a slip."""
    match dice.up_to(6):
        case 0 | 1:
            return orjson.dumps(value)
        case 2:
            return json.dumps(value).encode()
        case 3:
            return json.dumps(value, ensure_ascii=False, indent=2).encode()
        case 4:
            return json.dumps(value, separators=(",", ":")).encode()
        case 5:
            return dice.spelled(value).encode()
        case _:
            # A number in another spelling, a member that may be named twice.
            text = json.dumps(value, separators=(",", ": "))
            return text.replace("1.0", "1.00", 1).replace('"a":', '"type":', 1).encode()
