"""OpenAI's Chat Completions as the stub speaks it: a body, or the same answer as events.

Written after the types of the official SDK (3.54) and recorded answers of the API: a body is
pretty-printed, a stream compact; every chunk of a stream carries `"usage": null` exactly when
`include_usage` was asked for, and the usage chunk has no choices.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from itertools import chain, zip_longest
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

FINGERPRINT = "fp_stub0a1b2c"
SNAPSHOTS = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
}
"""Aliases answer with the name of a dated snapshot."""
_FINISH = {
    Ending.STOP: "stop",
    Ending.STOP_SEQUENCE: "stop",
    Ending.LENGTH: "length",
    Ending.TOOLS: "tool_calls",
    Ending.REFUSED: "stop",
    Ending.FILTERED: "content_filter",
    Ending.PAUSED: "stop",
}
_ERRORS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}
_IMAGES = frozenset({"image_url", "input_image"})
_ID_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def fresh_id(prefix: str, length: int) -> str:
    """An id in OpenAI's style: `call_` and letters and digits."""
    return prefix + "".join(secrets.choice(_ID_LETTERS) for _ in range(length))


def headers(request_id: str) -> dict[str, str]:
    """What the API sends beside every answer."""
    return {
        "x-request-id": request_id,
        "openai-organization": "org-stub",
        "openai-processing-ms": str(secrets.randbelow(400) + 100),
        "openai-version": "2020-10-01",
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-limit-tokens": "30000000",
        "x-ratelimit-remaining-requests": str(9000 + secrets.randbelow(1000)),
        "x-ratelimit-remaining-tokens": "29999983",
        "x-ratelimit-reset-requests": "6ms",
        "x-ratelimit-reset-tokens": "0s",
        "set-cookie": f"__cf_bm={secrets.token_hex(12)}; path=/; domain=.api.openai.com; HttpOnly; "
        "Secure; SameSite=None",
        "cf-cache-status": "DYNAMIC",
        "cf-ray": f"{secrets.token_hex(8)}-FRA",
    }


def error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> Reply:
    """The API's error body; rate limits and overload say when to come back."""
    kind, usual = _ERRORS.get(
        status, ("server_error" if status >= 500 else "invalid_request_error", None)
    )
    detail = {"message": message, "type": kind, "param": param, "code": code or usual}
    extra = {"retry-after": "1", "retry-after-ms": "20"} if status in {429, 503} else {}
    document = orjson.dumps({"error": detail}, option=orjson.OPT_INDENT_2)
    return Reply(body=document, status=status, headers=extra)


def steered(query: Query, *, streaming: bool) -> Reply | None:
    """The error that the question asks for, if it does."""
    status = query.error_status
    if status is None and "error in stream" in query.directives and not streaming:
        status = 500
    return None if status is None else error(status, f"The stub was asked for status {status}.")


def chat(body: dict[str, Any]) -> Reply:
    """Answer one `POST /v1/chat/completions`."""
    if not isinstance(body.get("model"), str):
        return error(400, "you must provide a model parameter")
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        return error(400, "Missing required parameter: 'messages'.", param="messages")
    query = read(body)
    streaming = body.get("stream") is True
    refused = steered(query, streaming=streaming)
    return refused or answer(document(body, query), body, query)


def answer(document: dict[str, Any], body: dict[str, Any], query: Query) -> Reply:
    """The completion in the form that was asked for, with the faults that the question asks for."""
    whole = reply(document, body)
    if "error in stream" in query.directives:
        message = "The server had an error while processing your request. Sorry about that!"
        broken = {"message": message, "type": "server_error", "param": None, "code": None}
        half = whole.events[: len(whole.events) // 2]
        return replace(whole, events=(*half, _event({"error": broken})))
    return replace(whole, cut="cut" in query.directives)


def read(body: dict[str, Any]) -> Query:
    """What a Chat Completions request asks."""
    messages = [m for m in body["messages"] if isinstance(m, dict)]
    question, images = "", 0
    for message in messages:
        parts = _parts(message.get("content"))
        images += sum(p.get("type") in _IMAGES for p in parts)
        if message.get("role") == "user":
            question = "".join(str(p.get("text", "")) for p in parts)
    choice = body.get("tool_choice", body.get("function_call", "auto"))
    functions = [t.get("function") or {} for t in body.get("tools") or () if isinstance(t, dict)]
    functions += body.get("functions") or []
    tools = tuple(Tool(f["name"], f.get("parameters") or {}) for f in functions if f.get("name"))
    forced = choice == "required" or isinstance(choice, dict)
    if isinstance(choice, dict):
        wanted = (choice.get("function") or choice).get("name")
        tools = tuple(t for t in tools if t.name == wanted)
    elif choice == "none":
        tools = ()
    form = body.get("response_format") or {}
    stop = body.get("stop")
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return Query(
        digest=meaning(body),
        question=question,
        prompt_tokens=count(body["messages"]) + count(body.get("tools")) + 3,
        images=images,
        tools=tools,
        forced=forced,
        parallel=body.get("parallel_tool_calls") is not False,
        has_results=bool(messages) and messages[-1].get("role") in {"tool", "function"},
        schema=(form.get("json_schema") or {}).get("schema")
        if form.get("type") == "json_schema"
        else None,
        json_mode=form.get("type") == "json_object",
        max_tokens=limit,
        stops=(stop,) if isinstance(stop, str) else tuple(stop or ()),
    )


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [p for p in content if isinstance(p, dict)] if isinstance(content, list) else []


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """The usage object: nothing cached, nothing thought."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def document(body: dict[str, Any], query: Query) -> dict[str, Any]:
    """The whole completion, its ids fresh; nothing was read from a cache or written to one."""
    outcomes = [compose(query, i) for i in range(max(1, body.get("n") or 1))]
    choices = [_choice(i, outcome, body) for i, outcome in enumerate(outcomes)]
    spent = usage(query.prompt_tokens, sum(map(_cost, outcomes)))
    return completion(body["model"], choices, spent)


def completion(model: str, choices: list[Any], spent: dict[str, Any]) -> dict[str, Any]:
    """A `chat.completion` object, its id and creation time fresh."""
    return {
        "id": fresh_id("chatcmpl-", 29),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": SNAPSHOTS.get(model, model),
        "choices": choices,
        "usage": spent,
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }


def reply(document: dict[str, Any], body: dict[str, Any]) -> Reply:
    """The completion in the form that the request asks for, complete and without faults."""
    if body.get("stream") is not True:
        return Reply(body=orjson.dumps(document, option=orjson.OPT_INDENT_2))
    chunks = _chunks(document, body.get("stream_options") or {})
    events = (*map(_event, chunks), b"data: [DONE]\n\n")
    return Reply(events=events, content_type="text/event-stream; charset=utf-8")


def _cost(outcome: Outcome) -> int:
    return len(tokens(outcome.text)) + sum(4 + count(a) for _, a in outcome.calls)


def _choice(index: int, outcome: Outcome, body: dict[str, Any]) -> dict[str, Any]:
    refused = outcome.ending is Ending.REFUSED
    finish = _FINISH[outcome.ending]
    content = None if refused or outcome.calls else outcome.text
    message: dict[str, Any] = {"role": "assistant", "content": content}
    functions = [
        {"name": name, "arguments": orjson.dumps(arguments).decode()}
        for name, arguments in outcome.calls
    ]
    if functions and "functions" in body:
        message["function_call"] = functions[0]
        finish = "function_call"
    elif functions:
        message["tool_calls"] = [
            {"id": fresh_id("call_", 24), "type": "function", "function": f} for f in functions
        ]
    message |= {"refusal": outcome.text if refused else None, "annotations": []}
    logprobs = None
    if body.get("logprobs") and content is not None:
        top = body.get("top_logprobs") or 0
        logprobs = {"content": [logprob(t, top) for t in tokens(content)], "refusal": None}
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def logprob(token: str, top: int) -> dict[str, Any]:
    """What the API says of one token and its `top` likeliest rivals."""
    raw = list(token.encode())
    own = {"token": token, "logprob": -0.0625 * (1 + sum(raw) % 16), "bytes": raw}
    others = [{"token": f"{token}{i}", "logprob": -3.5 - i, "bytes": raw} for i in range(1, top)]
    return {**own, "top_logprobs": [own, *others][:top]}


def _chunks(document: dict[str, Any], options: dict[str, Any]) -> list[dict[str, Any]]:
    """The document as `chat.completion.chunk` objects; alternatives are interleaved."""
    head = {
        "id": document["id"],
        "object": "chat.completion.chunk",
        "created": document["created"],
        "model": document["model"],
        "service_tier": document["service_tier"],
        "system_fingerprint": document["system_fingerprint"],
    }
    with_usage = options.get("include_usage") is True
    per_choice = [_choice_chunks(choice) for choice in document["choices"]]
    none_yet: dict[str, Any] = {"usage": None} if with_usage else {}
    out: list[dict[str, Any]] = [
        {**head, "choices": [choice], **none_yet}
        for choice in chain.from_iterable(zip_longest(*per_choice))
        if choice is not None
    ]
    if with_usage:
        out.append({**head, "choices": [], "usage": document["usage"]})
    if options.get("include_obfuscation") is not False:
        # Random padding against guessing a stream's text from the sizes of its packets.
        for chunk in out:
            chunk["obfuscation"] = fresh_id("", 1 + secrets.randbelow(16))
    return out


def _choice_chunks(choice: dict[str, Any]) -> list[dict[str, Any]]:
    index, message, logprobs = choice["index"], choice["message"], choice["logprobs"]

    def chunk(delta: dict[str, Any], probs: Any = None, finish: str | None = None) -> Any:
        return {"index": index, "delta": delta, "logprobs": probs, "finish_reason": finish}

    calls = message.get("tool_calls") or []
    role: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    if message["content"] is None:
        role["content"] = None
    if message["refusal"] is not None:
        role |= {"content": None, "refusal": ""}
    out = []
    speaks = message["content"] is not None or message["refusal"] is not None
    if speaks or len(calls) > 1:
        out.append(chunk(role, {"content": [], "refusal": None} if logprobs else None))
        role = {}
    spoken = 0
    for piece in pieces(message["content"] or ""):
        size = len(tokens(piece))
        probs = None
        if logprobs:
            probs = {"content": logprobs["content"][spoken : spoken + size], "refusal": None}
        out.append(chunk({"content": piece}, probs))
        spoken += size
    out.extend(chunk({"refusal": piece}) for piece in pieces(message["refusal"] or ""))
    for i, call in enumerate(calls):
        opened = {"name": call["function"]["name"], "arguments": ""}
        start = {"index": i, "id": call["id"], "type": "function", "function": opened}
        out.append(chunk({**role, "tool_calls": [start]}))
        out.extend(
            chunk({"tool_calls": [{"index": i, "function": {"arguments": piece}}]})
            for piece in pieces(call["function"]["arguments"])
        )
    if "function_call" in message:
        opened = {"name": message["function_call"]["name"], "arguments": ""}
        out.append(chunk({**role, "function_call": opened}))
        out.extend(
            chunk({"function_call": {"arguments": piece}})
            for piece in pieces(message["function_call"]["arguments"])
        )
    return [*out, chunk({}, None, choice["finish_reason"])]


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"
