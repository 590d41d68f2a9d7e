"""Prompts of every shape by the thousand, thrown from a seed: conversations that grow, with tools,
markers, thinking, media, blank texts and blocks that nobody has heard of.

What comes out is mostly legal; whether it is, the simulated provider says.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.helpers.dice import Dice

Json = dict[str, Any]

CLAUDES = (
    *("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-1"),
    *("claude-opus-4-8", "claude-sonnet-5", "claude-haiku-4-5-20251001", "claude-next"),
)
GPTS = ("gpt-6-sol", "gpt-6.1-sol", "gpt-5.6-luna", "gpt-5.1", "gpt-4o", "gpt-9-next")
LONG = tuple(f"Rule {name}: say what you see and no more.\n" * 80 for name in "abc")
"""About 800 tokens each."""
SHORT = ("Hi.", "é\u2028😀", '"quoted" \\ {}', "x-anthropic-billing-header: cc_version=1; cch=2;")
BLANK = ("", " ", "\n\t")
_SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"const": 1.0}}}
_IMAGE = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}


def spelled(dice: Dice, body: Json) -> bytes:
    """The body as some client would write it down."""
    loose = dice.yes(0.3)
    text = json.dumps(
        body,
        ensure_ascii=dice.yes(),
        indent=dice.one((None, None, 1)),
        separators=(", ", ": ") if loose else (",", ":"),
    )
    return text.encode("utf-8", "surrogatepass")


def _text(dice: Dice) -> str:
    kind = dice.up_to(9)
    text: str = dice.one(BLANK if kind == 0 else LONG if kind < 4 else SHORT)
    return text


# --- Anthropic --------------------------------------------------------------------------------


def anthropic(dice: Dice) -> list[Json]:
    """The turns of one conversation, each a Messages request."""
    model = dice.one(CLAUDES)
    head: Json = {"model": model, "max_tokens": dice.one((1, 1024, 1024, 0))}
    if dice.yes(0.5):
        head["tools"] = [_claude_tool(dice, i) for i in range(dice.up_to(4))]
    system = dice.up_to(3)
    if system == 1:
        head["system"] = _text(dice)
    elif system > 1:
        head["system"] = [{"type": "text", "text": _text(dice)} for _ in range(dice.up_to(4))]
    if dice.yes(0.2):
        head["thinking"] = {"type": "adaptive"}
    if dice.yes(0.2):
        head["tool_choice"] = {"type": dice.one(("auto", "none", "any"))}
    if dice.yes(0.2):
        head["stream"] = True
    operator = model in CLAUDES[:2] and dice.yes(0.3)
    messages: list[Json] = []
    turns: list[Json] = []
    for turn in range(1 + dice.up_to(3)):
        messages.append({"role": "user", "content": _claude_asks(dice, turn)})
        if operator and dice.yes(0.3):
            messages.append({"role": "system", "content": dice.one((*SHORT[:2], LONG[0]))})
        body = json.loads(json.dumps({**head, "messages": messages}))
        _mark(dice, body)
        turns.append(body if dice.yes(0.7) else dice.order(body))
        messages.append({"role": "assistant", "content": _claude_says(dice, turn)})
    return turns


def _claude_tool(dice: Dice, number: int) -> Json:
    tool: Json = {"name": f"tool_{number}", "input_schema": _SCHEMA}
    kind = dice.up_to(7)
    if kind == 0:
        tool = {"type": "mcp_toolset", "mcp_server_name": f"server_{number}"}
        if dice.yes():
            tool["default_config"] = {"defer_loading": dice.yes()}
            tool["configs"] = {"inner": {"defer_loading": dice.yes()}}
    elif kind == 1:
        tool = {"type": "web_search_20260318", "name": "web_search"}
    elif kind == 2:
        tool = {"type": "computer_toolset_20260801", "configs": {"zoom": {"enabled": True}}}
    elif kind == 3:
        tool |= {"type": "custom", "description": dice.one(LONG)}
    if dice.yes(0.3):
        tool["defer_loading"] = dice.yes(0.7)
    return tool


def _claude_asks(dice: Dice, turn: int) -> Any:
    if dice.yes(0.3):
        return _text(dice) or "Hm?"
    return [_claude_input(dice, turn) for _ in range(1 + dice.up_to(3))]


def _claude_input(dice: Dice, turn: int) -> Json:
    kind = dice.up_to(8)
    text = {"type": "text", "text": _text(dice)}
    if kind == 0:
        return {"type": "image", "source": _IMAGE}
    if kind == 1:
        source = dice.one(
            (
                {"type": "text", "media_type": "text/plain", "data": dice.one(LONG)},
                {"type": "content", "content": [{"type": "text", "text": "part"}]},
                {"type": "url", "url": "https://example.com/a.pdf"},
            )
        )
        return {"type": "document", "source": source, "citations": {"enabled": dice.yes()}}
    if kind == 2:
        return {"type": "search_result", "source": "s", "title": "t", "content": [text]}
    if kind < 6:
        content = dice.one(
            (
                None,
                "It rains.",
                "",
                [text, {"type": "image", "source": _IMAGE}],
                [{"type": "tool_reference", "tool_name": "tool_0"}],
                [],
            )
        )
        result: Json = {"type": "tool_result", "tool_use_id": f"toolu_{turn - 1}"}
        return result if content is None else {**result, "content": content}
    if kind == 6 and dice.yes(0.3):
        return {"type": "container_upload", "file_id": "file_1"}
    return text


def _claude_says(dice: Dice, turn: int) -> Any:
    if dice.yes(0.3):
        return _text(dice) or "Yes."
    blocks: list[Json] = []
    for _ in range(1 + dice.up_to(4)):
        kind = dice.up_to(8)
        if kind == 0:
            blocks.append({"type": "thinking", "thinking": "Hm.", "signature": "c2ln"})
        elif kind == 1:
            blocks.append({"type": "redacted_thinking", "data": "c2ln"})
        elif kind < 5:
            use = {"type": "tool_use", "id": f"toolu_{turn}", "name": "tool_0"}
            blocks.append({**use, "input": {"cache_control": {"z": 1.0}, "a": _text(dice)}})
        elif kind == 5:
            use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search"}
            blocks.append({**use, "input": {"query": "q"}})
            found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
            blocks.append(found)
        elif kind == 6 and dice.yes(0.3):
            blocks.append({"type": "something_new", "text": dice.one(LONG)})
        else:
            blocks.append({"type": "text", "text": _text(dice)})
    return blocks


def _mark(dice: Dice, body: Json) -> None:
    """Set the client's own markers, mostly where they may stand."""
    if dice.yes(0.5):
        return
    places = [each for each in _holders(body) if dice.yes(0.05) or _may_hold(each)]
    chosen = sorted({dice.up_to(len(places) - 1) for _ in range(dice.up_to(4))}) if places else []
    hours = dice.up_to(len(chosen))
    for i, place in enumerate(chosen):
        mark: Json = {"type": "ephemeral"}
        if i < hours:
            mark["ttl"] = "1h"
        elif dice.yes(0.3):
            mark["ttl"] = dice.one(("5m", None))
        places[place]["cache_control"] = mark
    for holder in places:
        if "cache_control" not in holder and dice.yes(0.05):
            holder["cache_control"] = None
    if dice.yes(0.2):
        body["cache_control"] = {"type": "ephemeral"}
        if hours == len(chosen) and dice.yes():
            body["cache_control"]["ttl"] = "1h"


def _holders(body: Json) -> list[Json]:
    """Tools and blocks, in the order of processing."""
    held = list(body.get("tools", []))
    system = body.get("system")
    held += system if isinstance(system, list) else []
    for message in body["messages"]:
        held += message["content"] if isinstance(message["content"], list) else []
    return held


def _may_hold(holder: Json) -> bool:
    kind = holder.get("type", "")
    if holder.get("defer_loading") or (holder.get("default_config") or {}).get("defer_loading"):
        return False
    if kind == "text":
        return bool(holder["text"].strip())
    return kind not in {"thinking", "redacted_thinking", "something_new"}


# --- OpenAI -----------------------------------------------------------------------------------


def openai_chat(dice: Dice) -> list[Json]:
    """The turns of one conversation, each a chat completion."""
    head = _gpt_head(dice)
    if dice.yes(0.5):
        head["tools"] = [
            {"type": "function", "function": {"name": f"f{i}", "parameters": _SCHEMA}}
            for i in range(dice.up_to(3))
        ]
    messages: list[Json] = [
        {"role": dice.one(("system", "developer")), "content": _chat_content(dice, "text")}
        for _ in range(dice.up_to(2))
    ]
    turns: list[Json] = []
    for turn in range(1 + dice.up_to(3)):
        messages.append({"role": "user", "content": _chat_content(dice, "any")})
        if dice.yes(0.1):
            messages.append({"role": "developer", "content": _chat_content(dice, "text")})
        turns.append(_point(dice, {**head, "messages": messages}, "messages"))
        said: Json = {"role": "assistant", "content": _chat_content(dice, "text", marks=False)}
        if dice.yes(0.4):
            call = {"id": f"call_{turn}", "type": "function"}
            calls = [{**call, "function": {"name": "f0", "arguments": '{"a": 1.0}'}}]
            said = {"role": "assistant", "content": None, "tool_calls": calls}
        messages.append(said)
        if "tool_calls" in said:
            result = {"role": "tool", "tool_call_id": f"call_{turn}"}
            messages += [{**result, "content": _chat_content(dice, "text")}] * (1 + dice.up_to(1))
    return turns


def openai_responses(dice: Dice) -> list[Json]:
    """The turns of one conversation, each a request to the Responses API."""
    head = _gpt_head(dice)
    if dice.yes(0.3):
        head["instructions"] = _text(dice)
    if dice.yes(0.5):
        tool = {"type": "function", "parameters": _SCHEMA}
        head["tools"] = [{**tool, "name": f"f{i}"} for i in range(dice.up_to(3))]
    if dice.yes(0.2):
        return [{**head, "input": _text(dice) or "Hm?"}]
    items: list[Json] = [
        {"role": "developer", "content": _response_content(dice)} for _ in range(dice.up_to(2))
    ]
    turns: list[Json] = []
    for turn in range(1 + dice.up_to(3)):
        item: Json = {"role": "user", "content": _response_content(dice)}
        items.append(item if dice.yes() else {"type": "message", **item})
        turns.append(_point(dice, {**head, "input": items}, "input"))
        if dice.yes(0.2):
            secret = {"type": "reasoning", "id": "rs_1", "summary": []}
            items.append({**secret, "encrypted_content": "gAAAA"})
        if dice.yes(0.4):
            call = {"type": "function_call", "call_id": f"c{turn}", "name": "f0"}
            items.append({**call, "arguments": "{}"})
            output = dice.one(("It rains.", "", [{"type": "input_text", "text": _text(dice)}]))
            answer = {"type": "function_call_output", "call_id": f"c{turn}", "output": output}
            items.append(answer)
        else:
            text = {"type": "output_text", "text": _text(dice), "annotations": []}
            said = {"type": "message", "role": "assistant", "content": [text]}
            items.append(said if dice.yes() else {"role": "assistant", "content": "Yes."})
    return turns


def _gpt_head(dice: Dice) -> Json:
    model = dice.one(GPTS)
    head: Json = {"model": model}
    if model in GPTS[:3] and dice.yes(0.4):
        options = dice.one(({}, {"mode": "implicit"}, {"mode": "explicit"}, {"ttl": "30m"}))
        head["prompt_cache_options"] = options
    if dice.yes(0.2):
        head["prompt_cache_key"] = "k" * dice.one((1, 64))
    if dice.yes(0.2):
        head["stream"] = True
    return head


def _chat_content(dice: Dice, kinds: str, *, marks: bool = True) -> Any:
    if dice.yes(0.4):
        return _text(dice)
    parts: list[Json] = [{"type": "text", "text": _text(dice)} for _ in range(1 + dice.up_to(2))]
    if kinds == "any" and dice.yes(0.3):
        parts.append({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})
        parts.append({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}})
    if not marks and dice.yes(0.1):
        parts.append({"type": "refusal", "refusal": "No."})
    return parts


def _response_content(dice: Dice) -> Any:
    if dice.yes(0.4):
        return _text(dice)
    parts: list[Json] = [
        {"type": "input_text", "text": _text(dice)} for _ in range(1 + dice.up_to(2))
    ]
    if dice.yes(0.3):
        parts.append({"type": "input_image", "image_url": "https://example.com/a.png"})
    return parts


def _point(dice: Dice, body: Json, member: str) -> Json:
    """A copy, with the client's own breakpoints, where the model has them."""
    made: Json = json.loads(json.dumps(body))
    if body["model"] not in GPTS[:3] or dice.yes():
        return made
    for item in made[member]:
        if item.get("role") == "assistant":
            continue
        content = item.get("content", item.get("output"))
        for part in content if isinstance(content, list) else []:
            if dice.yes(0.3):
                part["prompt_cache_breakpoint"] = {"mode": "explicit"}
    return made if dice.yes(0.7) else dice.order(made)
