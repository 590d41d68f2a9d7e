"""OpenAI's Responses API as the stub speaks it: a body, or the same answer as events.

Written after the types of the official SDK (3.54). Nothing is kept: what refers to an earlier
answer is answered by what the request itself says.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

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
from gateway.lab.stub_openai import SNAPSHOTS, error, fresh_id, logprob, steered

if TYPE_CHECKING:
    from collections.abc import Iterator

_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_LOGPROBS = "message.output_text.logprobs"
_ENCRYPTED = "reasoning.encrypted_content"
_CUT_SHORT = {Ending.LENGTH: "max_output_tokens", Ending.FILTERED: "content_filter"}
_LATE = ("completed_at", "error", "incomplete_details", "usage")
_Json = dict[str, Any]


def deleted(response_id: str) -> Reply:
    """Answer one `DELETE /v1/responses/{id}`: the stub keeps nothing, so that all is deleted."""
    return _body({"id": response_id, "object": "response", "deleted": True})


def retrieved(response_id: str) -> Reply:
    """Answer one `GET /v1/responses/{id}`: the stub keeps nothing."""
    return error(404, f"Response with id '{response_id}' not found.")


def responses(body: _Json) -> Reply:
    """Answer one `POST /v1/responses`."""
    query = read(body)
    streaming = body.get("stream") is True
    refused = steered(query, streaming=streaming)
    return refused or reply(document(body, query), body, query)


def reply(document: _Json, body: _Json, query: Query) -> Reply:
    """The response in the form that was asked for, with the faults that the question asks for."""
    streaming = body.get("stream") is True
    cut = "cut" in query.directives
    if not streaming:
        return Reply(body=orjson.dumps(document, option=orjson.OPT_INDENT_2), cut=cut)
    events = list(_events(document))
    if "error in stream" in query.directives:
        broken = {"code": "server_error", "message": "The server had an error.", "param": None}
        events = [*events[: len(events) // 2], {"type": "error", **broken}]
    if (body.get("stream_options") or {}).get("include_obfuscation") is not False:
        for event in events:
            if event["type"].endswith(".delta"):
                # Random padding against guessing a stream's text from the sizes of its packets.
                event["obfuscation"] = fresh_id("", 1 + secrets.randbelow(16))
    return Reply(
        events=tuple(
            b"event: %b\ndata: %b\n\n"
            % (event["type"].encode(), orjson.dumps({**event, "sequence_number": number}))
            for number, event in enumerate(events)
        ),
        content_type="text/event-stream; charset=utf-8",
        cut=cut,
    )


def read(body: _Json) -> Query:
    """What a Responses request asks."""
    given = body.get("input") or ""
    items: list[_Json] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    question, images = "", 0
    for item in items:
        content = item.get("content", "")
        parts = content if isinstance(content, list) else [{"text": content}]
        images += sum(part.get("type") == "input_image" for part in parts)
        if item.get("role") == "user":
            question = "".join(str(part.get("text", "")) for part in parts)
    choice = body.get("tool_choice", "auto")
    tools = tuple(
        Tool(tool["name"], tool.get("parameters") or {})
        for tool in body.get("tools") or ()
        if tool.get("type") in {"function", "custom"}
    )
    if isinstance(choice, dict):
        tools = tuple(tool for tool in tools if tool.name == choice.get("name"))
    elif choice == "none":
        tools = ()
    form = (body.get("text") or {}).get("format") or {}
    asked = (given, body.get("instructions") or "", body.get("tools") or "")
    return Query(
        digest=meaning(body),
        question=question,
        prompt_tokens=sum(map(count, asked)),
        images=images,
        tools=tools,
        forced=choice == "required" or isinstance(choice, dict),
        parallel=body.get("parallel_tool_calls") is not False,
        has_results=bool(items) and items[-1].get("type") in _OUTPUTS,
        schema=form.get("schema") if form.get("type") == "json_schema" else None,
        json_mode=form.get("type") == "json_object",
        max_tokens=body.get("max_output_tokens"),
    )


def document(body: _Json, query: Query) -> _Json:
    """The whole response, its ids fresh; nothing was read from a cache or written to one."""
    outcome = compose(query)
    why = _CUT_SHORT.get(outcome.ending)
    status = "incomplete" if why else "completed"
    thought = _thought(body, query)
    output = [*([thought] if thought else []), *_spoken(body, outcome, status)]
    thinking = 4 * len(tokens(query.question)) if thought else 0
    spent = thinking + len(tokens(outcome.text)) + sum(4 + count(a) for _, a in outcome.calls)
    now_s = int(time.time())
    reasoning = body.get("reasoning") or {}
    return {
        "id": fresh_id("resp_", 48),
        "object": "response",
        "created_at": now_s,
        "status": status,
        "background": False,
        "completed_at": None if why else now_s,
        "error": None,
        "incomplete_details": {"reason": why} if why else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": None,
        "model": SNAPSHOTS.get(body.get("model", ""), body.get("model")),
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "service_tier": "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": {"format": {"type": "text"}, "verbosity": "medium", **(body.get("text") or {})},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_logprobs": body.get("top_logprobs", 0),
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation", "disabled"),
        "usage": {
            "input_tokens": query.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": spent,
            "output_tokens_details": {"reasoning_tokens": thinking},
            "total_tokens": query.prompt_tokens + spent,
        },
        "metadata": body.get("metadata") or {},
    }


def _thought(body: _Json, query: Query) -> _Json | None:
    """The reasoning item where reasoning was asked for; its text is only told as a summary."""
    reasoning = body.get("reasoning") or {}
    if reasoning.get("effort") in {None, "none"}:
        return None
    said = [f"**Asked**\n\n{query.question}", f"**Answered**\n\nI know {len(query.tools)} tools."]
    summary = [{"type": "summary_text", "text": text} for text in said]
    item: _Json = {
        "id": fresh_id("rs_", 48),
        "type": "reasoning",
        "summary": summary if reasoning.get("summary") else [],
    }
    if _ENCRYPTED in (body.get("include") or ()):
        item["encrypted_content"] = f"gAAAA{query.digest.hex()}"
    return item


def _spoken(body: _Json, outcome: Outcome, status: str) -> list[_Json]:
    """The message, or the calls."""
    if outcome.calls:
        kinds = {tool.get("name"): tool.get("type") for tool in body.get("tools") or ()}
        return [_call(str(kinds[name]), name, given) for name, given in outcome.calls]
    part: _Json = {"type": "refusal", "refusal": outcome.text}
    if outcome.ending is not Ending.REFUSED:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": outcome.text}
        if _LOGPROBS in (body.get("include") or ()):
            top = body.get("top_logprobs") or 0
            part["logprobs"] = [logprob(token, top) for token in tokens(outcome.text)]
    own = {"id": fresh_id("msg_", 48), "type": "message", "status": status}
    return [{**own, "content": [part], "role": "assistant"}]


def _call(kind: str, name: str, given: _Json) -> _Json:
    arguments = orjson.dumps(given).decode()
    joined = {"call_id": fresh_id("call_", 24), "name": name}
    if kind == "custom":
        own = {"id": fresh_id("ctc_", 48), "type": "custom_tool_call", "status": "completed"}
        return {**own, "input": f"{name} {arguments}", **joined}
    own = {"id": fresh_id("fc_", 48), "type": "function_call", "status": "completed"}
    return {**own, "arguments": arguments, **joined}


# --- a response as events ---------------------------------------------------------------------


def _events(document: _Json) -> Iterator[_Json]:
    begun = {**document, "status": "in_progress", "output": [], **dict.fromkeys(_LATE)}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(document["output"]):
        yield from _item_events(item, index)
    yield {"type": f"response.{document['status']}", "response": document}


def _item_events(item: _Json, index: int) -> Iterator[_Json]:
    at = {"item_id": item["id"], "output_index": index}
    opened = {**item, "status": "in_progress"}
    match item["type"]:
        case "message":
            opened["content"] = []
            filled = _message_events(item["content"], at)
        case "reasoning":
            opened = {**item, "summary": []}
            filled = _summary_events(item["summary"], at)
        case "custom_tool_call":
            opened["input"] = ""
            filled = _text_events("response.custom_tool_call_input", "input", item["input"], at)
        case _:
            opened["arguments"] = ""
            whole = item["arguments"]
            filled = _text_events("response.function_call_arguments", "arguments", whole, at)
    yield {"type": "response.output_item.added", "output_index": index, "item": opened}
    yield from filled
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _text_events(event: str, member: str, whole: str, at: _Json) -> Iterator[_Json]:
    for piece in pieces(whole):
        yield {"type": f"{event}.delta", **at, "delta": piece}
    yield {"type": f"{event}.done", **at, member: whole}


def _summary_events(summary: list[_Json], item: _Json) -> Iterator[_Json]:
    for number, part in enumerate(summary):
        at = {**item, "summary_index": number}
        added = {**part, "text": ""}
        yield {"type": "response.reasoning_summary_part.added", **at, "part": added}
        yield from _text_events("response.reasoning_summary_text", "text", part["text"], at)
        yield {"type": "response.reasoning_summary_part.done", **at, "part": part}


def _message_events(content: list[_Json], item: _Json) -> Iterator[_Json]:
    for number, part in enumerate(content):
        at = {**item, "content_index": number}
        if part["type"] == "refusal":
            added = {**part, "refusal": ""}
            filled = _text_events("response.refusal", "refusal", part["refusal"], at)
        else:
            added = {**part, "text": "", "logprobs": []}
            filled = _spoken_events(part, at)
        yield {"type": "response.content_part.added", **at, "part": added}
        yield from filled
        yield {"type": "response.content_part.done", **at, "part": part}


def _spoken_events(part: _Json, at: _Json) -> Iterator[_Json]:
    told = 0
    for piece in pieces(part["text"]):
        size = len(tokens(piece))
        probs = part["logprobs"][told : told + size]
        yield {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": probs}
        told += size
    whole = {"text": part["text"], "logprobs": part["logprobs"]}
    yield {"type": "response.output_text.done", **at, **whole}


def _body(document: _Json) -> Reply:
    return Reply(body=orjson.dumps(document, option=orjson.OPT_INDENT_2))
