"""A prompt without its markers, in one spelling: what the model is told, block by block."""

from __future__ import annotations

from typing import Any

_MARKERS = frozenset({"cache_control", "prompt_cache_breakpoint"})
_OPTIONS = frozenset({"cache_control", "prompt_cache_options", "prompt_cache_key"})
_INNER = frozenset({"content", "output", "source"})
_SAID = frozenset({"content", "output"})


def bare(body: Any) -> Any:
    """The request without any marker or cache option; a string that may as well be a list of one
    text is one. Nothing else is forgiven: two blocks are not the block that both make up.
    """
    out = {name: value for name, value in body.items() if name not in _OPTIONS}
    if "tools" in out:
        out["tools"] = [_without(tool) for tool in out["tools"]]
    if "system" in out:
        out["system"] = _parts(out["system"])
    for name in ("messages", "input"):
        if isinstance(out.get(name), list):
            out[name] = [_item(item) for item in out[name]]
    return out


def leads(earlier: Any, later: Any) -> bool:
    """Does the later bare request begin with the earlier one? All but the messages is the same, and
    the later messages begin with the earlier ones.
    """
    name = "input" if "input" in earlier else "messages"
    said, goes_on = earlier[name], later[name]
    same = {**earlier, name: None} == {**later, name: None}
    return same and bool(goes_on[: len(said)] == said)


def _item(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    return {n: _parts(v) if n in _SAID else v for n, v in _without(item).items()}


def _parts(content: Any) -> Any:
    if isinstance(content, str):
        return [{"text": content}] if content else []
    if not isinstance(content, list):
        return content
    return [_text(_inside(part)) for part in content]


def _text(part: Any) -> Any:
    # A string says nothing of the type that its part would have.
    plain = isinstance(part, dict) and part.keys() == {"type", "text"}
    return {"text": part["text"]} if plain else part


def _inside(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    out = _without(part)
    for name in _INNER & out.keys():
        if isinstance(out[name], list):
            out[name] = [_inside(each) for each in out[name]]
        elif isinstance(out[name], dict):
            out[name] = _inside(out[name])
    return out


def _without(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return {name: value for name, value in part.items() if name not in _MARKERS}
