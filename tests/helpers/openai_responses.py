"""Requests and answers of OpenAI's Responses API, as small as a test wants them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gateway.core import sse
from gateway.core.mint import Mint
from gateway.core.model import Answer, Ask, Entry, Form
from gateway.providers.openai_responses import RESPONSES
from gateway.providers.unknown import UNKNOWN
from gateway.wire.openai_responses import OpenAIResponses

if TYPE_CHECKING:
    from gateway.core.model import Question
    from gateway.providers.base import ApiRules

API = OpenAIResponses()
UNKNOWN_RESPONSES: ApiRules = UNKNOWN.apis["openai_responses"]
NOW = 1_800_000_000
USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 12,
}

MARK = {"prompt_cache_breakpoint": {"mode": "explicit"}}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "42"}
CUSTOM = {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"}
CUSTOM_OUTPUT = {"type": "custom_tool_call_output", "call_id": "c", "output": "42"}
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "t"}],
    "encrypted_content": "gAAA",
}


def request(**changes: Any) -> dict[str, Any]:
    """A plain request with members added or replaced."""
    return {"model": "gpt-4o", "input": "hi", **changes}


def canonical_of(body: bytes | dict[str, Any], rules: ApiRules = RESPONSES) -> bytes:
    """The canonical bytes of a request."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return API.understand(raw, rules).canonical


def understood(body: dict[str, Any], rules: ApiRules = RESPONSES) -> Question:
    """What a request asks."""
    return API.understand(json.dumps(body).encode(), rules)


def asked(body: dict[str, Any], rules: ApiRules = RESPONSES) -> Ask:
    """What a request needs from an answer."""
    return understood(body, rules).ask


def with_input(*items: Any, **changes: Any) -> dict[str, Any]:
    """A request with these items."""
    return request(input=list(items), **changes)


def user(content: Any, **more: Any) -> dict[str, Any]:
    """A message of the user's."""
    return {"role": "user", "content": content, **more}


def said(words: str, **more: Any) -> dict[str, Any]:
    """A part of text, as input."""
    return {"type": "input_text", "text": words, **more}


def text(said: str, **changes: Any) -> dict[str, Any]:
    """A part of text."""
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": said, **changes}


def message(*parts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """An item with these parts."""
    return {
        "id": "msg_68Aa1b2c3d4e5f6a",
        "type": "message",
        "status": "completed",
        "content": list(parts),
        "role": "assistant",
        **changes,
    }


def call(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A call of a function."""
    return {
        "id": f"fc_68Aa1b2c3d4e5f{number:02}",
        "type": "function_call",
        "status": "completed",
        "arguments": '{"city": "Paris", "unit": "celsius"}',
        "call_id": f"call_Ab3dEf9h{number:02}",
        "name": "weather",
        **changes,
    }


def response(*output: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A whole answer."""
    return {
        "id": "resp_68aa1b2c3d4e5f60718293a4b5c6d7e8",
        "object": "response",
        "created_at": 1_760_000_000,
        "status": "completed",
        "background": False,
        "completed_at": 1_760_000_001,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": "gpt-4o-2024-08-06",
        "output": list(output),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": USAGE,
        "user": None,
        "metadata": {},
        **changes,
    }


def events_of(*events: dict[str, Any]) -> bytes:
    """A recorded stream: each event named by its type, numbered from 0."""
    return b"".join(
        sse.write(json.dumps({**event, "sequence_number": n}).encode(), event["type"])
        for n, event in enumerate(events)
    )


def stream_of(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """The events that a provider sends for an answer with text and calls: written here by hand,
    as its streaming guide shows them, and not by the gateway's own `split`.
    """
    begun = {**whole, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    begun["incomplete_details"] = None
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(whole["output"]):
        at = {"item_id": item["id"], "output_index": index}
        opened = {**item, "status": "in_progress"}
        said: list[dict[str, Any]] = []
        if item["type"] == "function_call":
            opened["arguments"] = ""
            kind = "response.function_call_arguments"
            said += [{"type": f"{kind}.delta", **at, "delta": c} for c in item["arguments"]]
            said.append({"type": f"{kind}.done", **at, "arguments": item["arguments"]})
        elif item["type"] == "message":
            opened["content"] = []
            for place, part in enumerate(item["content"]):
                said += _part_events(part, {**at, "content_index": place})
        events.append({"type": "response.output_item.added", "output_index": index, "item": opened})
        events += said
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    return [*events, {"type": f"response.{whole['status']}", "response": whole}]


def _part_events(part: dict[str, Any], at: dict[str, Any]) -> list[dict[str, Any]]:
    refused = part["type"] == "refusal"
    member = "refusal" if refused else "text"
    kind = "response.refusal" if refused else "response.output_text"
    more: dict[str, Any] = {} if refused else {"logprobs": []}
    return [
        {"type": "response.content_part.added", **at, "part": {**part, member: ""}},
        *({"type": f"{kind}.delta", **at, "delta": c, **more} for c in part[member]),
        {"type": f"{kind}.done", **at, member: part[member], **more},
        {"type": "response.content_part.done", **at, "part": part},
    ]


def read_document(value: dict[str, Any]) -> Answer:
    """Judge a document."""
    return API.read_body(json.dumps(value).encode(), RESPONSES)


def read_events(*events: dict[str, Any]) -> Answer:
    """Judge a stream."""
    return API.read_stream(events_of(*events), RESPONSES)


def entry_of(answer: Answer) -> Entry:
    """The entry that the store would hold for it."""
    return Entry(
        api=API.name,
        recorded=answer.recorded,
        forms=answer.forms,
        payload=answer.payload,
        stored_at=0.0,
        ttl_s=1.0,
        model=answer.model,
        response_id=answer.response_id,
        usage=answer.usage,
        has_stream_usage=answer.has_stream_usage,
    )


def served(
    answer: Answer,
    form: Form,
    *,
    history: frozenset[str] = frozenset(),
    keeps_id: bool = False,
    seed: bytes = b"seed",
) -> bytes:
    """The answer as a client gets it from the cache."""
    wanted = Ask(form=form, model="gpt-4o", history_ids=history, bound=keeps_id, keeps_id=keeps_id)
    entry = entry_of(answer)
    assert API.can_serve(entry, wanted)
    return API.serve(entry, wanted, Mint(NOW, seed), RESPONSES)


def served_document(answer: Answer, **how: Any) -> dict[str, Any]:
    """The served document, parsed."""
    value: dict[str, Any] = json.loads(served(answer, Form.BODY, **how))
    return value


def served_events(answer: Answer, **how: Any) -> list[dict[str, Any]]:
    """The served events, parsed; each is named by its type, and they are numbered from 0."""
    events = sse.parse(served(answer, Form.STREAM, **how))
    parsed: list[dict[str, Any]] = [json.loads(event.data) for event in events]
    assert [event.name for event in events] == [each["type"] for each in parsed]
    assert [each["sequence_number"] for each in parsed] == list(range(len(parsed)))
    return parsed
