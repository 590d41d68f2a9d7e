"""Anthropic's Messages API as the stub speaks it: a body, or the same answer as events.

Written after the types of the official SDK (2.12) and the streaming page of the documentation:
usage on `message_delta` is cumulative, `event:` repeats the type, `ping` may come anywhere.
"""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from gateway.lab.stub_answers import (
    Ending,
    Outcome,
    Query,
    Reply,
    Tool,
    compose,
    count,
    meaning,
    pieces,
    tokens,
)

_STOP = {
    Ending.STOP: "end_turn",
    Ending.LENGTH: "max_tokens",
    Ending.STOP_SEQUENCE: "stop_sequence",
    Ending.TOOLS: "tool_use",
    Ending.REFUSED: "refusal",
    Ending.FILTERED: "refusal",
    Ending.PAUSED: "pause_turn",
}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def fresh_id(prefix: str) -> str:
    """An id in Anthropic's style: `msg_01` and 22 letters and digits."""
    return prefix + "01" + "".join(secrets.choice(_BASE58) for _ in range(22))


def headers(request_id: str) -> dict[str, str]:
    """What the API sends beside every answer."""
    reset = (datetime.now(UTC) + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    limits = {"requests": 4000, "tokens": 480000, "input-tokens": 400000, "output-tokens": 80000}
    out = {"request-id": request_id, "anthropic-organization-id": "stub-organization"}
    for name, limit in limits.items():
        out[f"anthropic-ratelimit-{name}-limit"] = str(limit)
        out[f"anthropic-ratelimit-{name}-remaining"] = str(limit - 1 - secrets.randbelow(100))
        out[f"anthropic-ratelimit-{name}-reset"] = reset
    return {**out, "cf-cache-status": "DYNAMIC", "cf-ray": f"{secrets.token_hex(8)}-FRA"}


def error(status: int, message: str, request_id: str) -> Reply:
    """The API's error body; `x-should-retry` is its own word to the SDKs."""
    kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    document = {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": request_id,
    }
    retry = status == 429 or status >= 500
    extra = {"x-should-retry": "true" if retry else "false"}
    if retry:
        extra |= {"retry-after": "1", "retry-after-ms": "20"}
    return Reply(body=orjson.dumps(document), status=status, headers=extra)


def count_tokens(body: dict[str, Any]) -> Reply:
    """Answer one `POST /v1/messages/count_tokens`."""
    return Reply(body=orjson.dumps({"input_tokens": _prompt_tokens(body)}))


def messages(body: dict[str, Any], request_id: str) -> Reply:
    """Answer one `POST /v1/messages`."""
    for name in ("model", "max_tokens", "messages"):
        if not body.get(name):
            return error(400, f"{name}: Field required", request_id)
    query = read(body)
    streaming = body.get("stream") is True
    refused = steered(query, request_id, streaming=streaming)
    return refused or reply(document(body, query), query, request_id, streaming=streaming)


def steered(query: Query, request_id: str, *, streaming: bool) -> Reply | None:
    """The error that the question asks for, if it does."""
    status = query.error_status
    if status is None and "error in stream" in query.directives and not streaming:
        status = 529
    if status is None:
        return None
    return error(status, f"The stub was asked for status {status}.", request_id)


def reply(document: dict[str, Any], query: Query, request_id: str, *, streaming: bool) -> Reply:
    """The message in the form that was asked for, with the faults that the question asks for."""
    cut = "cut" in query.directives
    if not streaming:
        return Reply(body=orjson.dumps(document), cut=cut)
    events = _events(document)
    if "error in stream" in query.directives:
        overloaded = {"type": "overloaded_error", "message": "Overloaded"}
        broken = {"type": "error", "error": overloaded, "request_id": request_id}
        events = [*events[: len(events) // 2], broken]
    return Reply(
        events=tuple(map(_event, events)),
        content_type="text/event-stream; charset=utf-8",
        cut=cut,
    )


def read(body: dict[str, Any]) -> Query:
    """What a Messages request asks."""
    question, images, has_results = "", 0, False
    for message in body["messages"]:
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        images += sum(p.get("type") == "image" for p in parts)
        if message.get("role") == "user":
            has_results = any(p.get("type") == "tool_result" for p in parts)
            texts = [str(p["text"]) for p in parts if p.get("type") == "text"]
            question = "".join(texts) or question
    choice = body.get("tool_choice") or {}
    tools = tuple(
        Tool(t["name"], t["input_schema"]) for t in body.get("tools") or () if "input_schema" in t
    )
    if choice.get("type") == "tool":
        tools = tuple(t for t in tools if t.name == choice.get("name"))
    elif choice.get("type") == "none":
        tools = ()
    form = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    return Query(
        digest=meaning(body),
        question=question,
        prompt_tokens=_prompt_tokens(body),
        images=images,
        tools=tools,
        forced=choice.get("type") in {"any", "tool"},
        parallel=choice.get("disable_parallel_tool_use") is not True,
        has_results=has_results,
        schema=form.get("schema"),
        max_tokens=body["max_tokens"],
        stops=tuple(body.get("stop_sequences") or ()),
    )


def _prompt_tokens(body: dict[str, Any]) -> int:
    parts = ("system", "tools", "messages")
    return 5 + sum(count(body[p]) for p in parts if body.get(p) is not None)


def document(body: dict[str, Any], query: Query) -> dict[str, Any]:
    """The whole message, its id fresh; nothing was read from a cache or written to one."""
    outcome = compose(query)
    thought = _thought(body, query)
    refused = outcome.ending in {Ending.REFUSED, Ending.FILTERED}
    output = len(tokens(outcome.text)) + sum(10 + count(a) for _, a in outcome.calls)
    usage: dict[str, Any] = {
        "input_tokens": query.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": max(1, output),
        "service_tier": "standard",
        "inference_geo": "not_available",
    }
    if thought is not None:
        spent = len(tokens(thought["thinking"])) + 8
        usage["output_tokens"] += spent
        usage["output_tokens_details"] = {"thinking_tokens": spent}
    details = {"type": "refusal", "category": None, "explanation": None} if refused else None
    return {
        "model": body["model"],
        "id": fresh_id("msg_"),
        "type": "message",
        "role": "assistant",
        "content": [*([thought] if thought else ()), *_blocks(outcome)],
        "stop_reason": _STOP[outcome.ending],
        "stop_sequence": outcome.stop_sequence,
        "stop_details": details,
        "usage": usage,
    }


def _thought(body: dict[str, Any], query: Query) -> dict[str, Any] | None:
    config = body.get("thinking") or {}
    if config.get("type") not in {"enabled", "adaptive"}:
        return None
    shown = config.get("display") != "omitted"
    text = f"The user asks something of {len(query.question)} characters. I answer plainly."
    signature = base64.b64encode(query.digest * 6).decode()
    return {"type": "thinking", "thinking": text if shown else "", "signature": signature}


def _blocks(outcome: Outcome) -> list[dict[str, Any]]:
    if outcome.calls:
        opening = {"type": "text", "text": f"I'll call {outcome.calls[0][0]} for that."}
        uses = [
            {
                "type": "tool_use",
                "id": fresh_id("toolu_"),
                "name": name,
                "input": arguments,
                "caller": {"type": "direct"},
            }
            for name, arguments in outcome.calls
        ]
        return [opening, *uses]
    return [{"type": "text", "text": outcome.text}] if outcome.text else []


def _events(document: dict[str, Any]) -> list[dict[str, Any]]:
    final = document["usage"]
    start_usage = {k: v for k, v in final.items() if k != "output_tokens_details"}
    start = {
        **document,
        "content": [],
        "stop_reason": None,
        "stop_details": None,
        "stop_sequence": None,
        "usage": {**start_usage, "output_tokens": 1},
    }
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(document["content"]):
        opened, deltas = _opened(block)
        events.append({"type": "content_block_start", "index": index, "content_block": opened})
        if index == 0:
            events.append({"type": "ping"})
        events.extend({"type": "content_block_delta", "index": index, "delta": d} for d in deltas)
        events.append({"type": "content_block_stop", "index": index})
    told = (
        *("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
        *("output_tokens", "output_tokens_details"),
    )
    delta = {k: document[k] for k in ("stop_reason", "stop_sequence", "stop_details")}
    usage = {k: final[k] for k in told if k in final}
    return [
        *events,
        {"type": "message_delta", "delta": delta, "usage": usage},
        {"type": "message_stop"},
    ]


def _opened(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as `content_block_start` shows it, and the deltas that fill it."""
    match block["type"]:
        case "tool_use":
            text = orjson.dumps(block["input"]).decode() if block["input"] else ""
            parts = ["", *pieces(text)]
            return {**block, "input": {}}, [
                {"type": "input_json_delta", "partial_json": p} for p in parts
            ]
        case "thinking":
            thoughts = pieces(block["thinking"], 4)
            return {**block, "thinking": "", "signature": ""}, [
                *({"type": "thinking_delta", "thinking": p} for p in thoughts),
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        case _:
            return {**block, "text": ""}, [
                {"type": "text_delta", "text": p} for p in pieces(block["text"])
            ]


def _event(data: dict[str, Any]) -> bytes:
    # The API pads its events with blanks inside the JSON, so that sizes tell less.
    text = orjson.dumps(data)[:-1] + b" " * secrets.randbelow(12) + b"}"
    return b"event: " + str(data["type"]).encode() + b"\ndata: " + text + b"\n\n"
