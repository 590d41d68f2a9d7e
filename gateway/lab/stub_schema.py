"""A JSON value that fits a JSON Schema: what the stub puts into tool calls and parsed answers."""

from __future__ import annotations

import math
from typing import Any

WORDS = (
    *("amber", "birch", "cobalt", "dune", "ember", "fjord", "garnet", "harbor", "indigo", "jasper"),
    *("kelp", "lagoon", "meadow", "nectar", "onyx", "pebble", "quartz", "river", "saffron", "tide"),
    *("umber", "velvet", "willow", "xenon", "yarrow", "zephyr", "naïve", "café", "Übung", "☕"),
)
_DEPTH = 6
"""A schema that refers to itself is cut off here: optional parts become null or stay away."""
_FORMATS = {
    "date": "2026-11-22",
    "date-time": "2026-11-22T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT5M",
    "email": "ada@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/a",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}


def instance(schema: dict[str, Any], seed: int) -> Any:
    """The value of `schema` that `seed` chooses; the same seed gives the same value.

    Knows what structured outputs allow: `$ref` into the same document, `anyOf`, `allOf`, `enum`,
    `const`, formats and bounds. `pattern` is not followed.
    """
    return _value(schema, schema, seed, 0)


def _value(schema: Any, root: dict[str, Any], seed: int, depth: int) -> Any:
    if not isinstance(schema, dict):
        return {}
    schema = _resolved(schema, root, depth)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][seed % len(schema["enum"])]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return _value(_branch(schema[union], depth), root, seed, depth + 1)
    return _typed(schema, root, seed, depth)


def _typed(schema: dict[str, Any], root: dict[str, Any], seed: int, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        nullable = "null" in kind and depth >= _DEPTH
        kind = "null" if nullable else next((k for k in kind if k != "null"), "null")
    match kind:
        case "object":
            return _object(schema, root, seed, depth)
        case "array":
            return _array(schema, root, seed, depth)
        case "string":
            return _string(schema, seed)
        case "integer":
            return int(_number(schema, seed))
        case "number":
            return _number(schema, seed) + (0.5 if _roomy(schema) else 0)
        case "boolean":
            return seed % 2 == 0
        case _:
            return None


def _resolved(schema: dict[str, Any], root: dict[str, Any], depth: int) -> dict[str, Any]:
    """The schema with `$ref` followed and `allOf` merged."""
    for _ in range(_DEPTH):
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            break
        target: Any = root
        for step in reference.removeprefix("#").strip("/").split("/"):
            target = target.get(step, {}) if step and isinstance(target, dict) else target
        schema = {**target, **{k: v for k, v in schema.items() if k != "$ref"}}
    for part in schema.get("allOf", ()):
        merged = _resolved(part, root, depth + 1) if depth < _DEPTH else {}
        properties = {**schema.get("properties", {}), **merged.get("properties", {})}
        required = [*schema.get("required", []), *merged.get("required", [])]
        schema = {**schema, **merged}
        if properties:
            schema = {**schema, "properties": properties, "required": required}
    return schema


def _branch(branches: list[Any], depth: int) -> Any:
    """The first branch that says something, or null where a recursion has to end."""
    null = [b for b in branches if isinstance(b, dict) and b.get("type") == "null"]
    if depth >= _DEPTH and null:
        return null[0]
    return next((b for b in branches if b not in null), branches[0])


def _object(schema: dict[str, Any], root: dict[str, Any], seed: int, depth: int) -> dict[str, Any]:
    properties: dict[str, Any] = schema.get("properties") or {}
    wanted = schema.get("required") or ([] if depth >= _DEPTH else list(properties))
    return {
        name: _value(properties.get(name, {"type": "string"}), root, seed + 7 * i, depth + 1)
        for i, name in enumerate(n for n in properties if n in wanted)
    }


def _array(schema: dict[str, Any], root: dict[str, Any], seed: int, depth: int) -> list[Any]:
    least = int(schema.get("minItems", 0))
    length = least if depth >= _DEPTH else max(least, 1 + seed % 2)
    length = min(length, int(schema.get("maxItems", length)))
    item = schema.get("items", {"type": "string"})
    return [_value(item, root, seed + 11 * i, depth + 1) for i in range(length)]


def _string(schema: dict[str, Any], seed: int) -> str:
    text = _FORMATS.get(schema.get("format", ""), WORDS[seed % len(WORDS)])
    text += "-" * (int(schema.get("minLength", 0)) - len(text))
    return text[: int(schema.get("maxLength", len(text)))]


def _number(schema: dict[str, Any], seed: int) -> float:
    low = schema.get("minimum")
    if low is None and schema.get("exclusiveMinimum") is not None:
        low = schema["exclusiveMinimum"] + 1
    high = schema.get("maximum")
    if high is None and schema.get("exclusiveMaximum") is not None:
        high = schema["exclusiveMaximum"] - 1
    if low is None:
        low = 0 if high is None else high - 100
    high = low + 100 if high is None else high
    step: float | None = schema.get("multipleOf")
    if step:
        first, last = math.ceil(low / step), math.floor(high / step)
        return step * (first + seed % max(1, last - first + 1))
    return low + seed % (int(high - low) + 1)


def _roomy(schema: dict[str, Any]) -> bool:
    bounds = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
    return not any(b in schema for b in bounds)
