"""Answers of every API, thrown from a seed, and what a client makes of their streams.

The accumulating here is written from the APIs' streaming guides: nothing of the gateway's own
merging is used, so that what that loses is seen.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson
from anthropic.lib.streaming._messages import accumulate_event

from gateway.core import sse
from tests.helpers import openai_chat, openai_completions, openai_responses

if TYPE_CHECKING:
    from tests.helpers.dice import Dice

WORDS = ("a", "Hi", " ", "\n", "\t\t", "é", "😀", "\u2028", '"', "\\", "\x00", "{}", "data: ")


def _words(dice: Dice, least: int = 0) -> str:
    return "".join(dice.one(WORDS) for _ in range(least + dice.up_to(4)))


def document(dice: Dice, api: str) -> dict[str, Any]:
    """A whole answer of the API (a wire API's name)."""
    made: dict[str, Any] = _MAKERS[api](dice)
    return made


def _chat(dice: Dice) -> dict[str, Any]:
    choices = []
    for _ in range(1 + dice.up_to(1)):
        message: dict[str, Any] = {"content": _words(dice, 1) if dice.yes(0.8) else None}
        calls = [
            {
                "id": f"call_{dice.up_to(10**8):08}{number}",
                "type": "function",
                "function": {"name": "f", "arguments": _words(dice)},
            }
            for number in range(dice.up_to(2))
        ]
        if calls:
            message["tool_calls"] = calls
        if dice.yes(0.2):
            message["refusal"] = _words(dice, 1)
        if dice.yes(0.3):
            message["reasoning_content"] = _words(dice, 1)
        choices.append(openai_chat.choice(message, dice.one(("stop", "length", "tool_calls"))))
    return openai_chat.document(*choices)


def _completions(dice: Dice) -> dict[str, Any]:
    choices = [
        openai_completions.choice(_words(dice, 1), dice.one(("stop", "length")))
        for _ in range(1 + dice.up_to(1))
    ]
    return openai_completions.document(*choices)


def _messages(dice: Dice) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = []
    for number in range(1 + dice.up_to(2)):
        match dice.up_to(3):
            case 0:
                blocks.append({"type": "thinking", "thinking": _words(dice), "signature": "c2ln"})
            case 1:
                given = {"a": dice.json(), "b": _words(dice)}
                call = {"type": "tool_use", "id": f"toolu_{number:010}", "name": "f"}
                blocks.append({**call, "input": given})
            case _:
                blocks.append({"type": "text", "text": _words(dice, 1)})
    return {
        "id": "msg_01Aa1b2c3d4e5f6a",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5-5",
        "content": blocks,
        "stop_reason": dice.one(("end_turn", "tool_use", "max_tokens")),
        "stop_sequence": None,
        "usage": {"input_tokens": dice.up_to(99), "output_tokens": dice.up_to(99)},
    }


def _responses(dice: Dice) -> dict[str, Any]:
    items = []
    for number in range(1 + dice.up_to(2)):
        name = f"{number:016}"
        if dice.yes(0.4):
            items.append(
                openai_responses.call(
                    id=f"fc_{name}", call_id=f"call_{name}", arguments=_words(dice)
                )
            )
        else:
            parts = [openai_responses.text(_words(dice)) for _ in range(1 + dice.up_to(1))]
            items.append(openai_responses.message(*parts, id=f"msg_{name}"))
    return openai_responses.response(*items)


_MAKERS = {
    "openai_chat": _chat,
    "openai_completions": _completions,
    "anthropic_messages": _messages,
    "openai_responses": _responses,
}


def said(api: str, whole: dict[str, Any]) -> Any:
    """What a program gets out of a whole answer: all but the ids and times of the answer itself."""
    if api == "openai_responses":
        return [_item(each) for each in whole["output"]], whole["status"], whole["usage"]
    if api == "anthropic_messages":
        return whole["content"], whole["stop_reason"], whole["usage"], whole["model"]
    texts = [_choice(api, each) for each in whole["choices"]]
    return texts, whole["usage"], whole["model"], whole["system_fingerprint"]


def _item(item: dict[str, Any]) -> Any:
    if item["type"] == "message":
        return [part["text"] for part in item["content"]]
    return item["name"], item["arguments"]


def _choice(api: str, choice: dict[str, Any]) -> Any:
    if api == "openai_completions":
        return choice["text"], choice["finish_reason"]
    message = choice["message"]
    calls = [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    ]
    texts = [message.get(name) or "" for name in ("content", "refusal", "reasoning_content")]
    return texts, calls, choice["finish_reason"]


def accumulated(api: str, stream: bytes) -> Any:
    """The same of a stream, from its deltas."""
    events = [event.data for event in sse.parse(stream)]
    if api.startswith("openai_c"):
        assert events.pop() == "[DONE]"
        return _of_chunks(api, [orjson.loads(each) for each in events])
    parsed = [orjson.loads(each) for each in events]
    if api == "openai_responses":
        return _of_response_events(parsed)
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in parsed:
        if event["type"] != "ping":
            snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    whole = json.loads(snapshot.to_json(exclude_unset=True))
    return said(api, whole)


def _of_chunks(api: str, chunks: list[dict[str, Any]]) -> Any:
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for piece in chunk["choices"]:
            held = choices.setdefault(piece["index"], {"texts": ["", "", ""], "calls": {}})
            held["end"] = piece["finish_reason"] or held.get("end")
            if api == "openai_completions":
                held["texts"][0] += piece["text"]
                continue
            for place, name in enumerate(("content", "refusal", "reasoning_content")):
                held["texts"][place] += piece["delta"].get(name) or ""
            for call in piece["delta"].get("tool_calls") or ():
                one = held["calls"].setdefault(call["index"], ["", "", ""])
                one[0] += call.get("id") or ""
                one[1] += call.get("function", {}).get("name") or ""
                one[2] += call.get("function", {}).get("arguments") or ""
    told: list[Any] = []
    for _, held in sorted(choices.items()):
        if api == "openai_completions":
            told.append((held["texts"][0], held["end"]))
        else:
            calls = [tuple(call) for _, call in sorted(held["calls"].items())]
            told.append((held["texts"], calls, held["end"]))
    return told, usage, chunks[0]["model"], chunks[0]["system_fingerprint"]


def _of_response_events(events: list[dict[str, Any]]) -> Any:
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    texts: dict[tuple[int, int], str] = {}
    arguments: dict[int, str] = {}
    for event in events:
        if event["type"] == "response.output_text.delta":
            place = (event["output_index"], event["content_index"])
            texts[place] = texts.get(place, "") + event["delta"]
        elif event["type"] == "response.function_call_arguments.delta":
            index = event["output_index"]
            arguments[index] = arguments.get(index, "") + event["delta"]
    final = events[-1]["response"]
    told: list[Any] = []
    for index, item in enumerate(final["output"]):
        if item["type"] == "message":
            told.append([texts.get((index, n), "") for n in range(len(item["content"]))])
        else:
            told.append((item["name"], arguments.get(index, "")))
    return told, final["status"], final["usage"]
