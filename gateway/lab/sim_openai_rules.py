"""What OpenAI's APIs refuse about prompt caching, and in which words.

Written from the documentation and from recorded refusals alone, as `sim_anthropic_rules` is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

MAX_KEY = 64
"""Characters of `prompt_cache_key`."""
_OPTIONS = "prompt_cache_options"
_BREAKPOINT = "prompt_cache_breakpoint"
_RETENTION = "prompt_cache_retention"
_NAME = re.compile(r"gpt-(\d+)(?:\.(\d+))?(?![\d.])(.*)")
_LONG = re.compile(r"gpt-(5\.[1245]|4\.1(?!-[mn])|5(?![\d.]))")
"""Models with the extended retention of 24 hours (5.6 and later keep to `ttl`)."""
_CHAT_PARTS = frozenset({"text", "image_url", "input_audio", "file"})
_RESPONSE_PARTS = frozenset({"input_text", "input_image", "input_file", "computer_screenshot"})
_OPTION_MEMBERS = {
    "chat": frozenset({"mode", "ttl"}),
    "responses": frozenset({"mode", "ttl", "comparison_response_id", "prewarm"}),
}


class Fault(NamedTuple):
    """What stands in the error body of a 400."""

    message: str
    param: str | None = None
    code: str | None = None


def version(model: str) -> tuple[int, int]:
    """`gpt-5.6-sol` -> (5, 6); what is no numbered GPT is (0, 0)."""
    named = _NAME.search(model)
    return (int(named[1]), int(named[2] or 0)) if named else (0, 0)


def takes_breakpoints(model: str) -> bool:
    """Is it GPT-5.6 or later?"""
    return version(model) >= (5, 6)


def refusal(api: str, body: Json) -> Fault | None:
    """The 400 that a request to `chat` or `responses` gets, or None if it is taken."""
    return next(_faults(api, body), None)


def _faults(api: str, body: Json) -> Iterator[Fault]:
    if not isinstance(body.get("model"), str):
        yield Fault("you must provide a model parameter")
    model: str = body["model"]
    if api == "chat" and not (isinstance(body.get("messages"), list) and body["messages"]):
        yield Fault("Missing required parameter: 'messages'.", "messages")
    key = body.get("prompt_cache_key")
    if isinstance(key, str) and len(key) > MAX_KEY:
        yield Fault(
            "Invalid 'prompt_cache_key': string too long. Expected a string with maximum length "
            f"{MAX_KEY}, but got a string with length {len(key)} instead.",
            "prompt_cache_key",
            "string_above_max_length",
        )
    if "cache_control" in body:
        yield _unknown("cache_control")
    yield from _options(api, body.get(_OPTIONS), model)
    yield from _retention(body.get(_RETENTION), model)
    yield from _forbidden_places(api, body)
    for where, part in _allowed_places(api, body):
        yield from _breakpoint(part.get(_BREAKPOINT), f"{where}.{_BREAKPOINT}", model)


def _options(api: str, options: Any, model: str) -> Iterator[Fault]:
    if options is None:
        return
    if not takes_breakpoints(model):
        yield _unsupported(_OPTIONS)
    if not isinstance(options, dict):
        yield Fault(f"Invalid type for '{_OPTIONS}': expected an object.", _OPTIONS, "invalid_type")
    for name in options:
        if name not in _OPTION_MEMBERS[api]:
            yield _unknown(f"{_OPTIONS}.{name}")
    if options.get("mode", "implicit") not in {"implicit", "explicit"}:
        known = "'implicit' and 'explicit'"
        yield _invalid(f"{_OPTIONS}.mode", options["mode"], known)
    if options.get("ttl", "30m") != "30m":
        yield _invalid(f"{_OPTIONS}.ttl", options["ttl"], "'30m'")


def _retention(retention: Any, model: str) -> Iterator[Fault]:
    if retention is None:
        return
    if version(model) >= (6, 0):
        yield _unsupported(_RETENTION)
    if retention not in {"in_memory", "24h"}:
        yield _invalid(_RETENTION, retention, "'in_memory' and '24h'")
    if retention == "in_memory" and version(model) >= (5, 5):
        yield Fault(
            "This model is compatible only with 24h extended prompt caching",
            _RETENTION,
            "invalid_parameter",
        )
    if retention == "24h" and version(model) < (5, 5) and not _LONG.search(model):
        yield _unsupported(_RETENTION)


def _breakpoint(mark: Any, where: str, model: str) -> Iterator[Fault]:
    if mark is None:
        return
    if not takes_breakpoints(model):
        yield Fault(f"{_BREAKPOINT} is not supported on this model", where, "invalid_parameter")
    if not isinstance(mark, dict):
        yield Fault(f"Invalid type for '{where}': expected an object.", where, "invalid_type")
    for name in mark:
        if name != "mode":
            yield _unknown(f"{where}.{name}")
    if mark.get("mode") != "explicit":
        yield _invalid(f"{where}.mode", mark.get("mode"), "'explicit'")


def _allowed_places(api: str, body: Json) -> Iterator[tuple[str, Json]]:
    for where, role, parts in _contents(api, body):
        known = _CHAT_PARTS if api == "chat" else _RESPONSE_PARTS
        for i, part in enumerate(parts):
            if part.get("type") in known and role != "assistant":
                yield f"{where}[{i}]", part


def _forbidden_places(api: str, body: Json) -> Iterator[Fault]:
    """Markers where the API knows no such member, and other providers' markers anywhere."""
    if _BREAKPOINT in body:
        yield _unknown(_BREAKPOINT)
    for i, tool in enumerate(_objects(body.get("tools"))):
        for where, holder in (
            (f"tools[{i}]", tool),
            (f"tools[{i}].function", tool.get("function")),
        ):
            yield from _neither(holder, where)
    allowed = {where for where, _ in _allowed_places(api, body)}
    top = "messages" if api == "chat" else "input"
    for i, item in enumerate(_objects(body.get(top))):
        yield from _neither(item, f"{top}[{i}]")
    for where, _, parts in _contents(api, body):
        for i, part in enumerate(parts):
            at = f"{where}[{i}]"
            yield from _neither(part, at, breakpoints=at not in allowed)


def _neither(holder: Any, where: str, *, breakpoints: bool = True) -> Iterator[Fault]:
    if isinstance(holder, dict):
        if breakpoints and _BREAKPOINT in holder:
            yield _unknown(f"{where}.{_BREAKPOINT}")
        if "cache_control" in holder:
            yield _unknown(f"{where}.cache_control")


def _contents(api: str, body: Json) -> Iterator[tuple[str, str, list[Json]]]:
    """Every list of content parts: where it is, and who says it."""
    if api == "chat":
        for i, message in enumerate(_objects(body["messages"])):
            content = _objects(message.get("content"))
            yield f"messages[{i}].content", str(message.get("role")), content
        return
    for i, item in enumerate(_objects(body.get("input"))):
        role = str(item.get("role", ""))
        yield f"input[{i}].content", role, _objects(item.get("content"))
        output = item.get("output")
        parts = [output] if isinstance(output, dict) else _objects(output)
        yield f"input[{i}].output", role, parts


def _unknown(where: str) -> Fault:
    return Fault(f"Unknown parameter: '{where}'.", where, "unknown_parameter")


def _unsupported(name: str) -> Fault:
    return Fault(f"{name} is not supported on this model", name, "invalid_parameter")


def _invalid(where: str, value: Any, known: str) -> Fault:
    return Fault(
        f"Invalid value: '{value}'. Supported values are: {known}.", where, "invalid_value"
    )


def _objects(value: Any) -> list[Json]:
    # What is no object keeps its place, so that the indexes in the messages are right.
    return (
        [each if isinstance(each, dict) else {} for each in value]
        if isinstance(value, list)
        else []
    )
